"""Passwords, tokens and card numbers, planted wherever one can come in, must not come out: not in a log, not in a metric, and
in an answer only where it repeats what its own client has sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import pytest

from okane.api_key import Mode, NewKey, Scope
from okane.local.postgres import PostgresServer
from okane.local.redis_server import RedisServer
from okane.local.server import StartError
from okane.store import ApiKeyStore
from tests.flow.system import System, running

CARDS = ("4242424242424242", "5555555555554444")
TOKEN = "canary-token-3f9a"
PROVIDER_PASSWORD = "canary-provider-71bc"
WRONG_PASSWORD = "canary-wrong-d05e"
WAIT_S = 30.0
ALWAYS = ("--unavailable", "0", "--decline", "0")
HEADERS = {
    "Content-Type": "application/json",
    "Authorization": f"Bearer {TOKEN}",
    "Cookie": f"session={TOKEN}",
    "X-Api-Key": TOKEN,
}

# What is refused is refused without being repeated: (body, further headers).
REFUSED: list[tuple[str, dict[str, str]]] = [
    (f'{{"amount": 1, "idempotency_key": "k", "currency": "{CARDS[0]}"}}', {}),
    (f'{{"amount": "{CARDS[0]}", "idempotency_key": "k"}}', {}),
    (f'{{"amount": -{CARDS[0]}, "idempotency_key": "k"}}', {}),
    (f'{{"amount": 1, "idempotency_key": "k", "metadata": {{"card": {CARDS[0]}}}}}', {}),
    (f'{{"amount": 1, "idempotency_key": "k", "metadata": "{CARDS[0]}"}}', {}),
    (f'{{"amount": 1, "idempotency_key": "k", "number": "{CARDS[1]}"}}', {}),
    ('{{"amount": 1, "idempotency_key": "{} {}"}}'.format(*CARDS), {}),
    (f'{{"amount": 1, "idempotency_key": "{CARDS[0]}"}}', {"Idempotency-Key": CARDS[1]}),
    (f'{{"amount": 2, "idempotency_key": "{TOKEN}-key"}}', {}),  # taken, with another meaning
    (f'{{"amount": 1, "card": "{CARDS[1]}', {}),
    ('{{"card": "{}", "card": "{}"}}'.format(*CARDS), {}),
    (CARDS[0], {}),
    (f'"{CARDS[0]}"', {}),
    (f'{{"amount": 1, "idempotency_key": "{CARDS[0]}"}}', {}),
    (f'{{"amount": 1, "idempotency_key": "k", "metadata": {{"card": "{CARDS[0]}"}}}}', {}),
    (f'{{"amount": 1, "idempotency_key": "k", "metadata": {{"{CARDS[1]}": "{TOKEN}"}}}}', {}),
    ("{}", {"Content-Type": CARDS[0]}),
    ("{}", {"Content-Encoding": CARDS[0]}),
    ("{}", {"Expect": CARDS[0]}),
]
# What is no request at all; the rest of the line is the canary's place.
BROKEN = [
    f"{CARDS[0]} / HTTP/1.1\r\nHost: x\r\n\r\n",
    f"GET / HTTP/{CARDS[0]}\r\nHost: x\r\n\r\n",
    f"GET / HTTP/1.1\r\nHost: x\r\nAuthorization : Bearer {TOKEN}\r\n\r\n",
    f"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\x00\r\n\r\n",
    f"GET / HTTP/1.1\r\nHost: x\r\nCookie: {TOKEN}{'x' * 9000}\r\n\r\n",
    f"GET /{CARDS[0]}{'x' * 5000} HTTP/1.1\r\nHost: x\r\n\r\n",
    f"POST /v1/payments HTTP/1.1\r\nHost: x\r\nContent-Length: {CARDS[0]}x\r\n\r\n",
    f"POST /v1/payments HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nz{CARDS[1]}\r\n",
]


def _with_password(url: str, password: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:{password}@{parts.hostname}:{parts.port}"))


def _password(url: str) -> str:
    password = urlsplit(url).password
    assert password
    return password


class Watched:
    """A system, and everything it has said."""

    def __init__(self, system: System, folder: Path, secrets: tuple[str, ...]) -> None:
        self.system = system
        self._folder = folder
        self._secrets = (*secrets, *CARDS, TOKEN)
        self._refusals: list[bytes] = []

    async def refused(self, body: str, headers: dict[str, str]) -> int:
        """One request over a connection of its own, whose answer must not repeat a canary."""
        url = f"{self.system.url}/v1/payments"
        async with (
            aiohttp.ClientSession() as http,
            http.post(url, data=body.encode(), headers=HEADERS | headers, expect100=False) as response,
        ):
            self._refusals.append(await response.read())
            return response.status

    async def attempts(self, payment_id: str) -> None:
        """Read the attempts of a payment, with the provider's texts in them."""
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"{self.system.url}/v1/payments/{payment_id}/attempts") as response,
        ):
            assert response.status == 200
            self._refusals.append(await response.read())

    async def broken(self, text: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(self.system.url).port)
        writer.write(text.encode("latin-1"))
        async with asyncio.timeout(WAIT_S):
            self._refusals.append(await reader.read())
        writer.close()

    def watch(self, *secrets: str) -> None:
        """These must not come out, either."""
        self._secrets = (*self._secrets, *secrets)

    def logged(self, name: str, event: str) -> bool:
        return any(line["event"].startswith(event) for line in self.system.log(name))

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not holds():
                await asyncio.sleep(0.05)

    async def check(self, *processes: str) -> None:
        """Nothing planted has come out anywhere."""
        said = {path.name: path.read_bytes() for path in self._folder.glob("*.log")}
        assert said.keys() >= {f"{name}.log" for name in processes}
        for name in processes:
            said[f"{name}'s metrics"] = await self._metrics(name)
        said |= {f"refusal {number}": body for number, body in enumerate(self._refusals)}
        for where, text in said.items():
            assert text, where
            for secret in self._secrets:
                assert secret.encode() not in text, (where, secret, _around(text, secret))

    async def _metrics(self, name: str) -> bytes:
        url = f"http://127.0.0.1:{self.system._ports[f'{name} metrics']}/metrics"
        async with aiohttp.ClientSession() as http, http.get(url) as response:
            assert response.status == 200
            return await response.read()


