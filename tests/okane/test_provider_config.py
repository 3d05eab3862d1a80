"""The providers file: valid ones, wrong ones, and the providers made from it."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from okane.api_key import Mode
from okane.config import Settings
from okane.errors import SetupError
from okane.providers.base import InvalidNotice
from okane.providers.capabilities import ALL
from okane.providers.config import KINDS, OkaneHttpConfig, PayuConfig, ProvidersConfig, StripeConfig, load_providers
from okane.providers.registry import build_notice_parsers, build_providers, load_charge_secrets, load_notice_secrets
from okane.providers.routing import RouteRule
from okane.rate import Rate
from tests.docs.tables import OPERATIONS, ROOT, _section

STRIPE = """
[providers.stripe]
kind = "stripe"
api_key = "sk_test_canary1234"
webhook_secrets = ["whsec_canary1", "whsec_canary2"]
"""
PAYU = """
[providers.payu]
kind = "payu"
pos_id = 300746
client_id = "300746"
client_secret = "payu-canary-secret"
second_keys = ["payu-canary-key"]
"""
MOCK = """
[providers.mock]
kind = "okane_http"
base_url = "http://okane:canary-password@127.0.0.1:8081"
"""


def load(folder: Path, text: str, **settings: object) -> ProvidersConfig:
    path = folder / "providers.toml"
    path.write_text(text)
    return load_providers(Settings(providers_file=path, **settings))  # type: ignore[arg-type]  # pydantic checks them


def load_with_secrets(folder: Path, text: str, **settings: object) -> None:
    config = load(folder, text, **settings)
    load_charge_secrets(config)
    load_notice_secrets(config)


def refusal(folder: Path, text: str, **settings: object) -> str:
    """Return the message with which a file is refused, by the parser or when its secrets are loaded."""
    with pytest.raises(SetupError) as refused:
        load_with_secrets(folder, text, **settings)
    assert "canary" not in str(refused.value)
    return str(refused.value)


def test_a_file_of_all_kinds_is_read(tmp_path: Path) -> None:
    config = load(tmp_path, STRIPE + PAYU + MOCK)
    assert config.default == ("stripe", "payu", "mock")
    assert config.names == {"stripe", "payu", "mock"}
    stripe, payu, mock = config.providers.values()
    assert isinstance(stripe, StripeConfig)
    assert isinstance(payu, PayuConfig)
    assert isinstance(mock, OkaneHttpConfig)
    assert (stripe.timeout, stripe.consistency_lag, payu.pos_id) == (
        timedelta(seconds=30),
        timedelta(seconds=90),
        "300746",
    )
    assert config.rates == {"stripe": Rate(25, 1, 25)}
    assert {name: secret() for name, secret in load_charge_secrets(config).items()} == {
        "stripe.api_key": "sk_test_canary1234",
        "payu.client_secret": "payu-canary-secret",
    }
    notices = {name: [secret() for secret in secrets] for name, secrets in load_notice_secrets(config).items()}
    assert notices == {"stripe": ["whsec_canary1", "whsec_canary2"], "payu": ["payu-canary-key"]}


def test_the_order_of_the_candidates_is_that_of_default(tmp_path: Path) -> None:
    assert load(tmp_path, 'default = ["payu"]\n' + STRIPE + PAYU).default == ("payu",)


def test_routes_are_read_in_their_order(tmp_path: Path) -> None:
    text = '[[routes]]\ncurrency = "PLN"\nuse = ["payu", "stripe"]\n[[routes]]\nweights = {stripe = 1, payu = 3}\n'
    config = load(tmp_path, STRIPE + PAYU + text)
    assert [(rule.currency, rule.names) for rule in config.routes] == [
        (["PLN"], ["payu", "stripe"]),
        (None, ["payu", "stripe"]),
    ]


def test_durations_and_rates_have_units(tmp_path: Path) -> None:
    more = 'timeout = "10s"\nconsistency_lag = 60\nunknown_deadline = "1h"\nconnections = 8\nrate = "100/s burst 200"\n'
    stripe = load(tmp_path, STRIPE + more).providers["stripe"]
    assert (stripe.timeout, stripe.consistency_lag) == (timedelta(seconds=10), timedelta(minutes=1))
    assert (stripe.unknown_deadline, stripe.connections, stripe.rate) == (timedelta(hours=1), 8, Rate(100, 1, 200))


def test_without_a_file_the_base_url_is_the_one_provider() -> None:
    config = load_providers(Settings(provider_base_url="http://p"))
    assert (config.path, config.default) == (None, ("http",))
    assert config.names == {"http"}
    assert not config.rates
    assert not load_charge_secrets(config)
    assert not load_notice_secrets(config)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "providers: Field required"),
        ("[providers]", "providers: "),
        ("x = canary", "is not TOML at line 1"),
        ("[providers.stripe]", "providers.stripe.kind must be one of stripe, payu, okane_http"),
        ('[providers.stripe]\nkind = "canary"', "providers.stripe.kind must be one of"),
        ('[providers.Stripe]\nkind = "stripe"', "providers.Stripe is no name"),
        ('[providers."canary canary canary"]'.replace("canary", "x"), "is no name"),
        ('providers = "canary"', "providers: "),
        ('[providers]\nstripe = "canary"', "providers.stripe: "),
        (STRIPE.replace("api_key", "apikey"), "providers.stripe.api_key: Field required"),
        (STRIPE.replace("api_key", "apikey"), "providers.stripe.apikey: is unknown"),
        (STRIPE + 'pos_id = "canary"', "providers.stripe.pos_id: is unknown"),
        (STRIPE.replace('"sk_test_canary1234"', "4242"), "providers.stripe.api_key: "),
        (STRIPE + "timeout = 0", "providers.stripe.timeout: "),
        (STRIPE + 'timeout = "canary"', "providers.stripe.timeout: "),
        (STRIPE + 'consistency_lag = "20s"', "providers.stripe.consistency_lag must not be shorter than timeout"),
        (STRIPE + 'rate = "canary"', "providers.stripe.rate: "),
        (STRIPE + "connections = 0", "providers.stripe.connections: "),
        (STRIPE + 'base_url = "canary"', "providers.stripe.base_url: "),
        (STRIPE + 'base_url = "https://u:canary@h"', "providers.stripe.base_url takes no user"),
        (
            STRIPE.replace("sk_test", "sk_live"),
            "providers.stripe.api_key is a key of mode live, and OKANE_MODE is test",
        ),
        (STRIPE.replace("sk_test", "rk_live"), "providers.stripe.api_key is a key of mode live"),
        (STRIPE.replace("sk_test_canary1234", "file:absent"), "providers.stripe.api_key .*absent cannot be read"),
        (STRIPE.replace("whsec_canary2", "env:OKANE_NO"), r"providers.stripe.webhook_secrets\[1\] needs the variable"),
        (PAYU + 'base_url = "https://secure.payu.com"', "providers.payu.base_url is not that of OKANE_MODE=test"),
        (MOCK + 'timeout = "30s"', "providers.mock.timeout must be shorter than VISIBILITY_TIMEOUT"),
        (MOCK.replace("127.0.0.1:8081", "h:canary"), "providers.mock.base_url"),
        ('default = ["paypal"]\n' + STRIPE, "default takes names of this file's providers: stripe"),
        ('default = ["stripe", "stripe"]\n' + STRIPE, "default has a name twice"),
        ("default = []\n" + STRIPE, "default: "),
        (STRIPE + "[[routes]]", "routes.1: must have use or weights, and not both"),
        (STRIPE + '[[routes]]\nuse = ["stripe"]\nweights = {stripe = 1}', "routes.1: must have use or weights"),
        (STRIPE + "[[routes]]\nuse = []", "routes.1.use: "),
        (STRIPE + '[[routes]]\nuse = ["stripe", "stripe"]', "routes.1: use has a name twice"),
        (STRIPE + '[[routes]]\nuse = ["paypal"]', "routes.1: use takes names of this file's providers: stripe"),
        (STRIPE + "[[routes]]\nweights = {paypal = 1}", "routes.1: weights takes names of this file's providers"),
        (STRIPE + "[[routes]]\nweights = {stripe = 0}", "routes.1.weights.stripe: "),
        (STRIPE + "[[routes]]\nweights = {stripe = 0.5}", "routes.1.weights.stripe: "),
        (STRIPE + 2 * '[[routes]]\nuse = ["stripe"]\n', "routes.1: has no condition: the routes below it never decide"),
        (STRIPE + '[[routes]]\nuse = ["stripe"]\n[[routes]]\ncurency = "PLN"', "routes.2.curency: is unknown"),
        (STRIPE + '[[routes]]\nuse = ["stripe"]\ncurrency = "pln"', "routes.1.currency.0: must be an ISO 4217 code"),
        (STRIPE + '[[routes]]\nuse = ["stripe"]\naccount = ""', "routes.1.account.0: "),
        (STRIPE + '[[routes]]\nuse = ["stripe"]\namount_from = 0', "routes.1.amount_from: "),
        (STRIPE + '[[routes]]\nuse = ["stripe"]\namount_from = 2\namount_to = 1', "routes.1: amount_from is above"),
        (STRIPE + '[[routes]]\nuse = ["stripe"]\nfallback = "always"', "routes.1.fallback: "),
        (STRIPE + '[[routes]]\nuse = ["stripe"]\ncapture_method = "later"', "routes.1.capture_method: "),
        (STRIPE + 101 * '[[routes]]\nuse = ["stripe"]\ncurrency = "PLN"\n', "routes: .*at most 100"),
        ("routes = 1\n" + STRIPE, "routes: "),
    ],
)
def test_a_wrong_file_is_refused_by_the_name_of_its_key(tmp_path: Path, text: str, named: str) -> None:
    message = refusal(tmp_path, text)
    assert re.search(named, message), message
    assert "providers.toml" in message


def test_everything_wrong_is_named_at_once(tmp_path: Path) -> None:
    message = refusal(tmp_path, STRIPE + "connections = 0\n" + PAYU + "rate = 5\n" + '[providers.X]\nkind = "stripe"')
    assert [re.search(r"(?<=: )providers\.\w+(\.\w+)?", line)[0] for line in message.splitlines()] == [  # type: ignore[index]
        "providers.stripe.connections",
        "providers.payu.rate",
        "providers.X",
    ]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (STRIPE.replace("sk_test", "sk_live"), "api_key must be file:PATH or env:NAME"),
        (STRIPE.replace("sk_test_canary1234", "env:TEST_KEY"), "api_key is a key of mode test, and OKANE_MODE is live"),
        (PAYU + 'base_url = "https://secure.snd.payu.com"', "base_url is not that of OKANE_MODE=live"),
        (PAYU + 'base_url = "http://gateway.internal"', "base_url must be https in mode live"),
        (MOCK, "base_url has a password"),
    ],
)
def test_mode_live_takes_no_literals_and_no_test_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, named: str
) -> None:
    monkeypatch.setenv("TEST_KEY", "sk_test_canary1234")
    assert named in refusal(tmp_path, text, mode=Mode.LIVE)


def test_mode_live_takes_live_keys_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("sk_live_canary1234\n")
    (tmp_path / "key").chmod(0o400)
    monkeypatch.setenv("WHSEC", "whsec_canary")
    text = '[providers.stripe]\nkind = "stripe"\napi_key = "file:key"\nwebhook_secrets = ["env:WHSEC"]\n'
    config = load(tmp_path, text, mode=Mode.LIVE)
    assert load_charge_secrets(config)["stripe.api_key"]() == "sk_live_canary1234"


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for path, named in ((tmp_path / "absent", "cannot be read"), (tmp_path, "cannot be read")):
        with pytest.raises(SetupError, match=named):
            load_providers(Settings(providers_file=path))
    assert "64 kB" in refusal(tmp_path, "#" * 70_000)
    (tmp_path / "latin").write_bytes(b"# \xe9")
    with pytest.raises(SetupError, match="not in UTF-8"):
        load_providers(Settings(providers_file=tmp_path / "latin"))


@given(text=st.one_of(st.text(), st.text(st.sampled_from("[]{}=\"'\n.,# providerskind1"))))
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(SetupError):
        load_providers(Settings(providers_file=path))


async def test_providers_are_built_by_their_names(tmp_path: Path) -> None:
    config = load(tmp_path, STRIPE + PAYU + MOCK + MOCK.replace("mock", "second") + 'timeout = "2s"')
    built = build_providers(config, Settings(), connections=4)
    assert [(name, provider.name) for name, provider in built.items()] == [
        (name, name) for name in ("stripe", "payu", "mock", "second")
    ]
    assert {name: provider.traits.capabilities for name, provider in built.items()} == config.capabilities
    assert [provider.traits.timeout.total_seconds() for provider in built.values()] == [30, 30, 5, 2]
    for provider in built.values():
        await provider.aclose()


def test_the_capabilities_of_each_provider_are_known_without_an_adapter(tmp_path: Path) -> None:
    config = load(tmp_path, STRIPE + PAYU + MOCK + 'capabilities = ["refund"]')
    assert config.capabilities["mock"] == {"refund"}
    assert load_providers(Settings()).capabilities == {"http": ALL}
    named = refusal(tmp_path, MOCK + 'capabilities = ["teleport"]')
    assert "providers.mock.capabilities.0" in named


async def test_a_point_of_sale_at_payu_is_built(tmp_path: Path) -> None:
    config = load(tmp_path, PAYU + 'unknown_deadline = "6h"')
    (provider,) = build_providers(config, Settings(), connections=4).values()
    assert (provider.name, provider.traits.unknown_deadline) == ("payu", timedelta(hours=6))
    await provider.aclose()
    with pytest.raises(SetupError, match=r"providers\.payu: PayU's pos_id must be a number"):
        build_providers(load(tmp_path, PAYU.replace("300746", '"shop"', 1)), Settings(), connections=4)


async def test_a_deadline_beyond_the_life_of_the_keys_is_refused(tmp_path: Path) -> None:
    config = load(tmp_path, STRIPE + 'unknown_deadline = "24h"')
    with pytest.raises(SetupError, match=r"providers\.stripe: unknown_deadline must be less than"):
        build_providers(config, Settings(), connections=4)


def test_notices_of_providers_with_secrets_are_parsed(tmp_path: Path) -> None:
    config = load(tmp_path, STRIPE + PAYU.replace("second_keys", "# second_keys") + MOCK)
    parsers = build_notice_parsers(config)
    assert set(parsers) == {"stripe"}
    with pytest.raises(InvalidNotice):
        parsers["stripe"]({}, b"{}", now=datetime.now(UTC))


def test_a_changed_secret_of_notices_counts_at_once(tmp_path: Path) -> None:
    (tmp_path / "whsec").write_text("first-key")
    (tmp_path / "whsec").chmod(0o400)
    config = load(tmp_path, PAYU.replace('"payu-canary-key"', '"file:whsec"'))
    [secret] = load_notice_secrets(config)["payu"]
    (tmp_path / "whsec").unlink()
    (tmp_path / "whsec").write_text("second-key")
    secret.reread()
    assert secret() == "second-key"


async def test_without_a_file_the_provider_is_named_http() -> None:
    settings = Settings(provider_base_url="http://127.0.0.1:1")
    (provider,) = build_providers(load_providers(settings), settings, connections=4).values()
    assert provider.name == "http"
    await provider.aclose()
    with pytest.raises(SetupError, match="PROVIDER_BASE_URL is not set"):
        build_providers(load_providers(Settings()), Settings(), connections=4)


def test_a_process_without_a_gateway_loads_no_adapter() -> None:
    code = "import sys, okane.providers.registry; print([n for n in sys.modules if n.startswith('okane.providers.')])"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60).stdout
    for adapter in ("stripe", "payu", "okane_http"):
        assert f"okane.providers.{adapter}" not in loaded


def test_the_document_lists_every_key() -> None:
    table = _section(OPERATIONS, "The providers file").partition("|---")[2]
    documented = {
        key for row in table.splitlines() if row.startswith("| `") for key in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    assert documented == {key for kind in KINDS.values() for key in kind.model_fields}


def test_the_document_lists_every_key_of_a_route() -> None:
    table = _section((ROOT / "docs" / "providers.md").read_text(), "Routes").partition("|---")[2]
    rows = [row for row in table.splitlines() if row.startswith("| `")]
    assert {key for row in rows for key in re.findall(r"`(\w+)`", row.split("|")[1])} == {*RouteRule.model_fields}
