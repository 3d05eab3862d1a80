"""Settings: the names of both predecessors, durations, and refused values."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from okane.config import Settings, load
from okane.errors import SetupError


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the `.env` of the checkout and the environment of the machine."""
    monkeypatch.chdir(tmp_path)
    for name in ("DATABASE_URL", "REDIS_URL", "REDIS_ADDR", "PORT", "WORKER_COUNT", "MAX_RETRIES", "LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)


def test_the_ancestors_names_work(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "DATABASE_URL": "postgresql://h/d",
        "REDIS_ADDR": "localhost:6379",
        "PROVIDER_BASE_URL": "http://p",
        "PORT": "9",
        "MOCK_PROVIDER_PORT": "10",
        "MAX_RETRIES": "3",
        "LOG_LEVEL": "INFO",
        "WORKER_COUNT": "5",
        "VISIBILITY_TIMEOUT": "1m30s",
    }.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.database_url == "postgresql://h/d"
    assert settings.redis == "redis://localhost:6379"
    assert (settings.provider_base_url, settings.port, settings.mock_provider_port) == ("http://p", 9, 10)
    assert (settings.max_retries, settings.log_level, settings.concurrency) == (3, "info", 5)
    assert settings.lease == timedelta(seconds=90)


def test_our_own_name_wins_over_the_ancestors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "9")
    monkeypatch.setenv("OKANE_PORT", "10")
    assert Settings().port == 10


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({}, "okane:operations"),
        ({"OKANE_STREAM": "shop"}, "shop:operations"),
        ({"OKANE_STREAM": "shop:payments"}, "shop:operations"),
        ({"OKANE_OPERATIONS_STREAM": "moves"}, "moves"),
    ],
)
def test_the_stream_of_operations_is_named_after_that_of_payments(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], name: str
) -> None:
    for variable, value in given.items():
        monkeypatch.setenv(variable, value)
    assert Settings().operations_stream_name == name


def test_payments_and_operations_do_not_share_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OKANE_OPERATIONS_STREAM", "okane:payments")
    with pytest.raises(SetupError, match="OKANE_OPERATIONS_STREAM must not be OKANE_STREAM"):
        load()


def test_redis_url_wins_over_redis_addr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://a")
    monkeypatch.setenv("REDIS_ADDR", "b:1")
    assert Settings().redis == "redis://a"


def test_an_env_file_is_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=9\nOKANE_DRAIN=5s\nSOMETHING_ELSE=1\n")
    settings = Settings()
    assert (settings.port, settings.drain) == (9, timedelta(seconds=5))


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30), ("0.5", 0.5), ("30s", 30), ("1m30s", 90), ("250ms", 0.25), ("1h", 3600)]
)
def test_durations_are_seconds_or_gos(monkeypatch: pytest.MonkeyPatch, text: str, seconds: float) -> None:
    monkeypatch.setenv("OKANE_DRAIN", text)
    assert Settings().drain == timedelta(seconds=seconds)


def test_a_list_of_durations_is_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OKANE_LOOK_UP_DELAYS", "5s,1m")
    assert Settings().look_up_delays == (timedelta(seconds=5), timedelta(minutes=1))


def test_networks_and_ports_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OKANE_WEBHOOK_ALLOW", "127.0.0.0/8, ::1")
    monkeypatch.setenv("OKANE_WEBHOOK_DENY_PORTS", "25,465")
    assert [str(one) for one in Settings().webhook_allow or ()] == ["127.0.0.0/8", "::1/128"]
    assert Settings().webhook_deny_ports == frozenset({25, 465})


def test_the_master_of_the_webhooks_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OKANE_WEBHOOK_MASTER", "m" * 40)
    assert Settings().webhook_master == "m" * 40
    assert "mmm" not in repr(Settings())


@pytest.mark.parametrize(("text", "size_bytes"), [("200GB", 200_000_000_000), ("1GiB", 2**30), ("5000000", 5_000_000)])
def test_sizes_have_a_unit_or_are_bytes(monkeypatch: pytest.MonkeyPatch, text: str, size_bytes: int) -> None:
    monkeypatch.setenv("OKANE_WEBHOOK_MAX_BYTES", text)
    assert Settings().webhook_max_bytes == size_bytes


