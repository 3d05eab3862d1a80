"""The arguments of constructors, clients and handlers: refused at once where they could not work.

A wrong one would show much later, and worse: messages published whose ids cannot be read, handlers run for nothing.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from functools import partial
from typing import Any

import redis
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.client import Pipeline

_ADVICE = "make one with streams.connect"
_AWAITABLES = ("Awaitable", "Coroutine", "Future", "Task")


def checked_client(client: Redis) -> Redis:
    """Return the client if everything here can work with it: redis-py's, asynchronous, for one server, with replies as bytes
    in the shapes of RESP2. Raises TypeError or ValueError."""
    given: Any = client
    if isinstance(given, redis.Redis | redis.RedisCluster):
        raise TypeError(f"a synchronous client ({type(given).__name__}) would block the event loop: {_ADVICE}")
    if isinstance(given, RedisCluster):
        raise TypeError(f"a cluster client is not supported; of a cluster, use one node that has the stream: {_ADVICE}")
    if isinstance(given, Pipeline):
        raise TypeError("a pipeline is not a client: give the client that it was made by")
    options = getattr(getattr(given, "connection_pool", None), "connection_kwargs", None)
    if options is None or not hasattr(given, "execute_command"):
        raise TypeError(f"a client of redis.asyncio is needed, not {_shown(given)}: {_ADVICE}")
    if options.get("decode_responses"):
        raise ValueError(f"a client with decode_responses=True cannot be used, bodies are bytes: {_ADVICE}")
    if options.get("protocol") in (3, "3"):
        raise ValueError(f"a client with protocol=3 cannot be used, its replies have another shape: {_ADVICE}")
    return client


def check_handler(handler: object, name: str) -> None:
    """Raise TypeError for what surely is no asynchronous callable: a plain function, a partial of one, a class, an object
    whose `__call__` is plain. A lambda, and a function that declares an awaitable as its result, are believed."""
    function = handler
    while isinstance(function, partial):
        function = function.func
    if isinstance(function, type) or not callable(function):
        raise TypeError(f"{name} is an async function or an object with an async __call__, not {_shown(handler)}")
    function = inspect.unwrap(function)
    if _is_marked(function):
        return
    if not isinstance(function, types.FunctionType | types.MethodType | types.BuiltinFunctionType):
        function = type(function).__call__
    if isinstance(function, types.MethodType):
        function = function.__func__
    if isinstance(function, types.FunctionType) and not _may_be_awaited(function):
        raise TypeError(
            f"{name} {_shown(handler)} is a plain function, which would block the event loop: make it `async def` "
            "(and put what blocks into asyncio.to_thread). One that returns a coroutine says so: `-> Awaitable[Outcome]`"
        )


def _may_be_awaited(function: Callable[..., object]) -> bool:
    if _is_marked(function):
        return True
    returns = inspect.get_annotations(function).get("return")
    text = returns if isinstance(returns, str) else repr(returns)
    return function.__name__ == "<lambda>" or any(word in text for word in _AWAITABLES)


def _is_marked(function: Callable[..., object]) -> bool:
    """Tell whether it is `async def`, or says so itself, as what is compiled, decorated or mocked may."""
    return inspect.iscoroutinefunction(function) or hasattr(function, "_is_coroutine")


def _shown(given: object) -> str:
    return getattr(given, "__qualname__", None) or f"{type(given).__module__}.{type(given).__qualname__}"
