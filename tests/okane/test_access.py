"""API keys: the scopes, the account and the lifetime for which a key is admitted."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from okane import api_key
from okane.api.access import KeyAccess
from okane.api.problems import Problem
from okane.api.routes import SCOPES
from okane.api_key import Mode, NewKey, Scope
from okane.errors import StoreUnavailable
from okane.payment import Status
from okane.rate import Rate
from okane.store import ApiKeyStore, Claim
from tests.okane.api_keys import BODY, JSON, ask, bearer, make, pay, store
from tests.okane.api_requests import settle
from tests.okane.served_api import Api, serve_api
from tests.okane.stored_payments import settlement

FIXTURES = (store,)

ANOTHER_BODY = '{"amount": 441, "idempotency_key": "k"}'
BODIES = {"/v1/payments/batch": f"[{BODY}]", "/v1/dead-letters/replay": '{"limit": 1}'}
BODIES["/v1/payments/{payment_id}/resolve"] = '{"as": "success", "reason": "seen"}'
BODIES["/v1/payment-methods"] = '{"tokens": {"http": "tok_1"}, "kind": "card", "idempotency_key": "k"}'
BODIES["/v1/refunds"] = '{"payment": "0198c0de-0000-7000-8000-000000000001", "idempotency_key": "k"}'
BODIES["/v1/refunds/{refund_id}/resolve"] = BODIES["/v1/payments/{payment_id}/resolve"]
BODIES["/v1/webhook-endpoints"] = '{"url": "https://shop.example/hook"}'
BODIES["/v1/webhook-endpoints/{endpoint_id}"] = '{"description": "orders"}'
BODIES["/v1/webhook-endpoints/{endpoint_id}/rotate"] = BODIES["/v1/webhook-endpoints/{endpoint_id}/enable"] = "{}"
BODIES["/v1/webhook-endpoints/{endpoint_id}/recover"] = '{"since": "2026-03-01T12:00:00Z"}'
BODIES["/v1/events/{event_id}/redeliver"] = '{"endpoint": "7d4a1c1e-1f0a-4b7e-9d2c-3b1f0a5c8e21"}'
WITH_BODY = {"POST", "PATCH"}
PROTECTED = sorted(route for route, scope in SCOPES.items() if scope is not None)


@pytest.fixture
async def api(database_url: str, redis_url: str, store: ApiKeyStore) -> AsyncIterator[Api]:
    """An API that looks a key up for every request."""
    access = KeyAccess(store, mode=Mode.TEST, cache_s=0.0)
    async for one in serve_api(database_url, redis_url, access):
        yield one


@pytest.fixture
async def open_api(database_url: str, redis_url: str) -> AsyncIterator[Api]:
    async for one in serve_api(database_url, redis_url):
        yield one


async def admitted(access: KeyAccess, secret: str) -> bool:
    try:
        await access.admit([f"Bearer {secret}"], Scope.READ)
    except Problem:
        return False
    return True


def path_of(pattern: str, payment_id: object) -> str:
    path = pattern.replace("{event_id}", f"evt_{uuid4().hex}_1")
    for name in ("{refund_id}", "{payment_method_id}", "{dispute_id}"):
        path = path.replace(name, str(uuid4()))
    return path.replace("{payment_id}", str(payment_id)).replace("{endpoint_id}", str(payment_id))


@pytest.mark.parametrize(("method", "pattern"), PROTECTED)
async def test_no_route_of_payments_answers_without_a_key(api: Api, method: str, pattern: str) -> None:
    for headers in ({}, {"Authorization": "Digest x"}, {"Cookie": "key=sk_test_x"}, {"X-Api-Key": "sk_test_x"}):
        body = BODY if method in WITH_BODY else None
        response, said = await ask(api, method, path_of(pattern, uuid4()), headers, body)
        assert (response.status, said["code"], said["retryable"]) == (401, "key_missing", False)
        assert response.headers["WWW-Authenticate"].startswith("Bearer ")


@pytest.mark.parametrize("path", ["/v1/health", "/health", "/healthz", "/readyz"])
async def test_probes_take_no_key(api: Api, path: str) -> None:
    assert (await ask(api, "GET", path, {}))[0].status == 200


async def test_every_route_has_its_scope(api: Api) -> None:
    """Assert that the table has every route; an unknown route is a 404 without a key too."""
    for path in ("/nothing", "/v1/keys"):
        assert (await ask(api, "GET", path, {}))[1]["code"] == "route_not_found"
    assert (await ask(api, "DELETE", "/v1/payments/x", {}))[1]["code"] == "method_not_allowed"


@pytest.mark.parametrize(("method", "pattern"), PROTECTED)
async def test_a_key_does_what_its_scopes_allow(api: Api, store: ApiKeyStore, method: str, pattern: str) -> None:
    needed = SCOPES[method, pattern]
    body = BODIES.get(pattern, BODY) if method in WITH_BODY else None
    for scope in Scope:
        secret = await make(store, "acme", scope)
        response, said = await ask(api, method, path_of(pattern, uuid4()), bearer(secret), body)
        if scope is needed:
            assert response.status in {202, 200, 201, 207, 404}
        else:
            assert (response.status, said["code"]) == (403, "scope_missing")
            assert f'scope="{needed}"' in response.headers["WWW-Authenticate"]


async def test_lists_hold_the_payments_of_their_account_alone(api: Api, store: ApiKeyStore) -> None:
    ours, theirs = [await make(store, account) for account in ("acme", "globex")]
    payment_id = (await pay(api, ours))[1]["payment"]["id"]
    claim = await api.store.claim(UUID(payment_id))
    assert isinstance(claim, Claim)
    await api.store.settle(settlement(claim.payment, Status.FAILED_FINAL, event="spent"))
    replay = json.dumps({"filter": {"payment_ids": [payment_id]}})
    for secret, count in ((theirs, 0), (ours, 1)):
        _, listed = await ask(api, "GET", "/v1/payments?status=failed_final", bearer(secret))
        _, dead = await ask(api, "GET", "/v1/dead-letters", bearer(secret))
        _, tried = await ask(api, "POST", "/v1/dead-letters/replay", bearer(secret), replay)
        assert [len(listed["payments"]), len(dead["dead_letters"]), len(tried["retried"])] == [count] * 3


async def test_another_accounts_refund_is_not_there(api: Api, store: ApiKeyStore) -> None:
    ours, theirs = [await make(store, account) for account in ("acme", "globex")]
    payment_id = (await pay(api, ours))[1]["payment"]["id"]
    await settle(api, payment_id, Status.SUCCESS, provider="http")
    body = json.dumps({"payment": payment_id, "idempotency_key": "r-1", "amount": 1})
    refused = await ask(api, "POST", "/v1/refunds", bearer(theirs), body)
    assert (refused[0].status, refused[1]["code"]) == (404, "payment_not_found")
    _, made = await ask(api, "POST", "/v1/refunds", bearer(ours), body)
    path = f"/v1/refunds/{made['refund']['id']}"
    decision = BODIES["/v1/payments/{payment_id}/resolve"]
    routes = [("GET", path, None), ("POST", f"{path}/cancel", None), ("POST", f"{path}/retry", None)]
    for method, route, sent in [*routes, ("POST", f"{path}/resolve", decision)]:
        response, said = await ask(api, method, route, bearer(theirs), sent)
        assert (response.status, said["code"]) == (404, "refund_not_found"), route
    for secret, count in ((theirs, 0), (ours, 1)):
        assert len((await ask(api, "GET", "/v1/refunds", bearer(secret)))[1]["refunds"]) == count
    # Their key is their own.
    assert (await ask(api, "GET", path, bearer(ours)))[1]["refund"]["status"] == "pending"


async def test_a_head_takes_the_key_of_a_get(api: Api, store: ApiKeyStore) -> None:
    reader, writer = await make(store, "acme", Scope.READ), await make(store, "acme", Scope.WRITE)
    _, said = await pay(api, writer)
    path = f"/v1/payments/{said['payment']['id']}"
    found = [(await ask(api, "HEAD", path, headers))[0].status for headers in ({}, bearer(writer), bearer(reader))]
    assert found == [401, 403, 200]


async def test_the_key_may_come_as_the_user_of_basic_authentication(api: Api, store: ApiKeyStore) -> None:
    secret = await make(store, "acme")
    for credentials in (f"{secret}:", f"{secret}:ignored", secret):
        header = f"Basic {b64encode(credentials.encode()).decode()}"
        response, _ = await ask(api, "POST", "/v1/payments", {"Authorization": header}, BODY)
        assert response.status in {200, 202}


@pytest.mark.parametrize(
    "header",
    [
        "Bearer ",
        "Bearer sk_test_x",
        "Bearer sk_prod_abcdefghijkl_" + "0" * 64,
        "Bearer sk_test_abcdefghijkl_" + "0" * 64,
        "Bearer sk_test_abcdefghijkl_" + "0" * 5000,
        "Basic !!!",
        "Basic " + b64encode(b"\xff\xfe").decode(),
        "Basic " + b64encode(b"user:password").decode(),
    ],
)
async def test_an_invalid_key_is_refused(api: Api, header: str) -> None:
    response, said = await ask(api, "POST", "/v1/payments", {"Authorization": header}, BODY)
    assert (response.status, said["code"]) == (401, "key_invalid")
    assert 'error="invalid_token"' in response.headers["WWW-Authenticate"]


async def test_a_wrong_secret_gets_the_answer_of_an_unknown_name(api: Api, store: ApiKeyStore) -> None:
    secret = await make(store, "acme")
    wrong = secret[:-1] + ("0" if secret[-1] != "0" else "1")
    unknown = NewKey.make(Mode.TEST).secret
    answers = [await pay(api, one) for one in (wrong, unknown)]
    assert [(status, said["code"]) for status, said in answers] == [(401, "key_invalid")] * 2
    assert answers[0][1]["detail"] == answers[1][1]["detail"]


async def test_two_credentials_are_refused(api: Api, store: ApiKeyStore) -> None:
    secret = await make(store, "acme")
    headers = [*JSON.items(), *bearer(secret).items(), ("Authorization", "Bearer other")]
    async with api.client.post("/v1/payments", data=BODY, headers=headers) as response:
        assert (response.status, (await response.json())["code"]) == (401, "key_invalid")


@pytest.mark.parametrize(("method", "pattern"), [route for route in PROTECTED if "{payment_id}" in route[1]])
@pytest.mark.parametrize("spelling", ["{}", "pay_{}"])
async def test_another_accounts_payment_is_not_there(
    api: Api, store: ApiKeyStore, method: str, pattern: str, spelling: str
) -> None:
    ours, theirs = await make(store, "acme"), await make(store, "globex")
    status, said = await pay(api, ours)
    assert status == 202, said
    path = path_of(pattern, spelling.format(said["payment"]["id"]))
    response, refused = await ask(api, method, path, bearer(theirs))
    _, nowhere = await ask(api, method, path_of(pattern, uuid4()), bearer(theirs))
    assert (response.status, refused["code"], nowhere["code"]) == (404, "payment_not_found", "payment_not_found")
    assert (await ask(api, method, path, bearer(ours)))[0].status != 404


@pytest.mark.parametrize("path", ["/v1/payments", "/payments", "/pay"])
async def test_idempotency_keys_belong_to_their_account(api: Api, store: ApiKeyStore, path: str) -> None:
    ours, again, theirs = await make(store, "acme"), await make(store, "acme"), await make(store, "globex")
    assert (await pay(api, ours, path=path))[0] == 202
    assert (await pay(api, theirs, ANOTHER_BODY, path=path))[0] == 202  # no conflict
    assert (await pay(api, again, path=path))[0] == 200  # the account's, not the API key's
    assert (await pay(api, again, ANOTHER_BODY, path=path))[1]["code"] == "idempotency_key_reused"


async def test_a_key_that_was_revoked_or_has_expired_is_refused(api: Api, store: ApiKeyStore) -> None:
    revoked, short = await make(store, "acme"), await make(store, "acme", lifetime=timedelta(milliseconds=1))
    assert (await pay(api, revoked))[0] == 202
    name = api_key.prefix_of(revoked)
    assert name is not None
    assert await store.revoke(name) is not None
    async with asyncio.timeout(10):
        while (await pay(api, short))[0] != 401:
            await asyncio.sleep(0.01)
    details = [(await pay(api, secret))[1]["detail"] for secret in (revoked, short)]
    assert details == ["this API key was revoked", "this API key has expired"]


@pytest.mark.parametrize(("key", "system"), [(Mode.LIVE, Mode.TEST), (Mode.TEST, Mode.LIVE)])
async def test_a_key_of_the_other_mode_is_refused(store: ApiKeyStore, key: Mode, system: Mode) -> None:
    access = KeyAccess(store, mode=system)
    with pytest.raises(Problem, match=f"this is a {key} key, and a {system} system"):
        await access.admit([f"Bearer {await make(store, 'acme', mode=key)}"], Scope.READ)


async def test_a_key_is_read_once_in_a_while_and_expires_without_a_query(store: ApiKeyStore) -> None:
    access = KeyAccess(store, mode=Mode.TEST, cache_s=3600.0)
    lasting, short = await make(store, "acme"), await make(store, "acme", lifetime=timedelta(seconds=1))
    for secret in (lasting, short):
        assert (await access.admit([f"Bearer {secret}"], Scope.READ)).account_id == "acme"
    assert await store.revoke(api_key.prefix_of(lasting) or "") is not None
    await access.admit([f"Bearer {lasting}"], Scope.READ)  # not heard of yet
    async with asyncio.timeout(10):
        while await admitted(access, short):
            await asyncio.sleep(0.05)


async def test_only_so_many_keys_are_kept(store: ApiKeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("okane.api.access.MAX_CACHED", 3)
    access = KeyAccess(store, mode=Mode.TEST)
    secrets = [await make(store, f"account-{number}") for number in range(5)]
    for secret in [*secrets, *secrets]:
        await access.admit([f"Bearer {secret}"], Scope.READ)
        assert len(access._cached) <= 3
    for _ in range(20):
        with pytest.raises(Problem):
            await access.admit([f"Bearer {NewKey.make(Mode.TEST).secret}"], Scope.READ)
    assert len(access._cached) == 3  # unknown keys take no room
    assert len(access._refused) <= 3


async def test_six_thousand_spellings_of_one_key_take_the_room_of_one(store: ApiKeyStore) -> None:
    access, secret = KeyAccess(store, mode=Mode.TEST, cache_s=3600.0), await make(store, "acme")
    passwords = (f"Basic {b64encode(f'{secret}:{number}'.encode()).decode()}" for number in range(5_000))
    schemes = [f"{scheme} {' ' * blanks}{secret}" for scheme in ("Bearer", "bearer", "BEARER") for blanks in range(350)]
    for credentials in (*passwords, *schemes, f"  Bearer {secret} "):
        assert (await access.admit([credentials], Scope.READ)).account_id == "acme"
    assert [*access._cached] == [secret]


async def test_an_expired_answer_takes_no_room(store: ApiKeyStore) -> None:
    access, lasting = (KeyAccess(store, mode=Mode.TEST, cache_s=cache_s) for cache_s in (0.0, 3600.0))
    for one in (access, lasting):
        await one.admit([f"Bearer {await make(store, 'acme')}"], Scope.READ)
        with pytest.raises(Problem):
            await one.admit([f"Bearer {NewKey.make(Mode.TEST).secret}"], Scope.READ)
        await one.run_once()
    assert [len(access._cached), len(access._refused)] == [0, 0]
    assert [len(lasting._cached), len(lasting._refused)] == [1, 1]


@pytest.mark.parametrize("reason", ["scope", "revoked", "unknown", "other mode", "wrong secret"])
async def test_a_refused_key_is_not_read_from_postgres_again(
    store: ApiKeyStore, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    secret = await make(store, "acme", Scope.WRITE, mode=Mode.LIVE if reason == "other mode" else Mode.TEST)
    if reason == "unknown":
        secret = NewKey.make(Mode.TEST).secret
    elif reason == "wrong secret":
        secret = secret[:-1] + ("0" if secret[-1] != "0" else "1")
    elif reason == "revoked":
        await store.revoke(api_key.prefix_of(secret) or "")
    access, asked = KeyAccess(store, mode=Mode.TEST, cache_s=3600.0), []
    find = store.find

    async def counting(prefix: str) -> Any:
        asked.append(prefix)
        return await find(prefix)

    monkeypatch.setattr(store, "find", counting)
    codes = set()
    for number in range(20):
        basic = f"Basic {b64encode(f'{secret}:{number}'.encode()).decode()}"
        with pytest.raises(Problem) as refused:
            await access.admit([f"Bearer {secret}" if number % 2 else basic], Scope.READ)
        codes.add(refused.value.code)
    assert (len(asked), codes) == (1, {"scope_missing" if reason == "scope" else "key_invalid"})


async def test_a_thousand_unknown_keys_share_a_few_round_trips(
    store: ApiKeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    access, trips = KeyAccess(store, mode=Mode.TEST), []
    asking = store._session.fetch_repeatable

    async def counting(*given: Any) -> Any:
        trips.append(given)
        return await asking(*given)

    monkeypatch.setattr(store._session, "fetch_repeatable", counting)
    secrets = [NewKey.make(Mode.TEST).secret for _ in range(1_000)]
    assert not any(await asyncio.gather(*(admitted(access, secret) for secret in secrets)))
    assert len(trips) <= 6


async def test_when_a_key_was_used_is_written_once_a_minute(store: ApiKeyStore) -> None:
    one, other = KeyAccess(store, mode=Mode.TEST), KeyAccess(store, mode=Mode.TEST)
    secret, unused = await make(store, "acme"), await make(store, "acme")
    for access in (one, one, other):
        await access.admit([f"Bearer {secret}"], Scope.READ)
    assert [await one.run_once(), await other.run_once(), await one.run_once()] == [1, 0, 0]
    used = {key.prefix: key.last_used_at for key in await store.list()}
    assert used[api_key.prefix_of(secret) or ""] is not None
    assert used[api_key.prefix_of(unused) or ""] is None


async def test_use_is_written_at_the_end_and_an_absent_database_delays_nothing(
    store: ApiKeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    access, stop = KeyAccess(store, mode=Mode.TEST), asyncio.Event()
    secret = await make(store, "acme")
    await access.admit([f"Bearer {secret}"], Scope.READ)

    async def away(_prefixes: object) -> int:
        raise StoreUnavailable("away")

    with monkeypatch.context() as broken:
        broken.setattr(store, "touch", away)
        assert await access.run_once() == 0
    running = asyncio.create_task(access.run(stop))
    stop.set()
    await running
    assert (await store.list())[0].last_used_at is not None


async def test_a_rotated_key_overlaps_with_its_successor(store: ApiKeyStore) -> None:
    old = await make(store, "acme", Scope.READ, name="shop", rate=Rate(5, 1, 5), lifetime=timedelta(days=90))
    name = api_key.prefix_of(old) or ""
    new = NewKey.make(Mode.TEST)
    made = await store.rotate(name, new, overlap=timedelta(hours=1))
    assert made is not None
    assert (made.account_id, made.name, str(made.rate)) == ("acme", "shop", "5/s")
    assert made.scopes == {Scope.READ}
    assert made.expires_at is not None
    assert made.expires_at - made.created_at == timedelta(days=90)
    access = KeyAccess(store, mode=Mode.TEST)
    for secret in (old, new.secret):
        assert (await access.admit([f"Bearer {secret}"], Scope.READ)).account_id == "acme"
    ends = next(key.expires_at for key in await store.list() if key.prefix == name)
    assert ends is not None
    assert ends - made.created_at == timedelta(hours=1)
    await store.rotate(name, NewKey.make(Mode.TEST), overlap=timedelta(days=1))
    assert next(key.expires_at for key in await store.list() if key.prefix == name) == ends  # never later


async def test_a_key_that_is_not_valid_is_not_rotated(store: ApiKeyStore) -> None:
    name = api_key.prefix_of(await make(store, "acme")) or ""
    await store.revoke(name)
    assert await store.rotate(name, NewKey.make(Mode.TEST), overlap=timedelta(hours=1)) is None
    assert await store.rotate("sk_test_nobodysnamee", NewKey.make(Mode.TEST), overlap=timedelta(hours=1)) is None
    assert len(await store.list(ended=True)) == 1


async def test_a_scope_of_a_newer_version_gives_no_right_and_does_no_harm(
    store: ApiKeyStore, database_url: str
) -> None:
    """During an upgrade, older processes read keys that newer ones made."""
    name = api_key.prefix_of(await make(store, "acme", Scope.READ)) or ""
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.execute("ALTER TABLE api_keys DROP CONSTRAINT api_keys_scopes_check")
        await connection.execute("UPDATE api_keys SET scopes = ARRAY['read', 'of-tomorrow']")
    found = await store.find(name)
    assert found is not None
    assert found.scopes == {Scope.READ}
    assert [one.scopes for one in await store.list()] == [{Scope.READ}]


async def test_the_database_holds_no_secret(store: ApiKeyStore) -> None:
    secret = await make(store, "acme")
    held = str(await store._session.fetch("SELECT k::text FROM api_keys k"))
    assert (api_key.prefix_of(secret) or "") in held
    assert secret.rpartition("_")[2] not in held


def test_keys_are_random_and_say_what_they_are() -> None:
    made = {NewKey.make(mode).secret for mode in Mode for _ in range(100)}
    assert len(made) == 200
    for secret in made:
        prefix = api_key.prefix_of(secret)
        assert prefix is not None
        assert prefix.startswith(("sk_test_", "sk_live_"))
        assert len(bytes.fromhex(secret.rpartition("_")[2])) == 32


async def test_without_keys_everybody_is_one_account(open_api: Api) -> None:
    made, _ = await ask(open_api, "POST", "/payments", {}, BODY)
    again, said = await ask(open_api, "POST", "/payments", {"Authorization": "Bearer nonsense"}, BODY)
    assert (made.status, again.status) == (202, 200)
    payment = await open_api.store.get(UUID(said["payment"]["id"]), account_id=api_key.ACCOUNT)
    assert payment.idempotency_key == "k"


async def test_no_list_shows_another_accounts_payments(api: Api, store: ApiKeyStore) -> None:
    ours, theirs = await make(store, "acme"), await make(store, "globex")
    _, said = await pay(api, ours)
    payment_id = said["payment"]["id"]
    await settle(api, payment_id, Status.FAILED_FINAL, event="spent")
    for path, name in (("/v1/payments", "payments"), ("/v1/dead-letters", "dead_letters")):
        for query in ("", "?limit=100", "?status=failed_final", "?idempotency_key=k"):
            response, found = await ask(api, "GET", path + query, bearer(theirs))
            if response.status == 200:
                assert payment_id not in str(found), path + query
        assert payment_id in str((await ask(api, "GET", path, bearer(ours)))[1]), name


async def test_dead_letters_of_another_account_are_not_replayed(api: Api, store: ApiKeyStore) -> None:
    ours, theirs = await make(store, "acme"), await make(store, "globex")
    _, said = await pay(api, ours)
    payment_id = said["payment"]["id"]
    await settle(api, payment_id, Status.FAILED_FINAL, event="spent")
    for secret, status in ((theirs, "failed_final"), (ours, "pending")):
        response, _ = await ask(api, "POST", "/v1/dead-letters/replay", bearer(secret), '{"filter": {}, "limit": 10}')
        assert response.status == 200
        shown = (await ask(api, "GET", f"/v1/payments/{payment_id}", bearer(ours)))[1]
        assert shown["payment"]["status"] == status


async def test_a_batch_is_its_accounts(api: Api, store: ApiKeyStore) -> None:
    ours, theirs = await make(store, "acme"), await make(store, "globex")
    _, said = await pay(api, ours)
    _, answer = await ask(api, "POST", "/v1/payments/batch", bearer(theirs), f"[{ANOTHER_BODY}]")
    assert "idempotency_key_reused" not in str(answer)
    assert said["payment"]["id"] not in str(answer)


async def test_the_history_names_the_key_of_a_change_and_the_api_does_not(api: Api, store: ApiKeyStore) -> None:
    secrets = [await make(store, "acme") for _ in range(3)]
    _, said = await pay(api, secrets[0])
    payment_id, path = said["payment"]["id"], f"/v1/payments/{said['payment']['id']}"
    changes = [
        (f"{path}/retry", None),
        ("/v1/dead-letters/replay", json.dumps({"filter": {"payment_ids": [payment_id]}})),
        (f"{path}/cancel", None),
    ]
    for secret, (where, body) in zip(secrets, changes, strict=True):
        if "cancel" not in where:
            await settle(api, payment_id, Status.FAILED_FINAL, event="spent")
        response, _ = await ask(api, "POST", where, bearer(secret), body)
        assert response.ok
    names = [f"api {api_key.prefix_of(secret)}" for secret in secrets]
    told = [(one.event, one.actor) for one in await api.store.events(UUID(payment_id)) if one.actor != "api"]
    assert told == list(zip(("retried", "retried", "canceled"), names, strict=True))
    _, timeline = await ask(api, "GET", f"{path}/events", bearer(secrets[0]))
    assert {one["actor"] for one in timeline["events"]} == {"api"}
