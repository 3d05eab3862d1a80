"""The checks of `okane doctor` about webhooks. None where no endpoint was ever made, but for a master that cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, IPv6Network

from okane.config import Settings
from okane.errors import SetupError, StoreUnavailable
from okane.monitoring.checked_system import CheckedSystem
from okane.monitoring.findings import Check
from okane.store import Overview
from okane.store.server_facts import read_postgres_facts
from okane.store.webhook_overview import WebhookOverview
from okane.webhooks.keys import SETTING, load_masters

TOLERANCE = timedelta(minutes=5)  # of receivers, for `webhook-timestamp`
ALARM = timedelta(minutes=1)  # a clock that is this far off will not stop there


async def webhook_checks(system: CheckedSystem) -> list[Check]:
    """Return the findings; none if Postgres or its schema is away, which has its own line."""
    if system.database is None:
        return []
    overview = Overview(system.database)
    try:
        found = await overview.webhooks()
        sent_at = datetime.now(UTC)
        skew = (await read_postgres_facts(system.database)).now - sent_at if found.used else timedelta(0)
    except (StoreUnavailable, SetupError):
        return []
    finally:
        await overview.aclose()
    checks = master(system.settings, used=found.used, running_up=system.source.startswith("okane up"))
    if not found.used:
        return checks
    return [*checks, clock(skew), *dispatcher(found), *endpoints(found), *allowed(system.settings.webhook_allow or ())]


def master(settings: Settings, *, used: bool, running_up: bool) -> list[Check]:
    """Check the master secret. `okane up` has one of its own, in its data folder."""
    try:
        found = load_masters(settings.webhook_master)
    except SetupError as error:
        return [Check("webhook master", "fail", str(error), "correct it, or run this as okane's user")]
    if found is None:
        if not used or running_up:
            return []
        advice = f"set {SETTING} for the API and the dispatcher, to the same: docs/operations.md"
        return [Check("webhook master", "fail", f"{SETTING} is not set, and there are endpoints", advice)]
    count = len(found.values)
    return [Check("webhook master", "ok", "set" if count == 1 else f"{count}, while one replaces another")]


def clock(skew: timedelta) -> Check:
    """Check this machine's clock, which requests are signed with, against the database's."""
    text = f"{abs(skew.total_seconds()):.1f} s from the database's"
    if abs(skew) < ALARM:
        return Check("webhook clock", "ok", text)
    advice = (
        f"synchronize by NTP: receivers refuse a webhook-timestamp that is off by {TOLERANCE.seconds // 60} minutes"
    )
    return Check("webhook clock", "fail", text, advice)


def dispatcher(found: WebhookOverview) -> list[Check]:
    """Check that a dispatcher holds each enabled endpoint."""
    enabled = found.states["healthy"].endpoints + found.states["failing"].endpoints
    if not enabled:
        return []
    if not found.unowned:
        return [Check("dispatcher", "ok", f"{enabled:,} endpoint{'' if enabled == 1 else 's'} leased")]
    text = f"{found.unowned:,} of {enabled:,} enabled endpoints are leased by no dispatcher"
    return [Check("dispatcher", "fail" if found.unowned >= enabled else "warn", text, "start one: okane dispatch")]


def endpoints(found: WebhookOverview) -> list[Check]:
    """Check that no endpoint fails or was disabled."""
    checks = []
    failing, disabled = found.states["failing"], found.states["disabled"]
    if failing.endpoints:
        text = f"{failing.endpoints:,}, with {failing.backlog:,} events in their backlog"
        checks.append(
            Check("failing endpoints", "warn", text, "see their last errors: okane webhooks ls --every-account")
        )
    if disabled.endpoints:
        text = f"{disabled.endpoints:,}, with {disabled.backlog:,} events in their backlog"
        checks.append(Check("disabled endpoints", "warn", text, "okane webhooks enable, within the retention"))
    return checks


def allowed(networks: Sequence[IPv4Network | IPv6Network]) -> list[Check]:
    """Warn of networks beyond this machine that endpoints may be in, with http."""
    beyond = [str(one) for one in networks if not one.is_loopback]
    if not beyond:
        return []
    advice = (
        "clients reach these networks through okane: OKANE_WEBHOOK_ALLOW should hold no more than your own receivers"
    )
    return [Check("webhook addresses", "warn", f"http and private addresses in {', '.join(beyond)}", advice)]