def _around(text: bytes, secret: str) -> bytes:
    place = text.find(secret.encode())
    return text[max(0, place - 300) : place + 100]


@pytest.fixture
async def watched(
    tmp_path: Path, private_postgres: PostgresServer, private_redis: RedisServer
) -> AsyncIterator[tuple[Watched, PostgresServer, RedisServer]]:
    folder = tmp_path / "system"
    async with running(folder, private_postgres.url, private_redis.url) as system:
        provider = urlsplit(system.provider_url)
        system.env["OKANE_PROVIDER_BASE_URL"] = f"http://okane:{PROVIDER_PASSWORD}@{provider.netloc}"
        secrets = (PROVIDER_PASSWORD, WRONG_PASSWORD, _password(private_postgres.url), _password(private_redis.url))
        yield Watched(system, folder, secrets), private_postgres, private_redis


async def _pay_with_canaries(system: System) -> list[str]:
    ids = []
    async with aiohttp.ClientSession(system.url, headers=HEADERS) as http:
        for key in (f"{TOKEN}-key", f"{TOKEN}-key-2"):
            body = {"amount": 440, "idempotency_key": key, "metadata": {"token": TOKEN}}
            async with http.post("/v1/payments", data=json.dumps(body), headers={"X-Request-Id": CARDS[0]}) as response:
                assert response.status == 202
                ids.append((await response.json())["payment"]["id"])
        for path in (
            f"/v1/payments/{CARDS[0]}",
            f"/{CARDS[1]}?token={TOKEN}",
            f"/v1/payments/{ids[0]}?card={CARDS[0]}",
        ):
            async with http.get(path, headers={"If-None-Match": f'"{CARDS[0]}"'}) as response:
                assert response.status in (200, 404)
    return ids


async def test_no_canary_gets_out_while_all_is_well(watched: tuple[Watched, PostgresServer, RedisServer]) -> None:
    one, _, _ = watched
    system = one.system
    await system.start("w1", provider=ALWAYS)
    ids = await _pay_with_canaries(system)
    assert (await system.settled(ids))["success"] == 2
    statuses = [await one.refused(*request) for request in REFUSED]
    assert all(400 <= status < 500 for status in statuses), statuses
    for text in BROKEN:
        await one.broken(text)
    assert one.logged("api", "payment_accepted")  # this is the debug level
    assert one.logged("w1", "payment_settled")
    await one.check("api", "w1")


async def test_no_canary_gets_out_when_servers_go_away(watched: tuple[Watched, PostgresServer, RedisServer]) -> None:
    one, postgres, redis = watched
    system = one.system
    await system.start("w1", provider=ALWAYS)
    await system.kill("provider")
    await _pay_with_canaries(system)
    await one.until(lambda: any(line.get("status") == "failed_retryable" for line in system.log("w1")))
    redis.kill()
    await _pay_again(system)
    await one.until(lambda: any("Redis" in line["event"] for line in system.log("w1")))
    postgres.kill()
    assert await one.refused(f'{{"amount": 1, "idempotency_key": "{CARDS[1]}"}}', {}) == 503
    await one.until(lambda: one.logged("api", "postgres_lost"))
    await one.check("api", "w1")


