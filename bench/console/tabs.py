"""Open tabs: each polls the live regions of its page every two seconds, as the console's script does.

A process of its own, so that its CPU is not the console's: `python -m bench.console.tabs`, with one JSON object on stdin. It
prints `open` once every tab has its page, and its counts when stdin ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
import json
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from okane.local.ports import LOOPBACK

INTERVAL_S = 2.0
_LIVE = re.compile(r'data-live="([^"]+)"')
_ROOT = Path(__file__).parents[2]


@dataclass(slots=True)
class Counts:
    """The polls, how many of them found nothing new, and those that took another status than 200 and 304."""

    polls: int = 0
    unchanged: int = 0
    failed: int = 0


@dataclass(slots=True)
class Tab:
    """One page in one window, with a connection of its own."""

    port: int
    cookie: str
    path: str
    counts: Counts
    etags: dict[str, str] = field(default_factory=dict)

    async def run(self, opened: asyncio.Barrier, delay_s: float) -> None:
        """Open the page, wait for the others, then poll for as long as the task runs."""
        reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
        _, page, _ = await self._get(reader, writer, self.path)
        live = [html.unescape(one) for one in _LIVE.findall(page)]
        if not live:
            raise RuntimeError(f"{self.path} has no live region")
        await opened.wait()
        loop = asyncio.get_running_loop()
        due_s = loop.time() + delay_s
        while True:
            await asyncio.sleep(due_s - loop.time())
            for address in live:
                status, _, etag = await self._get(reader, writer, address, self.etags.get(address, ""))
                self.counts.polls += 1
                self.counts.unchanged += status == HTTPStatus.NOT_MODIFIED
                self.counts.failed += status not in (HTTPStatus.OK, HTTPStatus.NOT_MODIFIED)
                self.etags[address] = etag
            due_s = max(due_s + INTERVAL_S, loop.time())

    async def _get(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str, etag: str = ""
    ) -> tuple[int, str, str]:
        condition = f"If-None-Match: {etag}\r\n" if etag else ""
        writer.write(
            f"GET {address} HTTP/1.1\r\nHost: {LOOPBACK}:{self.port}\r\nAccept-Encoding: gzip\r\n"
            f"Cookie: {self.cookie}\r\n{condition}\r\n".encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        status = int(head[0].split()[1])
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
        body = await self._body(reader, headers) if status != HTTPStatus.NOT_MODIFIED else b""
        if headers.get("content-encoding") == "gzip":
            body = zlib.decompress(body, wbits=31)
        return status, body.decode(), headers.get("etag", "")

    @staticmethod
    async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return await reader.readexactly(int(headers.get("content-length", "0")))
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
        return body


class OpenTabs:
    """The running process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.counts = Counts()

    def close(self) -> None:
        """End the tabs; the counts are there then. Raises RuntimeError if a tab had an error."""
        if self._process.poll() is not None and self.counts.polls:
            return
        out, errors = self._process.communicate()
        if self._process.returncode or not out:
            raise RuntimeError(f"the tabs failed: {errors}")
        self.counts = Counts(**json.loads(out))


@contextlib.contextmanager
def tabs_open(port: int, cookie: str, paths: Sequence[str]) -> Iterator[OpenTabs]:
    """A tab for each path inside the block, which begins when all are open."""
    command = [sys.executable, "-P", "-m", "bench.console.tabs"]
    process = subprocess.Popen(  # noqa: S603 - a program of ours
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=_ROOT
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps({"port": port, "cookie": cookie, "paths": list(paths)}) + "\n")
    process.stdin.flush()
    tabs = OpenTabs(process)
    try:
        if process.stdout.readline() != "open\n":
            tabs.close()
        yield tabs
    except BaseException:
        process.kill()
        process.communicate()
        raise
    tabs.close()


async def _run(port: int, cookie: str, paths: Sequence[str]) -> Counts:
    counts, opened = Counts(), asyncio.Barrier(len(paths) + 1)
    async with asyncio.TaskGroup() as group:
        running = [
            group.create_task(Tab(port, cookie, path, counts).run(opened, INTERVAL_S * number / len(paths)))
            for number, path in enumerate(paths)
        ]
        await opened.wait()
        print("open", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        for task in running:
            task.cancel()
    return counts


def main() -> None:
    given = json.loads(sys.stdin.readline())
    counts = asyncio.run(_run(given["port"], given["cookie"], given["paths"]))
    print(json.dumps({"polls": counts.polls, "unchanged": counts.unchanged, "failed": counts.failed}))


if __name__ == "__main__":
    main()
