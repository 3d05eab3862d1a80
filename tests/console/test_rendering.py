"""Templates, live regions, static files, and the formats of values."""

from __future__ import annotations

import gzip
import random
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from markupsafe import Markup

from okane.api_key import Scope
from okane.console import formats
from okane.console.assets import Assets
from okane.console.rendering import COMPRESS_FROM
from okane.payment import Status
from tests.console.served_console import Console

ROOT = Path(__file__).parents[2]
TEMPLATES = sorted((ROOT / "okane" / "console" / "templates").glob("*.html"))


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_a_template_leaves_the_escaping_on_and_has_nothing_inline(template: Path) -> None:
    text = template.read_text()
    assert not re.search(r"\|\s*safe\b|autoescape|Markup", text)
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=|javascript:", text)
    assert not re.search(r"""(?:href|src|action)=["'](?:https?:)?//""", text)
    assert not re.search(r"""(?:href|src|action)=["']/""", text), "addresses come from `links`"


def test_the_process_of_an_api_or_a_worker_does_not_load_the_console() -> None:
    code = (
        "import sys, okane.app.api, okane.app.worker, okane.app.dispatcher, okane.cli\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('jinja2', 'markupsafe') or 'okane.console' in name])"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


async def test_a_live_region_that_did_not_change_is_not_sent_again(console: Console) -> None:
    browser = await console.logged_in()
    first = await browser.get("/streams?part=1")
    again = await browser.get("/streams?part=1", If_None_Match=first.headers["ETag"])
    assert (first.status, again.status, again.text) == (200, 304, "")
    assert again.headers["ETag"] == first.headers["ETag"]
    assert (await browser.get("/streams?part=1", If_None_Match='"other"')).status == 200


ROW = Markup('<tr id="%s"><td>%s</td></tr>')


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([], ""),
        ([("1", "a&b")], '<tr id="1"><td>a&amp;b</td></tr>'),
        ([('">', "%s"), ("<b>", "'")], '<tr id="&#34;&gt;"><td>%s</td></tr><tr id="&lt;b&gt;"><td>&#39;</td></tr>'),
        ([("1", "")], '<tr id="1"><td></td></tr>'),
        ([("", "")], '<tr id=""><td></td></tr>'),
        ([("\0", "<\0>")], '<tr id="\ufffd"><td>&lt;\ufffd&gt;</td></tr>'),
        ([(Markup("<i>"), Status.SUCCESS)], '<tr id="&lt;i&gt;"><td>success</td></tr>'),
    ],
)
def test_the_texts_of_rows_are_escaped_and_stay_in_their_cells(rows: Sequence[Sequence[str]], text: str) -> None:
    assert formats.filled(ROW, rows) == text


def test_rows_are_escaped_as_one_by_one() -> None:
    dice = random.Random(7)
    for _ in range(200):
        rows = [["".join(dice.choices("<>&\"'%s\0a", k=dice.randrange(4))) for _ in range(2)] for _ in range(3)]
        assert formats.filled(ROW, rows) == "".join(ROW % tuple(row) for row in rows).replace("\0", "\ufffd")


async def test_a_page_is_compressed_for_a_browser_that_takes_it(console: Console) -> None:
    browser = await console.logged_in()
    for path in ("/", "/?part=1", "/payments", "/payments?part=1", "/streams"):
        zipped = await browser.get(path, Accept_Encoding="GZIP, br")
        plain = await browser.get(path, Accept_Encoding="identity")
        assert "Content-Encoding" not in plain.headers
        assert zipped.headers.get("Content-Encoding") == ("gzip" if len(plain.text.encode()) >= COMPRESS_FROM else None)
        assert re.sub(r"[0-9]", "", zipped.text) == re.sub(r"[0-9]", "", plain.text)  # times differ
        assert (zipped.headers["Content-Type"], zipped.status) == ("text/html; charset=utf-8", 200)


async def test_the_navigation_has_the_screens_of_the_sessions_scopes(console: Console) -> None:
    async def screens(*scopes: Scope) -> list[str]:
        page = await (await console.logged_in(*scopes)).get("/no-such-page")
        return re.findall(r'<li><a href="/console(/[a-z]*)">', page.text)

    of_an_account = ["/payments", "/dead", "/reviews", "/disputes", "/webhooks"]
    of_none = ["/", "/streams", "/providers", "/workers", "/keys", "/doctor", "/audit"]
    assert await screens(Scope.READ) == of_an_account
    assert await screens(Scope.SYSTEM) == of_none
    assert set(await screens()) == {*of_an_account, *of_none}
    assert await screens(Scope.WRITE) == []


async def test_static_files_are_found_under_their_hash_alone(console: Console) -> None:
    browser, assets = await console.browser(), Assets.load()
    assert {"console.css", "console.js", "icon.svg", "idiomorph.min.js"} <= set(assets.names)
    for name, hashed in assets.names.items():
        found = await browser.get(f"/static/{hashed}")
        assert found.status == 200
        assert found.text == (ROOT / "okane" / "console" / "static" / name).read_text()
        assert (await browser.get(f"/static/{name}")).status == 404
    assert not [name for name in assets.names if name.startswith("VENDORED")]


def test_a_first_visit_is_small() -> None:
    """Page and static files; the reach is 15 kB."""
    static = sum(len(asset.zipped) for asset in Assets.load().files.values())
    assert static + len(gzip.compress((ROOT / "okane/console/templates/overview_part.html").read_bytes())) < 15_000


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (30042, "USD", "300.42 USD"),
        (123_456_789, "EUR", "1,234,567.89 EUR"),
        (500, "JPY", "500 JPY"),
        (1234, "BHD", "1.234 BHD"),
        (5, "USD", "0.05 USD"),
        (-5, "USD", "-0.05 USD"),
        (2**53, "USD", "90,071,992,547,409.92 USD"),
        (7, "XYZ", "7 minor units of XYZ"),
    ],
)
def test_an_amount_is_written_as_its_currency_has_it(amount: int, currency: str, text: str) -> None:
    assert formats.money(amount, currency) == text


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (0.0214, "21 ms"),
        (3.44, "3.4 s"),
        (45.2, "45 s"),
        (300.0, "5 min"),
        (9000.0, "2.5 h"),
        (timedelta(days=6), "6 d"),
        (-3.0, "-3.0 s"),
        (0.0, "0 ms"),
    ],
)
def test_a_duration_is_short(span: timedelta | float, text: str) -> None:
    assert formats.duration(span) == text


def test_a_time_is_in_utc_to_the_millisecond() -> None:
    moment = datetime(2026, 11, 30, 8, 0, 1, 999_999, tzinfo=UTC)
    assert (formats.utc(moment), formats.iso(moment)) == ("2026-11-30 08:00:01.999 UTC", "2026-11-30T08:00:01.999Z")
