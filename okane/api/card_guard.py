"""Refuses texts that look like the number of a card: okane stores the tokens of gateways, and never a card number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus

from okane.api.problems import FieldError, Problem, shortened
from okane.card_numbers import MIN_DIGITS, holds_card_number, is_issued_card_number, may_hold_card_number
from okane.operation import NewOperation
from okane.payment import NewPayment
from okane.payment_method import NewSavedMethod
from okane.time_slice import TimeSlice

SHORT = 128  # characters that are searched in one go: some 20 us at most
_DETAIL = "looks like the number of a card: send the token that a gateway gave for it"


def may_be_refused(new: NewPayment) -> bool:
    """Return False for most payments: one search over all texts finds no card number. Of short texts the search is exact."""
    text = new.idempotency_key
    if new.metadata:
        text = "\n".join([text, *new.metadata, *new.metadata.values()])
    if new.payment_method or new.return_url or new.requested_provider:
        text = "\n".join([text, new.payment_method or "", new.return_url or "", new.requested_provider or ""])
    if len(text) < MIN_DIGITS or not may_hold_card_number(text.encode("utf-8", "surrogatepass")):
        return False
    return len(text) > SHORT or holds_card_number(text)  # no number goes on beyond the line breaks between the texts


async def payment_refusal(new: NewPayment, time_slice: TimeSlice) -> Problem | None:
    """Return the problem with the texts of a new payment, or None. Other tasks run in between: texts that are
    full of digits take milliseconds."""
    errors: list[FieldError] = []
    for text in _texts(new):
        errors += _errors([text])
        await time_slice.end_if_spent()
    return _problem(errors) if errors else None


async def check_operation(new: NewOperation) -> None:
    """Raise a 422 Problem for the texts of a capture or refund. Other tasks run in between, as for a payment."""
    texts = [("/idempotency_key", new.idempotency_key), ("/reason", new.reason or ""), *_metadata_texts(new.metadata)]
    errors: list[FieldError] = []
    time_slice = TimeSlice()
    for text in texts:
        errors += _errors([text])
        await time_slice.end_if_spent()
    if errors:
        raise _problem(errors)


def check_resolution(reason: str, provider_ref: str | None) -> None:
    """Raise a 422 Problem for the texts of a decision. The gateway chooses `provider_ref`, and some take digits only: it is
    refused if an issuer has such cards."""
    errors = list(_errors([("/reason", reason)]))
    if provider_ref is not None and is_issued_card_number(provider_ref):
        errors.append(FieldError("/provider_ref", "card_number", _DETAIL))
    if errors:
        raise _problem(errors)


def check_payment_method(new: NewSavedMethod) -> None:
    """Raise a 422 Problem for the texts of a payment method to save."""
    texts = [("/idempotency_key", new.idempotency_key), ("/brand", new.brand), ("/customer", new.customer)]
    texts += [("/kind", new.kind), *((f"/tokens/{name}", token) for name, token in new.tokens.items())]
    texts += [("/tokens", name) for name in new.tokens]
    errors = list(_errors((pointer, text) for pointer, text in texts if text is not None))
    if errors:
        raise _problem(errors)


def check_endpoint(url: str | None, description: str | None) -> None:
    """Raise a 422 Problem for the texts of a webhook endpoint."""
    errors = list(_errors([("/url", url or ""), ("/description", description or "")]))
    if errors:
        raise _problem(errors)


def _texts(new: NewPayment) -> Iterator[tuple[str, str]]:
    """Yield the texts of a payment, each with its pointer. None repeats a card number."""
    yield "/idempotency_key", new.idempotency_key
    yield from _gateway_texts(new)
    yield from _metadata_texts(new.metadata)


def _metadata_texts(metadata: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, text in metadata.items():
        yield "/metadata", name
        yield "/metadata" if holds_card_number(name) else f"/metadata/{_escaped(name)}", text


def _gateway_texts(new: NewPayment) -> Iterator[tuple[str, str]]:
    for name, text in (
        ("payment_method", new.payment_method),
        ("return_url", new.return_url),
        ("provider", new.requested_provider),
    ):
        if text is not None:
            yield f"/{name}", text


def _errors(texts: Iterable[tuple[str, str]]) -> Iterator[FieldError]:
    for pointer, text in texts:
        if holds_card_number(text):
            yield FieldError(pointer, "card_number", _DETAIL)


def _problem(errors: list[FieldError]) -> Problem:
    first = errors[0]
    detail = f"{first.pointer}: {first.detail}"
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "card_number", detail, errors=errors)


def _escaped(name: str) -> str:
    return shortened(name).replace("~", "~0").replace("/", "~1")
