"""`python -m grafana.screens`: draw every dashboard from the data of a Prometheus."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import aiohttp

from grafana.screens.boards import Board, fetch_board, read
from grafana.screens.picture import Drawn, picture
from grafana.screens.prometheus import Prometheus, QueryError, Span

DASHBOARDS = sorted((Path(__file__).parents[1] / "dashboards").glob("*.json"))
PICTURES = Path(__file__).parents[2] / "docs" / "images"


async def fetch_boards(url: str, span: Span) -> list[Board]:
    """Fetch the data of every dashboard. Raises QueryError."""
    async with aiohttp.ClientSession() as http:
        prometheus = Prometheus(url, http)
        return [await fetch_board(prometheus, read(file), span) for file in DASHBOARDS]


def draw(boards: Sequence[Board], out: Path, *, report: Callable[[str], None]) -> Sequence[Drawn]:
    """Draw the dashboards into `out`, and report each file."""
    out.mkdir(parents=True, exist_ok=True)
    found: list[Drawn] = []
    for board in boards:
        content, drawn = picture(board)
        path = out / f"{board.uid}.png"
        path.write_bytes(content)
        empty = ", ".join(one.title for one in drawn if not one.points) or "none"
        report(f"{path}: {len(content) // 1000} kB, {len(drawn)} panels, without data: {empty}")
        found += drawn
    return found


def _moment(text: str) -> float:
    """Parse Unix seconds, or a date and time (UTC without a zone)."""
    try:
        return float(text)
    except ValueError:
        return datetime.fromisoformat(text if "+" in text or text.endswith("Z") else f"{text}+00:00").timestamp()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m grafana.screens", description="Draw every dashboard from the data of a Prometheus."
    )
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", help="its address (default: %(default)s)")
    parser.add_argument("--from", dest="from_s", type=_moment, help="ISO time or Unix seconds (default: --minutes ago)")
    parser.add_argument("--to", dest="to_s", type=_moment, help="ISO time or Unix seconds (default: now)")
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="length of the time span, without --from (default: %(default)g)"
    )
    parser.add_argument(
        "--interval", type=float, default=15.0, help="Prometheus' scrape interval, s (default: %(default)g)"
    )
    parser.add_argument("--out", type=Path, default=PICTURES, help="folder (default: docs/images)")
    options = parser.parse_args()
    to_s = options.to_s or time.time()
    span = Span(from_s=options.from_s or to_s - options.minutes * 60, to_s=to_s, interval_s=options.interval)
    try:
        boards = asyncio.run(fetch_boards(options.prometheus, span))
    except QueryError as error:
        sys.exit(str(error))
    draw(boards, options.out, report=print)


if __name__ == "__main__":
    main()
