"""Secrets of the providers file: their sources, their mode, and files that change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from okane import logs
from okane.api_key import Mode
from okane.providers.secrets import MAX_SECRET_BYTES, BadSecret, Secret


class Clock:
    """Monotonic time that passes when a test says so."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the `.env` of the checkout."""
    monkeypatch.chdir(tmp_path)


def load(source: str, folder: Path, *, mode: Mode = Mode.TEST, clock: Clock | None = None) -> Secret:
    return Secret(source, where="stripe.api_key", mode=mode, folder=folder, now_s=clock or Clock())


def replace(path: Path, text: str) -> None:
    """Write the file as a deployment does: beside the old one, then renamed."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.chmod(0o400)
    new.rename(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    replace(tmp_path / "key", "sk_test_firstfirst\n")
    return tmp_path / "key"


def test_a_file_is_relative_to_the_folder_and_loses_its_line_end(path: Path) -> None:
    assert load("file:key", path.parent)() == "sk_test_firstfirst"
    assert load(f"file:{path}", Path("/nowhere"))() == "sk_test_firstfirst"


def test_a_variable_comes_from_the_environment_or_the_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("STRIPE_KEY=sk_test_fromthefile\nSTRIPE_OTHER=sk_test_$HOME\n")
    assert load("env:STRIPE_KEY", tmp_path, mode=Mode.TEST)() == "sk_test_fromthefile"
    assert load("env:STRIPE_OTHER", tmp_path)() == "sk_test_$HOME"
    monkeypatch.setenv("STRIPE_KEY", "sk_test_fromtheenvironment")
    assert load("env:STRIPE_KEY", tmp_path)() == "sk_test_fromtheenvironment"


def test_a_literal_is_taken_in_mode_test_only(tmp_path: Path) -> None:
    assert load("sk_test_literal", tmp_path)() == "sk_test_literal"
    with pytest.raises(BadSecret, match="must be file:PATH or env:NAME"):
        load("whsec_literal", tmp_path, mode=Mode.LIVE)


@pytest.mark.parametrize(
    ("secret", "mode"),
    [
        ("sk_live_canary", Mode.TEST),
        ("rk_live_canary", Mode.TEST),
        ("sk_test_canary", Mode.LIVE),
        ("rk_test_canary", Mode.LIVE),
        ("pk_live_canary", Mode.LIVE),
    ],
)
def test_a_key_of_the_other_mode_or_kind_is_refused(tmp_path: Path, secret: str, mode: Mode) -> None:
    replace(tmp_path / "key", secret)
    with pytest.raises(BadSecret) as refused:
        load("file:key", tmp_path, mode=mode)
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize(
    "content", [b"", b" \n", b"two\nlines", b"\xff\xfecanary", b"x" * (MAX_SECRET_BYTES + 1), b"a\0b"]
)
def test_a_file_that_is_no_secret_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(BadSecret) as refused:
        load("file:key", tmp_path)
    assert "canary" not in str(refused.value)


def test_a_path_that_is_no_file_is_refused_and_holds_nothing_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for source in ("file:pipe", "file:.", "file:absent", "file:", "env:", "env:not a name", "env:OKANE_ABSENT"):
        with pytest.raises(BadSecret):
            load(source, tmp_path)


def test_a_changed_file_is_read_again_within_a_second(path: Path, clock: Clock) -> None:
    secret = load("file:key", path.parent, clock=clock)
    replace(path, "sk_test_secondsecond")
    assert secret() == "sk_test_firstfirst"  # looked at it less than a second ago
    clock.now_s = 1.0
    assert secret() == "sk_test_secondsecond"
    assert logs.redacted("sent sk_test_secondsecond") == "sent ***"


def test_a_refused_secret_is_read_again_at_once(path: Path, clock: Clock) -> None:
    secret = load("file:key", path.parent, clock=clock)
    replace(path, "sk_test_secondsecond")
    secret.reread()
    assert secret() == "sk_test_secondsecond"


@pytest.mark.parametrize("broken", ["", "sk_live_canary", "two\nlines", None])
def test_a_broken_new_file_keeps_the_old_secret_and_is_logged_once(
    path: Path, clock: Clock, broken: str | None
) -> None:
    secret = load("file:key", path.parent, clock=clock)
    path.unlink() if broken is None else replace(path, broken)
    with capture_logs() as lines:
        for second in range(1, 5):
            clock.now_s = float(second)
            assert secret() == "sk_test_firstfirst"
    assert [line["event"] for line in lines] == ["provider_secret_unusable"]
    assert "canary" not in str(lines)
    replace(path, "sk_test_secondsecond")
    clock.now_s = 9.0
    assert secret() == "sk_test_secondsecond"


def test_a_file_that_everyone_can_read_is_logged_once(path: Path, clock: Clock) -> None:
    path.chmod(0o444)
    with capture_logs() as lines:
        secret = load("file:key", path.parent, clock=clock)
        clock.now_s = 2.0
        secret()
        secret.reread()
        secret()
    assert [line["event"] for line in lines] == ["provider_secret_world_readable"]


def test_a_loaded_secret_is_removed_from_texts(tmp_path: Path) -> None:
    load("a-client/secret+1", tmp_path)
    for text in ("got a-client/secret+1 back", "?s=a-client%2Fsecret%2B1"):
        assert "secret" not in logs.redacted(text)


def test_no_secret_is_in_a_repr(path: Path) -> None:
    assert repr(load("file:key", path.parent)) == "Secret(stripe.api_key)"
