"""The screens: one row for each page and each action, with the scope that it needs and its handler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from aiohttp.typedefs import Handler

from okane.api_key import Scope
from okane.console.audit_page import AuditScreen
from okane.console.dead_letters import DeadLetterScreens
from okane.console.disputes import DisputesScreen
from okane.console.doctor import DoctorScreen
from okane.console.gate import Screen
from okane.console.keys import KeyScreens
from okane.console.login import LoginScreens
from okane.console.operation_actions import OperationActions
from okane.console.overview import OverviewScreen
from okane.console.payment import PaymentScreen
from okane.console.payments import PaymentsScreen
from okane.console.providers import ProviderScreens
from okane.console.reviews import ReviewsScreen
from okane.console.search_turns import SearchTurns
from okane.console.services import ConsoleServices
from okane.console.streams import StreamScreens
from okane.console.webhook_actions import WebhookActions
from okane.console.webhooks import WebhookScreens
from okane.console.workers import WorkersScreen
from okane.webhooks.confirmation import CONFIRM_S


class Screens:
    """The handlers of all screens."""

    def __init__(self, services: ConsoleServices, login: LoginScreens) -> None:
        self.services = services
        self.login = login
        self.overview = OverviewScreen(services.sampler)
        turns = SearchTurns()
        self.payments = PaymentsScreen(services.lists, services.by_metadata, services.payments, turns)
        self.payment = PaymentScreen(services.details, services.intake, services.operations, services.inspector)
        self.operations = OperationActions(self.payment, details=services.details, intake=services.operations)
        self.streams = StreamScreens(services.sampler, services.inspector)
        self.dead = DeadLetterScreens(services.dead_letters, services.replay, turns)
        self.reviews = ReviewsScreen(services.reviews)
        self.disputes = DisputesScreen(services.disputes)
        self.providers = ProviderScreens(services.switch, services.sampler)
        self.webhooks = WebhookScreens(services.endpoints, services.deliveries, services.overview)
        self.webhook_actions = WebhookActions(
            services.endpoints, services.deliveries, services.endpoint_tests, services.masters
        )
        self.workers = WorkersScreen(services.sampler)
        self.keys = KeyScreens(services.keys)
        self.doctor = DoctorScreen(services.doctor, services.settings)
        self.audit = AuditScreen(services.audit)


Row = tuple[Screen, Callable[[Screens], Handler]]

_READ, _WRITE, _OPERATE, _SYSTEM, _WEBHOOKS = Scope.READ, Scope.WRITE, Scope.OPERATE, Scope.SYSTEM, Scope.WEBHOOKS

_OPERATION = "/payments/{payment_id}/operations/{operation_id}"
_ENDPOINT = "/webhooks/{endpoint_id}"
BULK_S = 60.0  # five hundred payments, one statement and one message each
TEST_S = 30.0  # the longest time-out of an endpoint
DIAGNOSIS_S = 20.0  # servers that are away, each with its own time-out


def _page(path: str, scope: Scope, needs: Literal["postgres", "redis"]) -> Screen:
    return Screen("GET", path, scope, needs=needs)


SCREENS: Sequence[Row] = (
    (Screen("GET", "/login", None, public=True), lambda to: to.login.show),
    (Screen("POST", "/login", None, public=True), lambda to: to.login.log_in),
    (Screen("POST", "/logout", None, "log out", changes=False), lambda to: to.login.log_out),
    (Screen("GET", "/", _SYSTEM), lambda to: to.overview.show),
    (Screen("GET", "/payments", _READ), lambda to: to.payments.show),
    (_page("/payments/{payment_id}", _READ, "postgres"), lambda to: to.payment.show),
    (Screen("POST", "/payments/{payment_id}/cancel", _WRITE, "cancel payment"), lambda to: to.payment.cancel),
    (Screen("POST", "/payments/{payment_id}/retry", _WRITE, "retry payment"), lambda to: to.payment.retry),
    (Screen("POST", "/payments/{payment_id}/resolve", _OPERATE, "resolve payment"), lambda to: to.payment.resolve),
    (Screen("POST", "/payments/{payment_id}/capture", _WRITE, "capture payment"), lambda to: to.operations.capture),
    (Screen("POST", "/payments/{payment_id}/refund", _WRITE, "refund payment"), lambda to: to.operations.refund),
    (Screen("POST", f"{_OPERATION}/cancel", _WRITE, "cancel refund"), lambda to: to.operations.cancel),
    (Screen("POST", f"{_OPERATION}/retry", _WRITE, "retry operation"), lambda to: to.operations.retry),
    (Screen("POST", f"{_OPERATION}/resolve", _OPERATE, "resolve operation"), lambda to: to.operations.resolve),
    (Screen("GET", "/streams", _SYSTEM), lambda to: to.streams.show),
    (_page("/streams/delayed", _SYSTEM, "redis"), lambda to: to.streams.delayed),
    (_page("/streams/{lane}/pending", _SYSTEM, "redis"), lambda to: to.streams.pending),
    (_page("/dead", _READ, "postgres"), lambda to: to.dead.show),
    (_page("/dead/replay", _OPERATE, "postgres"), lambda to: to.dead.preview_replay),
    (Screen("POST", "/dead/replay", _OPERATE, "replay dead letters", extra_s=BULK_S), lambda to: to.dead.replay),
    (_page("/dead/purge", _OPERATE, "postgres"), lambda to: to.dead.preview_purge),
    (Screen("POST", "/dead/purge", _OPERATE, "purge dead letters", extra_s=BULK_S), lambda to: to.dead.purge),
    (_page("/reviews", _READ, "postgres"), lambda to: to.reviews.show),
    (_page("/disputes", _READ, "postgres"), lambda to: to.disputes.show),
    (_page("/providers", _SYSTEM, "postgres"), lambda to: to.providers.show),
    (
        Screen("POST", "/providers/{name}/switch", _SYSTEM, "switch provider", extra_s=BULK_S),
        lambda to: to.providers.switch,
    ),
    (_page("/webhooks", _READ, "postgres"), lambda to: to.webhooks.show),
    (_page(_ENDPOINT, _READ, "postgres"), lambda to: to.webhooks.endpoint),
    (Screen("POST", f"{_ENDPOINT}/enable", _WEBHOOKS, "enable endpoint"), lambda to: to.webhook_actions.enable),
    (
        Screen("POST", f"{_ENDPOINT}/disable", _WEBHOOKS, "disable endpoint", extra_s=CONFIRM_S),
        lambda to: to.webhook_actions.disable,
    ),
    (
        Screen("POST", f"{_ENDPOINT}/test", _WEBHOOKS, "test endpoint", extra_s=TEST_S),
        lambda to: to.webhook_actions.test,
    ),
    (Screen("POST", f"{_ENDPOINT}/redeliver", _WEBHOOKS, "redeliver event"), lambda to: to.webhook_actions.redeliver),
    (Screen("POST", f"{_ENDPOINT}/recover", _WEBHOOKS, "recover endpoint"), lambda to: to.webhook_actions.recover),
    (Screen("GET", "/workers", _SYSTEM), lambda to: to.workers.show),
    (_page("/keys", _SYSTEM, "postgres"), lambda to: to.keys.show),
    (Screen("POST", "/keys/{key}/revoke", _SYSTEM, "revoke key"), lambda to: to.keys.revoke),
    (Screen("GET", "/doctor", _SYSTEM, extra_s=DIAGNOSIS_S), lambda to: to.doctor.show),
    (_page("/audit", _SYSTEM, "postgres"), lambda to: to.audit.show),
)
