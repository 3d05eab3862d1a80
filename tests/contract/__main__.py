"""`python -m tests.contract`: the test of the API against its document, with a chosen number of requests."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import pytest

from okane.api.routes import ROUTES


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.contract", description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000, help="how many requests, about")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    os.environ["OKANE_CONTRACT_EXAMPLES"] = str(max(1, options.cases // len(ROUTES)))
    os.environ["OKANE_CONTRACT_SEED"] = str(options.seed)
    return int(pytest.main(["-q", "-s", str(Path(__file__).with_name("test_schemathesis.py"))]))


if __name__ == "__main__":
    sys.exit(main())
