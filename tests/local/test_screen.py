from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from okane.local.screen import LogTail, summary
from tests.local.running_endpoints import ENDPOINTS


def write(log: Path, *lines: str) -> None:
    with log.open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def entry(level: str, event: str, **details: object) -> str:
    return json.dumps({"event": event, "level": level, "timestamp": "now", **details})


def test_warnings_and_worse_are_shown_and_the_rest_is_not(tmp_path: Path) -> None:
    log = tmp_path / "worker-1.log"
    write(log, entry("error", "old news"))
    tail = LogTail(name="worker-1", path=log)
    tail.skip()
    write(log, entry("info", "started"), entry("warning", "redis is away", attempt=3), "Fatal Python error: oops")
    assert list(tail.read()) == [("warning", "redis is away attempt=3"), ("error", "Fatal Python error: oops")]
    assert list(tail.read()) == []
    tail.close()


def test_a_line_is_shown_once_it_is_whole(tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    tail = LogTail(name="api", path=log)
    line = entry("warning", "late")
    log.write_text(line[:10])
    assert list(tail.read()) == []
    write(log, line[10:])
    assert list(tail.read()) == [("warning", "late")]
    tail.close()


def test_a_flood_is_counted_instead_of_shown(tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    tail = LogTail(name="api", path=log)
    write(log, *(entry("warning", f"{number}") for number in range(100)))
    assert [text for _, text in tail.read()] == ["0", "1", "2", "3", "4", f"... and 95 more lines in {log}"]
    tail.close()


def test_a_log_that_was_put_aside_is_followed_in_its_new_file(tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    tail = LogTail(name="api", path=log)
    write(log, entry("warning", "before"))
    assert [text for _, text in tail.read()] == ["before"]
    log.rename(tmp_path / "api.log.1")
    write(log, entry("warning", "after"))
    assert [text for _, text in tail.read()] == ["after"]
    tail.close()


def shown(folder: Path, api_key: str | None) -> str:
    where = replace(ENDPOINTS, api_key=api_key)
    rows, command = summary(
        where, data=folder, logs=folder / "logs", pids={"worker-1": 42}, kept_key=folder / "api-key"
    )
    return repr(rows) + command


def test_the_summary_shows_no_password(tmp_path: Path) -> None:
    text = shown(tmp_path, None)
    assert "secret" not in text
    assert "kill -9 42" in text
    assert "postgresql://okane@127.0.0.1:1/okane" in text


def test_the_summary_shows_a_key_to_pay_with_unless_the_money_is_somebodys(tmp_path: Path) -> None:
    assert "Authorization" not in shown(tmp_path, None)
    assert "Authorization: Bearer sk_test_x" in shown(tmp_path, "sk_test_x")
    live = shown(tmp_path, "sk_live_x")
    assert "sk_live_x" not in live
    assert f"Authorization: Bearer $(cat {tmp_path / 'api-key'})" in live


def test_the_summary_has_the_address_of_the_console(tmp_path: Path) -> None:
    url = "http://127.0.0.1:6/console/"
    where = replace(ENDPOINTS, console_url=url)
    for key, text in ((None, url), ("sk_test_x", f"{url}  (log in with the API key)")):
        rows, _ = summary(
            replace(where, api_key=key), data=tmp_path, logs=tmp_path, pids={}, kept_key=tmp_path / "api-key"
        )
        assert [label for label, _ in rows][:3] == ["API", "API key", "Console"]
        assert dict(rows)["Console"] == text
