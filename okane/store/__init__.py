"""The Postgres store, the only place with SQL: one method, one transaction."""

from okane.payment import NewPayment
from okane.store.api_keys import ApiKeyStore, StoredKey
from okane.store.dead_letters import DeadLetterFilter, DeadLetterStore, DeadPayment
from okane.store.lists import Page, PaymentFilter, PaymentLists, PaymentWatch
from okane.store.overview import Overview
from okane.store.payments import PaymentStore
from okane.store.provider_events import ProviderEvent, ProviderEventStore
from okane.store.rare_transitions import Decision
from okane.store.records import (
    API,
    CONSOLE,
    OPERATOR,
    AcceptedRow,
    Attempt,
    Call,
    Claim,
    ClaimRefusal,
    Event,
    LateLookUp,
    Settlement,
    UsableProvider,
    actor_kind,
    is_reserved_name,
)
from okane.store.review import ReviewStore
from okane.store.sweep import SweepStore, WakeUp
from okane.store.webhook_events import EventPage, EventRow, LoggedEvent, Sequenced, WebhookEventStore

__all__ = [
    "API",
    "CONSOLE",
    "OPERATOR",
    "AcceptedRow",
    "ApiKeyStore",
    "Attempt",
    "Call",
    "Claim",
    "ClaimRefusal",
    "DeadLetterFilter",
    "DeadLetterStore",
    "DeadPayment",
    "Decision",
    "Event",
    "EventPage",
    "EventRow",
    "LateLookUp",
    "LoggedEvent",
    "NewPayment",
    "Overview",
    "Page",
    "PaymentFilter",
    "PaymentLists",
    "PaymentStore",
    "PaymentWatch",
    "ProviderEvent",
    "ProviderEventStore",
    "ReviewStore",
    "Sequenced",
    "Settlement",
    "StoredKey",
    "SweepStore",
    "UsableProvider",
    "WakeUp",
    "WebhookEventStore",
    "actor_kind",
    "is_reserved_name",
]
