"""The check of handlers: a plain function is refused at once, because it would block the event loop."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from functools import partial

_AWAITABLES = ("Awaitable", "Coroutine", "Future", "Task")


def check_handler(handler: object, name: str) -> None:
    """Raise TypeError unless the handler may be asynchronous: for a plain function, a partial of one, a class, an object
    whose `__call__` is plain. Lambdas and functions that declare an awaitable result pass."""
    function = handler
    while isinstance(function, partial):
        function = function.func
    if isinstance(function, type) or not callable(function):
        raise TypeError(
            f"{name} is an async function or an object with an async __call__, not {qualified_name(handler)}"
        )
    function = inspect.unwrap(function)
    if _is_marked(function):
        return
    if not isinstance(function, types.FunctionType | types.MethodType | types.BuiltinFunctionType):
        function = type(function).__call__
    if isinstance(function, types.MethodType):
        function = function.__func__
    if isinstance(function, types.FunctionType) and not _may_be_awaited(function):
        raise TypeError(
            f"{name} {qualified_name(handler)} is a plain function, which would block the event loop: make it `async def` "
            "(and put what blocks into asyncio.to_thread). One that returns a coroutine says so: `-> Awaitable[Outcome]`"
        )


def _may_be_awaited(function: Callable[..., object]) -> bool:
    if _is_marked(function):
        return True
    returns = inspect.get_annotations(function).get("return")
    text = returns if isinstance(returns, str) else repr(returns)
    return function.__name__ == "<lambda>" or any(word in text for word in _AWAITABLES)


def _is_marked(function: Callable[..., object]) -> bool:
    """Return True for `async def`, and for compiled, decorated or mocked functions that are marked as such."""
    return inspect.iscoroutinefunction(function) or hasattr(function, "_is_coroutine")


def qualified_name(given: object) -> str:
    """Return the name of a function or class, or of the class of an object."""
    return getattr(given, "__qualname__", None) or f"{type(given).__module__}.{type(given).__qualname__}"
