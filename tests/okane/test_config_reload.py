"""The providers file read again after a change: what takes effect, what is named in the log, and what keeps the old one."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from okane.api_key import Mode
from okane.config import Settings
from okane.providers import config_reload
from okane.providers.base import InvalidNotice
from okane.providers.config import ProvidersConfig, load_providers
from okane.providers.config_reload import ConfigReload
from okane.providers.registry import build_notice_parsers, charge_secrets, load_notice_secrets
from okane.providers.routing import RouteRule
from okane.providers.secrets import CurrentSecrets, Identity
from okane.rate import Rate

STRIPE = """
[providers.stripe]
kind = "stripe"
api_key = "sk_test_canary1"
webhook_secrets = ["whsec_canary1"]
"""
PAYU = """
[providers.payu]
kind = "payu"
pos_id = "300746"
client_id = "300746"
client_secret = "payu-canary-1"
second_keys = ["key-canary-1"]
"""
WITHOUT_NOTICES = STRIPE.replace("webhook_secrets", "# webhook_secrets")


def renamed(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


def in_place(path: Path, text: str) -> None:
    path.write_text(text)
    found = path.stat()
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 1_000_000))  # of one tick of the clock, on some systems


class Running:
    """The reload of a worker, or of an API process, and what it has."""

    def __init__(self, folder: Path, text: str, *, notices: bool = False, **settings: object) -> None:
        self.path = folder / "providers.toml"
        self.path.write_text(text)
        given = Settings(providers_file=self.path, **settings)  # type: ignore[arg-type]  # pydantic checks them
        self.config = load_providers(given)
        self.routes: list[Sequence[RouteRule]] = []
        self.rates: Mapping[str, Rate] = self.config.rates
        if notices:
            self.secrets = CurrentSecrets(load_notice_secrets(self.config))
            self.reload = ConfigReload.of_api(self.config, given, self.secrets, set_routes=self.routes.append)
        else:
            self.secrets = CurrentSecrets(charge_secrets(self.config))
            self.reload = ConfigReload.of_charges(self.config, given, self.secrets, set_rates=self._set_rates)
        self.lines: list[Mapping[str, object]] = []

    def _set_rates(self, rates: Mapping[str, Rate]) -> None:
        self.rates = rates

    async def look(self, times: int = 2) -> None:
        """Look as in these seconds; the lines of the log are in `lines`."""
        with capture_logs() as lines:
            for _ in range(times):
                await self.reload.look()
        assert "canary" not in str(lines)
        self.lines += lines

    @property
    def events(self) -> list[object]:
        return [line["event"] for line in self.lines]


@pytest.mark.parametrize("write", [renamed, in_place])
async def test_a_worker_takes_new_secrets_and_rates(tmp_path: Path, write: Callable[[Path, str], None]) -> None:
    one = Running(tmp_path, STRIPE + PAYU)
    key, client_secret = one.secrets.one("stripe.api_key"), one.secrets.one("payu.client_secret")
    await one.look()
    write(one.path, (STRIPE + 'rate = "7/s"\n' + PAYU + 'rate = "9/s"\n').replace("canary1", "canary2"))
    await one.look()
    assert (key(), client_secret()) == ("sk_test_canary2", "payu-canary-1")
    assert one.rates == {"stripe": Rate(7, 1, 7), "payu": Rate(9, 1, 9)}
    write(one.path, STRIPE + PAYU.replace("canary-1", "canary-2"))
    await one.look()
    assert (key(), client_secret()) == ("sk_test_canary1", "payu-canary-2")
    assert one.rates == {"stripe": Rate(25, 1, 25)}
    assert [line.get("taken") for line in one.lines] == [
        ["providers.payu.rate", "providers.stripe.api_key", "providers.stripe.rate"],
        ["providers.payu.client_secret", "providers.payu.rate", "providers.stripe.api_key", "providers.stripe.rate"],
    ]


def taken_by(parser: Callable[..., object], secret: str) -> bool:
    """Return True if the parser takes a notice that is signed with the secret."""
    now = datetime.now(UTC)
    body = json.dumps(
        {
            "id": "evt_1",
            "object": "event",
            "type": "payment_intent.succeeded",
            "data": {"object": {"id": "pi_1", "object": "payment_intent", "metadata": {}}},
        }
    ).encode()
    at = int(now.timestamp())
    signature = hmac.new(secret.encode(), b"%d." % at + body, hashlib.sha256).hexdigest()
    try:
        parser({"stripe-signature": f"t={at},v1={signature}"}, body, now=now)
    except InvalidNotice:
        return False
    return True


@pytest.mark.parametrize("write", [renamed, in_place])
async def test_a_second_webhook_secret_counts_until_the_first_is_removed(
    tmp_path: Path, write: Callable[[Path, str], None]
) -> None:
    one = Running(tmp_path, STRIPE, notices=True)
    parser = build_notice_parsers(one.config, secrets=one.secrets)["stripe"]

    def takes() -> list[bool]:
        return [taken_by(parser, secret) for secret in ("whsec_canary1", "whsec_canary2")]

    seen = [takes()]
    for secrets in ('"whsec_canary2", "whsec_canary1"', '"whsec_canary2"', "", '"whsec_canary1"'):
        write(one.path, STRIPE.replace('"whsec_canary1"', secrets))
        await one.look()
        seen.append(takes())
    assert seen == [[True, False], [True, True], [False, True], [False, False], [True, False]]
    assert one.events == ["providers_file_changed"] * 4


async def test_second_keys_of_payu_are_taken(tmp_path: Path) -> None:
    one = Running(tmp_path, PAYU, notices=True)
    keys = one.secrets.all("payu")
    renamed(one.path, PAYU.replace('"key-canary-1"', '"key-canary-1", "key-canary-2"'))
    await one.look()
    assert keys() == ["key-canary-1", "key-canary-2"]


async def test_a_file_is_taken_when_it_has_not_changed_for_a_look(tmp_path: Path) -> None:
    one = Running(tmp_path, STRIPE)
    await one.look()
    in_place(one.path, "[providers.stri")  # half written
    await one.look(1)
    in_place(one.path, STRIPE.replace("canary1", "canary22"))
    await one.look(1)
    assert one.secrets.one("stripe.api_key")() == "sk_test_canary1"
    await one.look(1)
    assert one.secrets.one("stripe.api_key")() == "sk_test_canary22"
    assert one.events == ["providers_file_changed"]


async def test_a_file_that_does_not_change_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []

    def counted(given: Settings) -> ProvidersConfig:
        reads.append(1)
        return load_providers(given)

    monkeypatch.setattr(config_reload, "load_providers", counted)
    one = Running(tmp_path, STRIPE)
    await one.look(10)
    assert len(reads) == 1  # what has changed since the start of the process
    renamed(one.path, "# a comment\n" + STRIPE)
    await one.look(10)
    assert (len(reads), one.lines) == (2, [])


async def test_a_change_between_the_start_and_the_first_look_is_taken(tmp_path: Path) -> None:
    one = Running(tmp_path, STRIPE)
    renamed(one.path, STRIPE.replace("canary1", "canary2"))
    await one.look()
    assert one.secrets.one("stripe.api_key")() == "sk_test_canary2"


async def test_all_else_is_named_in_one_line_and_needs_a_restart(tmp_path: Path) -> None:
    one = Running(tmp_path, STRIPE + PAYU)
    changed = STRIPE.replace("canary1", "canary2") + 'timeout = "9s"\nbase_url = "https://canary.example"\n'
    other = PAYU.replace("providers.payu", "providers.second")
    renamed(one.path, 'default = ["second"]\n' + changed + other)
    await one.look(4)
    assert one.secrets.one("stripe.api_key")() == "sk_test_canary2"
    [taken, restart] = one.lines
    assert (taken["event"], taken["taken"]) == ("providers_file_changed", ["providers.stripe.api_key"])
    assert restart["event"] == "providers_file_needs_restart"
    assert restart["changed"] == [
        "default",
        "providers.payu",
        "providers.second",
        "providers.stripe.base_url",
        "providers.stripe.timeout",
    ]
    assert one.secrets.one("payu.client_secret")() == "payu-canary-1"  # the provider is there until the restart


async def test_what_only_the_other_kind_of_process_uses_is_not_named(tmp_path: Path) -> None:
    worker = Running(tmp_path, STRIPE)
    renamed(worker.path, STRIPE.replace("whsec_canary1", "whsec_canary2"))
    await worker.look()
    api = Running(tmp_path, STRIPE, notices=True)
    renamed(api.path, STRIPE.replace("sk_test_canary1", "file:unreadable") + 'rate = "1/s"\n')
    await api.look()
    assert (worker.lines, api.lines) == ([], [])


async def test_the_first_webhook_secret_of_a_provider_needs_a_restart(tmp_path: Path) -> None:
    one = Running(tmp_path, WITHOUT_NOTICES + PAYU, notices=True)
    renamed(one.path, STRIPE + PAYU)
    await one.look()
    assert [(line["event"], line["changed"]) for line in one.lines] == [
        ("providers_file_needs_restart", ["providers.stripe.webhook_secrets"])
    ]


ROUTE = '[[routes]]\ncurrency = "PLN"\nuse = ["payu"]\n'


async def test_an_api_process_takes_new_routes_and_a_worker_needs_none(tmp_path: Path) -> None:
    for notices in (True, False):
        one = Running(tmp_path, STRIPE + PAYU, notices=notices)
        await one.look()
        renamed(one.path, STRIPE + PAYU + ROUTE)
        await one.look()
        renamed(one.path, STRIPE + PAYU)
        await one.look()
        taken = [[rule.names for rule in routes] for routes in one.routes]
        assert taken == ([[["payu"]], []] if notices else [])
        assert [line.get("taken") for line in one.lines] == ([["routes"], ["routes"]] if notices else [])


async def test_routes_to_a_new_provider_wait_for_a_restart(tmp_path: Path) -> None:
    one = Running(tmp_path, STRIPE, notices=True)
    renamed(one.path, STRIPE + PAYU + ROUTE)
    await one.look()
    assert one.routes == []
    assert [line["changed"] for line in one.lines] == [["default", "routes", "providers.payu"]]


async def test_wrong_routes_keep_the_old_ones(tmp_path: Path) -> None:
    one = Running(tmp_path, STRIPE + PAYU + ROUTE, notices=True)
    renamed(one.path, STRIPE + PAYU + ROUTE.replace("payu", "nowhere"))
    await one.look()
    assert (one.routes, one.events) == ([], ["providers_file_unusable"])


async def test_a_provider_of_another_kind_needs_a_restart(tmp_path: Path) -> None:
    one = Running(tmp_path, STRIPE)
    renamed(one.path, PAYU.replace("payu]", "stripe]"))
    await one.look()
    assert [line["changed"] for line in one.lines] == [["providers.stripe.kind"]]
    assert one.secrets.one("stripe.api_key")() == "sk_test_canary1"


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("canary canary", "is not TOML at line 1"),
        (STRIPE + 'timeout = "canary"', "providers.stripe.timeout"),
        (STRIPE + 'rate = "1/h burst 999999999"', "providers.stripe.rate has a burst"),
        (STRIPE.replace("sk_test_canary1", "sk_live_canary"), "providers.stripe.api_key is a key of mode live"),
        (STRIPE.replace("sk_test_canary1", "file:absent"), "providers.stripe.api_key .*absent cannot be read"),
        (STRIPE.replace("sk_test_canary1", "env:OKANE_ABSENT"), "providers.stripe.api_key needs the variable"),
        (STRIPE.replace("sk_test_canary1", "sk_test_canary2") + "x = 1\n" + PAYU + "y = 1\n", "stripe.x: .*payu.y: "),
        (None, "cannot be read"),
    ],
)
async def test_a_broken_file_keeps_the_old_configuration_and_is_logged_once(
    tmp_path: Path, broken: str | None, reason: str
) -> None:
    one = Running(tmp_path, STRIPE)
    one.path.unlink() if broken is None else renamed(one.path, broken)
    await one.look(5)
    assert one.secrets.one("stripe.api_key")() == "sk_test_canary1"
    assert one.rates == {"stripe": Rate(25, 1, 25)}
    [line] = one.lines
    assert line["event"] == "providers_file_unusable"
    assert re.search(reason, str(line["reason"]))


async def test_a_secret_that_comes_after_the_file_is_taken(tmp_path: Path) -> None:
    one = Running(tmp_path, STRIPE)
    renamed(one.path, STRIPE.replace("sk_test_canary1", "file:key"))
    await one.look(3)
    (tmp_path / "key").touch(mode=0o400)
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "key").write_text("sk_test_canary2")
    await one.look(1)
    assert one.secrets.one("stripe.api_key")() == "sk_test_canary2"
    assert one.events == ["providers_file_unusable", "providers_file_changed"]


async def test_the_file_of_another_secret_may_be_away(tmp_path: Path) -> None:
    (tmp_path / "key").touch(mode=0o600)
    (tmp_path / "key").write_text("payu-canary-1")
    text = STRIPE + PAYU.replace("payu-canary-1", "file:key")
    one = Running(tmp_path, text)
    (tmp_path / "key").unlink()
    renamed(one.path, text.replace("sk_test_canary1", "sk_test_canary2"))
    await one.look()
    assert one.secrets.one("stripe.api_key")() == "sk_test_canary2"
    assert one.secrets.one("payu.client_secret")() == "payu-canary-1"


async def test_a_pipe_in_the_place_of_the_file_holds_nothing_up(tmp_path: Path) -> None:
    one = Running(tmp_path, STRIPE)
    one.path.unlink()
    os.mkfifo(one.path)
    async with asyncio.timeout(10):
        await one.look()
    assert [str(line["reason"]).rpartition(" is ")[2] for line in one.lines] == ["not a regular file"]


async def test_mode_live_takes_no_literal_of_a_changed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_KEY", "sk_live_canary1")
    text = WITHOUT_NOTICES.replace("sk_test_canary1", "env:CANARY_KEY")
    one = Running(tmp_path, text, mode=Mode.LIVE)
    renamed(one.path, text.replace("env:CANARY_KEY", "sk_live_canary2"))
    await one.look()
    assert one.secrets.one("stripe.api_key")() == "sk_live_canary1"
    assert one.events == ["providers_file_unusable"]


async def test_the_file_is_looked_at_until_the_process_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_reload, "LOOK_EVERY_S", 0.001)
    one, stop, changed = Running(tmp_path, STRIPE), asyncio.Event(), asyncio.Event()
    monkeypatch.setattr(one.secrets, "replace", lambda loaded: changed.set())
    monkeypatch.setattr(one.reload, "_identity", fails_once(one.reload._identity))
    with capture_logs() as lines:
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            group.create_task(one.reload.run(stop))
            await changed.wait()
            stop.set()
    assert [line["event"] for line in lines] == ["providers_file_failed"]  # a bug ends no look after it


def fails_once(function: Callable[[], Identity]) -> Callable[[], Identity]:
    left = [RuntimeError("a bug")]

    def called() -> Identity:
        if left:
            raise left.pop()
        return function()

    return called