async def test_no_api_key_gets_out(watched: tuple[Watched, PostgresServer, RedisServer]) -> None:
    one, postgres, _ = watched
    system = one.system
    right, wrong, later = (NewKey.make(Mode.TEST) for _ in range(3))
    keys = ApiKeyStore(postgres.url)
    await keys.create(right, account_id="acme", mode=Mode.TEST, scopes=[Scope.WRITE])
    await keys.aclose()
    one.watch(*(key.secret.rpartition("_")[2] for key in (right, wrong, later)))
    await system.start_api(OKANE_AUTH="keys")
    body = '{"amount": 440, "idempotency_key": "k"}'
    statuses = [
        await one.refused(body, {"Authorization": f"Bearer {secret}"})
        for secret in (right.secret, wrong.secret, right.secret + "0", f"{right.prefix}_{wrong.secret[-64:]}")
    ]
    assert statuses == [202, 401, 401, 401]
    postgres.kill()
    assert (
        await one.refused(body, {"Authorization": f"Bearer {later.secret}"}) == 503
    )  # the others' answers are remembered
    await one.until(lambda: one.logged("api", "postgres_lost"))
    await one.check("api")


async def _pay_again(system: System) -> None:
    body = json.dumps({"amount": 440, "idempotency_key": f"{TOKEN}-key-3", "metadata": {"token": TOKEN}})
    async with (
        aiohttp.ClientSession(system.url, headers=HEADERS) as http,
        http.post("/v1/payments", data=body) as response,
    ):
        assert (response.status, (await response.json())["enqueued"]) == (202, False)


async def test_no_password_gets_out_when_it_is_wrong(watched: tuple[Watched, PostgresServer, RedisServer]) -> None:
    """The process ends: a password does not mend itself."""
    one, postgres, redis = watched
    system = one.system
    right = dict(system.env)
    for name, url in (("OKANE_DATABASE_URL", postgres.url), ("OKANE_REDIS_URL", redis.url)):
        system.env.update(right | {name: _with_password(url, WRONG_PASSWORD)})
        for started in (system.start_api(), system.start_worker("w1")):
            with pytest.raises(
                StartError, match=rf"(?s)exited with 2.*Correct {name.removeprefix('OKANE_')}"
            ) as refused:
                await started
            assert WRONG_PASSWORD not in str(refused.value)
    await one.check()


GATEWAY_SECRETS = ("sk_test_canary51d0", "whsec_canary9b77", "canary-payu-secret-30c1", "canary-payu-key-77aa")


async def test_no_secret_of_a_gateway_gets_out(
    watched: tuple[Watched, PostgresServer, RedisServer], tmp_path: Path
) -> None:
    """A gateway refuses our key, and forged notices repeat our secrets."""
    one, _, _ = watched
    one.watch(*GATEWAY_SECRETS)
    system = one.system
    key, whsec, payu_secret, payu_key = GATEWAY_SECRETS
    (tmp_path / "stripe_key").write_text(f"{key}\n")
    (tmp_path / "stripe_key").chmod(0o400)
    path = tmp_path / "providers.toml"
    path.write_text(f"""
[providers.stripe]
kind = "stripe"
base_url = "{system.provider_url}"
api_key = "file:stripe_key"
webhook_secrets = ["env:CANARY_WHSEC"]

[providers.payu]
kind = "payu"
base_url = "{system.provider_url}"
pos_id = 1
client_id = 1
client_secret = "{payu_secret}"
second_keys = ["{payu_key}"]
""")
    system.env |= {"OKANE_PROVIDERS_FILE": str(path), "CANARY_WHSEC": whsec}
    await system.start("w1", provider=ALWAYS)  # the mock provider has none of the gateways' routes
    ids = []
    async with aiohttp.ClientSession(system.url, headers=HEADERS) as http:
        for provider in ("stripe", "payu"):
            body = {
                "amount": 440,
                "idempotency_key": f"{TOKEN}-{provider}",
                "payment_method": "pm_card_visa",
                "provider": provider,
            }
            async with http.post("/v1/payments", data=json.dumps(body)) as response:
                assert response.status == 202
                ids.append((await response.json())["payment"]["id"])
            for secret in (*GATEWAY_SECRETS, *CARDS):
                forged = {"Stripe-Signature": f"t=1,v1={secret}", "OpenPayu-Signature": f"signature={secret}"}
                route = f"/v1/providers/{provider}/webhook"
                async with http.post(route, data=f'{{"id": "{secret}"}}', headers=forged) as response:
                    assert response.status == 400
    await one.until(
        lambda: len({line["payment_id"] for line in system.log("w1") if line["event"] == "payment_settled"}) == 2
    )
    for payment_id in ids:
        await one.attempts(payment_id)
    await one.check("api", "w1")


async def test_no_secret_gets_out_when_the_modes_are_mixed(
    watched: tuple[Watched, PostgresServer, RedisServer], tmp_path: Path
) -> None:
    """The process ends: a key of mode live would move real money."""
    one, _, _ = watched
    path = tmp_path / "providers.toml"
    path.write_text('[providers.stripe]\nkind = "stripe"\napi_key = "sk_live_canary51d0"\n')
    with pytest.raises(
        StartError, match=r"(?s)exited with 2.*providers\.stripe\.api_key is a key of mode live"
    ) as refused:
        await one.system.start_worker("w1", OKANE_PROVIDERS_FILE=str(path))
    assert "canary51d0" not in str(refused.value)
