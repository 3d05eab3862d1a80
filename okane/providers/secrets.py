"""The secrets of a providers file: `file:PATH` or `env:NAME`, loaded at the start, and files again after they have changed.

Guarantee: a changed file that cannot be used (absent, empty, too large, of the other mode) changes nothing: the last usable
secret stays, and one line of the log names the file. No error and no line of the log repeats a secret.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import structlog

from okane import logs
from okane.api_key import Mode
from okane.config import ENV_FILE, environment_variable

log = structlog.get_logger("okane.providers")

MAX_SECRET_BYTES = 4096
CHECK_INTERVAL_S = 1.0  # a `stat` takes microseconds, but would run several times for each payment

_VISIBLE = re.compile(r"[!-~]+")
_ENVIRONMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OTHER_MODE = {
    Mode.TEST: re.compile(r"(?:sk|rk)_live_"),
    Mode.LIVE: re.compile(r"(?:sk|rk)_test_"),
}
_WHITE = " \t\r\n"

Identity = tuple[int, int, int, int]  # of a file: device, inode, size, time of the last change in ns


class BadSecret(ValueError):
    """A secret cannot be used. The message repeats no part of it."""


class Secret:
    """A secret, returned by a call. `where` names it in the log, like `stripe.api_key`.

    A call may look at the file, at most once a second; it reads the file only after a change.
    """

    def __init__(
        self, source: str, *, where: str, mode: Mode, folder: Path, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Load the secret from `file:PATH` (relative to `folder`), from `env:NAME`, or as it is (in mode test only).

        Raises BadSecret.
        """
        self._where = where
        self._source = source
        self._mode = mode
        self._now_s = now_s
        self._path = _path(source, folder)
        self._identity: Identity | None = None
        self._world_readable: Identity | None = None  # the file that was last reported as such
        self._failure: str | None = None  # the last one that was logged
        self._value = self._read_file() if self._path is not None else self._checked(_given(source, mode))
        logs.register_secret(self._value)
        self._check_due_s = now_s() + CHECK_INTERVAL_S

    def __call__(self) -> str:
        """Return the secret."""
        if self._path is not None and self._now_s() >= self._check_due_s:
            self._check_file()
        return self._value

    def __repr__(self) -> str:
        return f"Secret({self._where})"

    def is_from(self, source: str, *, where: str) -> bool:
        """Return True if this is the secret of this source, in this place of the providers file."""
        return (source, where) == (self._source, self._where)

    def reread(self) -> None:
        """Look at the file with the next call: the gateway has refused the secret."""
        self._identity = None
        self._check_due_s = 0.0

    def _check_file(self) -> None:
        self._check_due_s = self._now_s() + CHECK_INTERVAL_S
        try:
            assert self._path is not None
            if identity_of(self._path.stat()) == self._identity:
                return
            value = self._read_file()
        except (BadSecret, OSError) as error:
            self._log_failure(str(error) if isinstance(error, BadSecret) else error.strerror or "unreadable")
            return
        self._failure = None
        if value != self._value:
            logs.register_secret(value)
            self._value = value
            log.info("provider_secret_changed", secret=self._where)

    def _log_failure(self, reason: str) -> None:
        if reason != self._failure:
            log.error("provider_secret_unusable", secret=self._where, file=str(self._path), reason=reason)
        self._failure = reason

    def _read_file(self) -> str:
        """Return the secret in the file. Raises BadSecret."""
        assert self._path is not None
        try:
            # Not blocking: a path that is a pipe would hold the process.
            file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            with open(file, "rb") as opened:  # noqa: PTH123 - by its descriptor
                found = os.fstat(file)
                if not stat.S_ISREG(found.st_mode):
                    raise BadSecret(f"{self._path} is not a regular file")
                content = opened.read(MAX_SECRET_BYTES + 1)
        except OSError as error:
            raise BadSecret(f"{self._path} cannot be read: {error.strerror}") from None
        if len(content) > MAX_SECRET_BYTES:
            raise BadSecret(f"{self._path} has more than {MAX_SECRET_BYTES} bytes")
        value = self._checked(content.decode("utf-8", "replace").strip(_WHITE))
        identity = identity_of(found)
        if found.st_mode & stat.S_IROTH and identity != self._world_readable:
            log.warning("provider_secret_world_readable", secret=self._where, file=str(self._path))
            self._world_readable = identity
        self._identity = identity
        return value

    def _checked(self, value: str) -> str:
        if not value:
            raise BadSecret("is empty")
        if len(value) > MAX_SECRET_BYTES or not _VISIBLE.fullmatch(value):
            raise BadSecret(f"must be one line of up to {MAX_SECRET_BYTES} visible ASCII characters")
        if _OTHER_MODE[self._mode].match(value):
            other = Mode.LIVE if self._mode is Mode.TEST else Mode.TEST
            raise BadSecret(f"is a key of mode {other}, and OKANE_MODE is {self._mode}")
        if value.startswith("pk_"):
            raise BadSecret("is a publishable key (pk_): use the secret key")
        return value


def _path(source: str, folder: Path) -> Path | None:
    """Return the path of a `file:` source, or None for the others."""
    scheme, colon, rest = source.partition(":")
    if not colon or scheme != "file":
        return None
    if not rest or "\0" in rest:
        raise BadSecret("needs a path: file:/run/secrets/NAME")
    return folder / rest


def _given(source: str, mode: Mode) -> str:
    """Return the secret of an `env:` source, or the source itself: a literal, which only mode test takes."""
    scheme, colon, rest = source.partition(":")
    if colon and scheme == "env":
        if not _ENVIRONMENT.fullmatch(rest):
            raise BadSecret("needs the name of a variable: env:NAME")
        if (value := environment_variable(rest)) is None:
            raise BadSecret(f"needs the variable {rest} in the environment or in {ENV_FILE}")
        return value.strip(_WHITE)
    if mode is Mode.LIVE:
        raise BadSecret("must be file:PATH or env:NAME: in mode live no secret stands in the file itself")
    return source


class CurrentSecrets:
    """The secrets that a process uses, by their place. `replace` gives others to those that hold a callable."""

    def __init__(self, loaded: Mapping[str, tuple[Secret, ...]]) -> None:
        self.places = frozenset(loaded)
        self._loaded = loaded

    def one(self, place: str) -> Callable[[], str]:
        """Return the callable of the one secret there."""

        def secret() -> str:
            return self._loaded[place][0]()

        return secret

    def all(self, place: str) -> Callable[[], Sequence[str]]:
        """Return the callable of all secrets there."""
        return lambda: [secret() for secret in self._loaded.get(place, ())]

    def reread(self, place: str) -> None:
        """Look at the files there with the next call: the gateway has refused the secret."""
        for secret in self._loaded.get(place, ()):
            secret.reread()

    @property
    def loaded(self) -> Sequence[Secret]:
        """All secrets."""
        return [secret for group in self._loaded.values() for secret in group]

    def replace(self, loaded: Mapping[str, tuple[Secret, ...]]) -> None:
        """Use these from now on."""
        self._loaded = loaded


def identity_of(found: os.stat_result) -> Identity:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
