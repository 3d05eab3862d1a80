"""Receivers that others wrote accept the requests of okane, and refuse all that is not signed for them now."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from okane.webhooks import keys
from okane.webhooks.payload import MAX_BODY_BYTES
from tests.interop.receivers import HERE, PACKAGES, PROGRAMS, Program, Receiver, node
from tests.interop.requests import ENDPOINT, MASTERS, NEWER_MASTERS, PAYMENT, SECRET, Request, signed

pytestmark = pytest.mark.timeout(600)  # the first run on a machine installs the receivers' packages

_DAY = timedelta(days=1)
# A treble clef, a family joined by U+200D, an unassigned plane, a line separator, and quotes: each breaks another shortcut.
_TEXTS = {"𝄞": "👩‍👩‍👧 \U000e0001", "ключ": '\u2028\u2029 "quoted" \\ back\tslash \x7f', "": "\x01\x1f"}


@pytest.fixture(scope="module", params=PROGRAMS, ids=lambda program: program.name)
def receiver(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """Each of the receivers, which has the secret of generation 1."""
    program: Program = request.param
    one = Receiver(program, secret=SECRET, folder=tmp_path_factory.mktemp(program.name))
    one.start()
    yield one
    one.stop()


def _status(receiver: Receiver, request: Request) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", receiver.port, timeout=20)
    try:
        connection.request("POST", "/hook", body=request.body, headers=dict(request.headers))
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def _rotated(*, until: datetime) -> Request:
    return signed(endpoint=replace(ENDPOINT, key_generation=2, older_key_until=until))


ACCEPTED: dict[str, Callable[[], Request]] = {
    "its secret": signed,
    "the older secret during a rotation": lambda: _rotated(until=datetime.now(UTC) + _DAY),
    "the older master during an exchange": lambda: signed(masters=NEWER_MASTERS),
    "v1a beside v1": lambda: signed(endpoint=replace(ENDPOINT, asymmetric=True)),
    "text beyond the basic plane": lambda: signed(metadata=_TEXTS),
    "ids alone": lambda: signed(endpoint=replace(ENDPOINT, payload="thin")),
    "the longest body": lambda: _with_length(MAX_BODY_BYTES),
    "more metadata than a body may have": lambda: signed(metadata={"text": "𝄞" * 27_000}),
    "a clock four minutes behind": lambda: signed(age=timedelta(minutes=4)),
    "a clock four minutes ahead": lambda: signed(age=timedelta(minutes=-4)),
}
REFUSED: dict[str, Callable[[], Request]] = {
    "the secret of another endpoint": lambda: signed(endpoint=replace(ENDPOINT, id=uuid4())),
    "a secret that was rotated out": lambda: _rotated(until=datetime.now(UTC) - _DAY),
    "a timestamp six minutes old": lambda: signed(age=timedelta(minutes=6)),
    "a timestamp six minutes ahead": lambda: signed(age=timedelta(minutes=-6)),
    "another body": lambda: replace(signed(), body=signed(version=3).body),
    "another id": lambda: signed().with_header("webhook-id", f"evt_{PAYMENT.hex}_3"),
    "another timestamp": lambda: _moved(signed(), by_s=1),
    "v1a alone": lambda: _without_v1(signed(endpoint=replace(ENDPOINT, asymmetric=True))),
}


def _with_length(length: int) -> Request:
    spare = length - len(signed(metadata={"text": ""}).body)
    request = signed(metadata={"text": "x" * spare})
    assert len(request.body) == length
    return request


def _moved(request: Request, *, by_s: int) -> Request:
    return request.with_header("webhook-timestamp", str(int(request.headers["webhook-timestamp"]) + by_s))


def _without_v1(request: Request) -> Request:
    signatures = request.headers["webhook-signature"].split()
    assert [one.partition(",")[0] for one in signatures] == ["v1", "v1a"]
    return request.with_header("webhook-signature", signatures[1])


@pytest.mark.parametrize("case", ACCEPTED)
def test_a_receiver_accepts(receiver: Receiver, case: str) -> None:
    assert _status(receiver, ACCEPTED[case]()) == 204, receiver.output


@pytest.mark.parametrize("case", REFUSED)
def test_a_receiver_refuses(receiver: Receiver, case: str) -> None:
    assert _status(receiver, REFUSED[case]()) == 400, receiver.output


def test_a_receiver_applies_each_version_once_and_no_older_one(receiver: Receiver) -> None:
    for version in (5, 5, 4, 7, 6):
        assert _status(receiver, signed(version=version)) == 204
    applied = re.findall(rf"^payment\.succeeded {PAYMENT} ([5-7])$", receiver.output, re.MULTILINE)
    assert applied == ["5", "7"]


def test_a_body_parser_with_the_usual_limit_refuses_what_okane_never_sends(receiver: Receiver) -> None:
    """Express takes 100 kB by default, and Flask any length."""
    long = json.dumps({"data": {}, "text": "x" * 102_400}).encode()
    assert _status(receiver, signed(body=long)) == (204 if "flask" in receiver.name else 413)


def test_nodes_own_crypto_verifies_v1a() -> None:
    endpoint = replace(ENDPOINT, asymmetric=True)
    request = signed(endpoint=endpoint, metadata=_TEXTS)
    public_key = keys.public_key(MASTERS.current, endpoint.id, endpoint.key_generation)
    other_key = keys.public_key(MASTERS.current, endpoint.id, endpoint.key_generation + 1)
    assert _is_verified(request, public_key)
    assert not _is_verified(request, other_key)
    assert not _is_verified(_moved(request, by_s=1), public_key)


def _is_verified(request: Request, public_key: str) -> bool:
    asked = {
        "publicKey": public_key,
        "id": request.headers["webhook-id"],
        "timestamp": request.headers["webhook-timestamp"],
        "signatures": request.headers["webhook-signature"],
        "body": request.body.decode(),
    }
    command = [node(PACKAGES.prepare()), HERE / "verify_v1a.mjs"]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=True, timeout=60)
    verdict: bool = json.loads(done.stdout)
    return verdict
