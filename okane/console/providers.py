"""The providers: switch and circuit breaker of each, and the actions enable, drain and disable."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from okane.console.actions import Done, Form, perform
from okane.console.page_errors import PageError
from okane.console.query_fields import choice_of, refused, text_of
from okane.console.rendering import PAGES, render
from okane.console.sampler import Sampler
from okane.console.session import session_of
from okane.errors import SetupError
from okane.intake.provider_switch import ProviderSwitch, Switched, SwitchedMeanwhile, UnknownProvider, reason_refusal
from okane.payment import MAX_REASON
from okane.providers.config import NAME
from okane.store.providers import Mode, ProviderState

_MODES: dict[str, Mode] = {"enable": "on", "drain": "drain", "disable": "off"}


class ProviderScreens:
    """The page of the providers, and their switch."""

    def __init__(self, switch: ProviderSwitch, sampler: Sampler) -> None:
        self._switch = switch
        self._sampler = sampler

    async def show(self, request: web.Request) -> web.Response:
        """`GET /providers`"""
        try:
            found = await self._switch.list()
        except SetupError as error:
            raise PageError(HTTPStatus.SERVICE_UNAVAILABLE, f"The providers file cannot be used: {error}") from error
        picture = (await self._sampler.current()).picture
        return render(
            request,
            "providers.html",
            providers=found,
            version_of=version_of,
            workers_open={one.name: one.workers_open for one in picture.providers},
        )

    async def switch(self, request: web.Request) -> web.StreamResponse:
        """`POST /providers/{name}/switch`: the action is a field of the form, and the reason."""
        name = request.match_info["name"]
        if not NAME.fullmatch(name):
            raise _not_found()

        async def run(form: Form) -> Done:
            action = choice_of(form, "action", _MODES)
            reason = text_of(form, "reason", longest=MAX_REASON)
            if action is None:
                raise refused("action", f"is one of {', '.join(_MODES)}")
            if (refusal := reason_refusal(reason)) is not None:
                raise refused("reason", refusal)
            seen = await self._find(name)
            if text_of(form, "version") != version_of(seen):
                raise _switched_meanwhile(seen)
            done = await self._switch.set_mode(
                name, _MODES[action], reason=reason, actor=session_of(request).actor, seen=seen
            )
            match done:
                case UnknownProvider():
                    raise _not_found()
                case SwitchedMeanwhile():
                    raise _switched_meanwhile(await self._find(name))
                case Switched(state=state, woken=woken):
                    message = f"{name} is {state.mode} now." + (
                        f" {woken:,} payments that waited are due." if woken else ""
                    )
                    return Done(
                        message, request.app[PAGES].links.providers(), answer=f"{action}: {reason}", count=woken
                    )

        return await perform(request, run, target=name)

    async def _find(self, name: str) -> ProviderState:
        found = next((one for one in await self._switch.list() if one.name == name), None)
        if found is None:
            raise _not_found()
        return found


def _not_found() -> PageError:
    return PageError(HTTPStatus.NOT_FOUND, "There is no such provider.")


def _switched_meanwhile(found: ProviderState) -> PageError:
    """Return the page for a provider that was switched after its page was shown: that had a reason, too."""
    by = "" if found.changed_by is None else f", by {found.changed_by}: {found.reason}"
    return PageError(
        HTTPStatus.CONFLICT, f"{found.name} was switched meanwhile: it is {found.mode} now{by}. Nothing was changed."
    )


def version_of(one: ProviderState) -> str:
    """Return a text that changes with every switch of a provider."""
    return "never" if one.changed_at is None else one.changed_at.isoformat()
