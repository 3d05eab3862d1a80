"""The check of new payments that name a saved payment method: it exists, and a provider that may charge them has a token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus

from okane.api import error_problems
from okane.api.problems import FieldError, Problem
from okane.payment import NewPayment
from okane.payment_method import saved_method_id
from okane.store.payment_methods import PaymentMethodStore

_NONE: Mapping[int, frozenset[str]] = {}


async def find_providers(
    methods: PaymentMethodStore, news: Sequence[NewPayment], refusals: list[Problem | None]
) -> Mapping[int, frozenset[str]]:
    """Return the providers of the saved methods that these payments name, by the number of the payment. Enter a problem for
    each method that cannot be used."""
    named = [
        (number, new.account_id, method_id)
        for number, new in enumerate(news)
        if new.payment_method is not None and refusals[number] is None
        if (method_id := saved_method_id(new.payment_method)) is not None
    ]
    if not named:
        return _NONE
    found: dict[int, frozenset[str]] = {}
    answers = await methods.providers_of([(account_id, method_id) for _, account_id, method_id in named])
    for (number, _, _), providers in zip(named, answers, strict=True):
        if isinstance(providers, BaseException):
            refusals[number] = error_problems.problem_for(providers)
        elif not providers:
            refusals[number] = _unknown()
        else:
            found[number] = providers
    return found


def _unknown() -> Problem:
    detail = "there is no such payment method, or it was deleted"
    errors = [FieldError("/payment_method", "payment_method_unknown", detail)]
    return Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY, "payment_method_unknown", f"/payment_method: {detail}", errors=errors
    )


def unusable(providers: frozenset[str]) -> Problem:
    """Return the problem of a saved method that has tokens at these providers, none of which may charge the payment."""
    detail = f"the payment method has a token at {', '.join(sorted(providers))} only"
    errors = [FieldError("/payment_method", "payment_method_unusable", detail)]
    return Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY, "payment_method_unusable", f"/payment_method: {detail}", errors=errors
    )
