"""Part a: the bytes of a first visit, page and files, as they are sent."""

from __future__ import annotations

from bench.console.options import PARTS, ConsoleBenchOptions
from bench.console.served import ServedConsole
from bench.console.visitor import Answer, Visitor
from bench.progress import say
from bench.report import Collector, Part

LARGEST = "first load, the largest of three pages"
_KB = 1000


def measure(console: ServedConsole, _options: ConsoleBenchOptions) -> Part:
    """Each page with a target, and the log-in."""
    found = Collector("a", PARTS["a"])
    with console.visiting() as visitor:
        say("a: first loads")
        largest = 0
        for name, [path] in console.paths().items():
            page, files = _first_load(visitor, path)
            found.add(f"{name}: page", "kB", _size(page) / _KB)
            found.add(f"{name}: page and files", "kB", (_size(page) + files) / _KB)
            largest = max(largest, _size(page) + files)
        found.add(LARGEST, "kB", largest / _KB)
        stranger = Visitor(console.port)
        page, files = _first_load(stranger, "/login")
        stranger.close()
        found.add("log-in: page and files", "kB", (_size(page) + files) / _KB)
    found.note(
        "the heads of the answers are counted; every body is compressed by gzip, but for those of less than 1 kB"
    )
    return found.part()


def _first_load(visitor: Visitor, path: str) -> tuple[Answer, int]:
    """Return the page, and the bytes of all files that it needs."""
    page = visitor.get(path)
    return page, sum(_size(visitor.get(address)) for address in page.files())


def _size(answer: Answer) -> int:
    return answer.head_bytes + len(answer.body)
