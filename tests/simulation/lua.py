"""Runs the Lua scripts like Redis: the same Lua 5.1, Redis's conversions of values, `redis.call`, and cmsgpack.

One interpreter per process serves every simulated server: scripts keep no state between runs.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

from lupa import lua51

Function = Any  # a compiled chunk
_Call = Callable[[Sequence[bytes]], Any]

_runtime = lua51.LuaRuntime(encoding=None)
_globals = _runtime.globals()
_compiled: dict[bytes, Function] = {}
# A table as Redis sees it in a reply: up to its first nil.
_parts = _runtime.eval(b"function(t) local n = 0 while t[n + 1] ~= nil do n = n + 1 end return unpack(t, 1, n) end")
_lua_type = lua51.lua_type


class ReplyError(Exception):
    """An error reply, its code first."""


class ScriptError(Exception):
    """An error that is a bug in the script or in this file."""


class _Host:
    """The executor of the commands of the running script."""

    call: _Call

    def __init__(self) -> None:
        self.call = _no_script


def _no_script(_arguments: Sequence[bytes]) -> Any:
    raise ScriptError("no script is running")


_host: Final = _Host()


def compiled(text: bytes) -> Function:
    """Return the script as a function; its KEYS and ARGV are globals."""
    function = _compiled.get(text)
    if function is None:
        function = _compiled[text] = _runtime.compile(text)
    return function


def run(function: Function, keys: Sequence[bytes], arguments: Sequence[bytes], call: _Call) -> Any:
    """Run the script and return its reply. Raises the errors of `call`, unless the script catches them."""
    _globals[b"KEYS"] = _runtime.table_from(keys)
    _globals[b"ARGV"] = _runtime.table_from(arguments)
    _host.call = call
    try:
        return _from_lua(function())
    finally:
        _host.call = _no_script


def _redis_call(*arguments: Any) -> Any:
    return _to_lua(_host.call([_argument(each) for each in arguments]))


def _redis_pcall(*arguments: Any) -> Any:
    try:
        return _redis_call(*arguments)
    except ScriptError:
        raise
    except Exception as error:
        return _runtime.table_from({b"err": str(error).encode()})


def _argument(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return b"%d" % value
    if isinstance(value, float):
        return b"%.17g" % value
    raise ScriptError(f"commands take strings and numbers, not {value!r}")


def _to_lua(reply: Any) -> Any:
    if reply is None:
        return False
    if isinstance(reply, list):
        return _runtime.table_from(_without_nil(reply), recursive=True)
    return reply


def _without_nil(reply: list[Any]) -> list[Any]:
    """Return the reply with False for nil, which would end a Lua table."""
    return [False if each is None else _without_nil(each) if type(each) is list else each for each in reply]


def _from_lua(value: Any) -> Any:
    if value is None or value is False:
        return None
    if value is True:
        return 1
    if isinstance(value, float):
        return int(value)
    if isinstance(value, bytes | int):
        return value
    error = value[b"err"]
    if error is not None:
        raise ReplyError(error.decode())
    parts = _parts(value)
    if parts is None:
        return []
    if not isinstance(parts, tuple):
        parts = (parts,)
    return [_from_lua(each) for each in parts]


# MessagePack as lua-cmsgpack writes it: shortest forms, strings as raw.


def _pack(value: Any) -> bytes:
    return b"".join(_packed(value))


def _packed(value: Any) -> list[bytes]:
    if isinstance(value, bytes):
        return [_header(len(value), 0xA0, 32, (0xD9, 0xDA, 0xDB)), value]
    if isinstance(value, bool):
        return [b"\xc3" if value else b"\xc2"]
    if isinstance(value, int):
        return [struct.pack("B", value)] if 0 <= value < 128 else [b"\xd3" + struct.pack(">q", value)]
    parts = _parts(value)
    if not isinstance(parts, tuple):
        parts = () if parts is None else (parts,)
    packed = [_header(len(parts), 0x90, 16, (None, 0xDC, 0xDD))]
    for each in parts:
        packed += _packed(each)
    return packed


def _header(size: int, fixed: int, below: int, codes: tuple[int | None, int, int]) -> bytes:
    if size < below:
        return bytes([fixed | size])
    if size < 1 << 8 and codes[0] is not None:
        return struct.pack(">BB", codes[0], size)
    return struct.pack(">BH", codes[1], size) if size < 1 << 16 else struct.pack(">BI", codes[2], size)


def _unpack(data: bytes) -> Any:
    value, end = _read(data, 0)
    if end != len(data):
        raise ValueError("more than one value")
    return _runtime.table_from(value, recursive=True) if isinstance(value, list) else value


def _read(data: bytes, at: int) -> tuple[Any, int]:
    if at >= len(data):
        raise ValueError("cut short")
    code = data[at]
    at += 1
    if code < 0x80:
        return code, at
    if code & 0xF0 == 0x90:
        return _read_list(data, at, code & 0x0F)
    if code & 0xE0 == 0xA0:
        return _read_text(data, at, code & 0x1F)
    for codes, read in ((_TEXT, _read_text), (_LIST, _read_list)):
        if code in codes:
            form = codes[code]
            (size,) = struct.unpack_from(form, data, at)
            return read(data, at + struct.calcsize(form), size)
    if code in _PLAIN:
        return _PLAIN[code], at
    if code in _NUMBERS:
        form = _NUMBERS[code]
        return struct.unpack_from(form, data, at)[0], at + struct.calcsize(form)
    raise ValueError(f"code {code:#x}")


_TEXT = {0xD9: ">B", 0xDA: ">H", 0xDB: ">I", 0xC4: ">B", 0xC5: ">H", 0xC6: ">I"}
_LIST = {0xDC: ">H", 0xDD: ">I"}
_PLAIN = {0xC0: False, 0xC2: False, 0xC3: True}
_NUMBERS = {0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q", 0xCB: ">d"}


def _read_text(data: bytes, at: int, size: int) -> tuple[bytes, int]:
    if at + size > len(data):
        raise ValueError("cut short")
    return data[at : at + size], at + size


def _read_list(data: bytes, at: int, size: int) -> tuple[list[Any], int]:
    values = []
    for _ in range(size):
        value, at = _read(data, at)
        values.append(value)
    return values, at


_globals[b"redis"] = _runtime.table_from({b"call": _redis_call, b"pcall": _redis_pcall})
_globals[b"cmsgpack"] = _runtime.table_from({b"pack": _pack, b"unpack": _unpack})
