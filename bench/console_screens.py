"""Takes the pictures of the console: `python -m bench.console_screens`.

A real `okane up` with load, whose provider refuses all calls for a while; its pages in Debian's Chromium. Nothing is drawn
or measured.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from bench.progress import say
from bench.screens import control
from okane.local.data_folder import DataFolder, Endpoints
from okane.local.okane_process import OKANE, own_path

if TYPE_CHECKING:
    from playwright.sync_api import Page

PICTURES = Path(__file__).parents[1] / "docs" / "images"
RATE = 25  # all the time; each phase adds its own
WINDOW = {"width": 1280, "height": 760}
COLOURS = 256  # of a picture: the pages have fewer, apart from the smoothed edges of letters
_PORTS = ("port", "provider-port", "postgres-port", "redis-port", "metrics-port", "console-port")
_ADDRESS = re.compile(r"http://127\.0\.0\.1:[0-9]+/console")
_WELL: dict[str, float | str] = {"success": 96, "decline": 3, "unavailable": 1, "latency_ms": "20-120"}
# Of the time that the overview is open: the share, the rate that is added, and the provider. So its charts have a shape.
_PHASES: tuple[tuple[float, int, dict[str, float | str]], ...] = (
    (0.2, 10, _WELL),
    (0.25, 35, _WELL | {"latency_ms": "150-700"}),
    (0.15, 5, _WELL | {"unavailable": 40}),
    (0.25, 30, _WELL),
    (0.15, 15, _WELL | {"latency_ms": "60-300", "unavailable": 6}),
)


@dataclass(frozen=True, slots=True)
class Up:
    """A running `okane up`: its addresses, and that of its console."""

    endpoints: Endpoints
    console_url: str

    def request(self, path: str, body: object = None) -> Any:
        """Send a request to the API; return the answer's document."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.endpoints.api_key}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.endpoints.api_url + path, data, headers)  # noqa: S310 - on loopback
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - on loopback
            return json.load(answer)


@contextlib.contextmanager
def running_up(folder: Path) -> Iterator[Up]:
    """Run `okane up` in a folder of its own, on free ports. It leads its own group, so that Ctrl-C reaches it once."""
    output = folder / "up.log"
    arguments = ["up", "--data", str(folder / "data"), *(f"--{name}=0" for name in _PORTS)]
    env = {**os.environ, **own_path(), "PYTHONUNBUFFERED": "1"}
    with output.open("wb") as log:
        process = subprocess.Popen([*OKANE, *arguments], stdout=log, stderr=log, env=env, start_new_session=True)  # noqa: S603 - a program of ours
    try:
        wait_for(lambda: "okane is up" in output.read_text(), 90)
        endpoints = DataFolder(folder / "data").endpoints()
        address = _ADDRESS.search(output.read_text())
        if endpoints is None or address is None:
            sys.exit(f"okane up has no console: {output.read_text()}")
        yield Up(endpoints, address[0])
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(90)


@contextlib.contextmanager
def load(folder: Path, rate: int) -> Iterator[None]:
    """Send payments inside the block, so many a second."""
    command = [*OKANE, "load", "--data", str(folder / "data"), "--rate", str(rate), "--payments", "100000"]
    env = {**os.environ, **own_path()}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=env, start_new_session=True)  # noqa: S603 - a program of ours
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def wait_for(condition: Callable[[], bool], timeout_s: float) -> None:
    """Wait until the condition holds, or end with an error."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            sys.exit("gave up waiting")
        time.sleep(0.2)


def retried_payment(up: Up) -> str:
    """Return the id of a payment that was refused twice and then charged."""
    control(up.endpoints.provider_base_url, unavailable=1_000_000)
    body = {
        "amount": 30042,
        "currency": "USD",
        "idempotency_key": f"order-A-1001-{time.time():.0f}",
        "metadata": {"order": "A-1001", "customer": "C-77"},
    }
    payment_id: str = up.request("/v1/payments", body)["payment"]["id"]

    def events(name: str) -> int:
        data = up.request(f"/v1/payments/{payment_id}/events")
        return json.dumps(data).count(f'"{name}"')

    wait_for(lambda: events("unavailable") >= 2, 60)
    control(up.endpoints.provider_base_url, **_WELL)
    wait_for(lambda: up.request(f"/v1/payments/{payment_id}")["payment"]["status"] == "success", 120)
    return payment_id


def take(page: Page, out: Path) -> None:
    """Write the visible part of the page as a picture of few colours."""
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(COLOURS).save(out, optimize=True)
    say(f"{out}: {out.stat().st_size / 1000:.0f} kB")


def run(out: Path, *, seconds: float) -> None:
    """Start everything, log in, and take the two pictures."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - a development requirement

    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("chromium is not installed (Debian: apt install chromium)")
    with tempfile.TemporaryDirectory(prefix="okane-console-") as name, running_up(Path(name)) as up:
        control(up.endpoints.provider_base_url, **_WELL)
        with load(Path(name), RATE), sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport=WINDOW)
            page.goto(f"{up.console_url}/login")
            page.get_by_label("API key").fill(up.endpoints.api_key or "")
            page.get_by_role("button", name="Log in").click()
            say(f"the overview is open for {seconds:.0f} s, so that its charts have a past")
            for share, rate, provider in _PHASES:
                control(up.endpoints.provider_base_url, **provider)
                with load(Path(name), rate):
                    page.wait_for_timeout(seconds * share * 1000)
            take(page, out / "okane-console.png")
            page.goto(f"{up.console_url}/payments/{retried_payment(up)}")
            take(page, out / "okane-console-payment.png")
            browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=180.0, help="how long the overview is open (default: 180)")
    parser.add_argument("--out", type=Path, default=PICTURES, help="folder (default: docs/images)")
    options = parser.parse_args()
    run(options.out, seconds=options.seconds)


if __name__ == "__main__":
    main()
