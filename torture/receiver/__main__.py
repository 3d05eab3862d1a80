"""`python -m torture.receiver --port 1 --journal FILE`."""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path

from torture.receiver.server import serve


async def _main(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve(port=options.port, journal=options.journal, seed=options.seed, stop=stop)


def main() -> None:
    """Serve until a signal."""
    parser = argparse.ArgumentParser(prog="python -m torture.receiver", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    asyncio.run(_main(parser.parse_args()))


if __name__ == "__main__":
    main()