@pytest.mark.parametrize("name", ["OKANE_WEBHOOK_ALLOW", "OKANE_CONSOLE_PROXIES"])
@pytest.mark.parametrize("value", ["10.0.0.1/8", "proxy.internal", "10.0.0.0/33", "10.0.0.0/8 fd00::/8"])
def test_a_network_that_cannot_be_is_refused_with_one_that_can(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SetupError, match=rf"{name}: \D+ like 10\.0\.0\.0/8 or fd00::/8") as refused:
        load()
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OKANE_CONSOLE_BASE", "console"),
        ("OKANE_CONSOLE_BASE", "/ops//okane"),
        ("OKANE_CONSOLE_BASE", "/ops/../okane"),
        ("OKANE_CONSOLE_BASE", "/" + "x" * 200),
        ("OKANE_CONSOLE_GRAFANA", "grafana.internal"),
        ("OKANE_CONSOLE_GRAFANA", "https://user:word@grafana.internal"),
        ("OKANE_CONSOLE_PORT", "70000"),
        ("OKANE_CONSOLE_READ_ONLY", "perhaps"),
        ("OKANE_WEBHOOK_MAX_BYTES", "0"),
        ("OKANE_WEBHOOK_MAX_BYTES", "many"),
        ("OKANE_WEBHOOK_KEEP", "0"),
        ("OKANE_WEBHOOK_ALLOW", "10.0.0.1/8"),
        ("OKANE_WEBHOOK_ALLOW", "internal"),
        ("OKANE_WEBHOOK_ALLOW", ",".join(f"10.{i}.0.0/16" for i in range(101))),
        ("OKANE_WEBHOOK_DENY_PORTS", "0"),
        ("OKANE_WEBHOOK_DENY_PORTS", "https"),
        ("OKANE_DRAIN", "soon"),
        ("OKANE_DRAIN", "-1"),
        ("PORT", "70000"),
        ("WORKER_COUNT", "0"),
        ("MAX_RETRIES", "-1"),
        ("LOG_LEVEL", "loud"),
        ("VISIBILITY_TIMEOUT", "5s"),  # not longer than the provider's deadline
        ("OKANE_LOW_BELOW_MINOR", "20000"),
        ("OKANE_DEFAULT_CURRENCY", "usd"),
        ("OKANE_DEFAULT_CURRENCY", "BGN"),  # withdrawn
        ("OKANE_AMOUNT_LIMITS", "EUR=9007199254740992"),  # above 2^53-1, which no payment may be
        ("OKANE_CRITICAL_FROM_MINOR", "9007199254740992"),
        ("REDIS_URL", "http://localhost:6379"),
        ("REDIS_ADDR", "http://localhost:6379"),
        ("PROVIDER_BASE_URL", "foo"),
        ("OKANE_METRICS_ADVERTISE", "http://worker-1"),
        ("OKANE_METRICS_ADVERTISE", "worker-1:9101"),
        ("OKANE_METRICS_ADVERTISE", "[fd00::1]"),
    ],
)
def test_what_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError):
        Settings()


def test_every_setting_without_an_address_has_a_default() -> None:
    settings = Settings()
    assert (settings.host, settings.port, settings.lease) == ("127.0.0.1", 8080, timedelta(seconds=30))
    assert (settings.database_url, settings.redis, settings.provider_base_url) == (None, None, None)


def test_an_unquoted_at_in_a_password_is_refused_and_not_shown() -> None:
    with pytest.raises(ValidationError, match="written %40") as refused:
        Settings(database_url="postgresql://okane:hun@ter2@localhost/okane")
    assert "ter2" not in str(refused.value)
    for url in ("postgresql://okane:hun%40ter2@localhost/okane", "postgresql://h/d?options=a@b@c"):
        assert Settings(database_url=url).database_url == url


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "okane.internal", "127.0.0.1,10.0.0.1", "localhost,::"])
def test_without_keys_nobody_beyond_this_machine_is_let_in(host: str) -> None:
    with pytest.raises(ValidationError, match="OKANE_AUTH=none"):
        Settings(_env_file=None, host=host, auth="none")
    assert Settings(_env_file=None, host=host).auth == "keys"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost", "127.0.0.1,::1"])
def test_without_keys_this_machine_is_let_in(host: str) -> None:
    assert Settings(_env_file=None, host=host, auth="none").host == host


def test_a_settings_representation_holds_no_key() -> None:
    assert "canary" not in repr(Settings(_env_file=None, api_key="canary"))
