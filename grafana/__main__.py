"""`python -m grafana`: write the dashboards and the page of metrics. A test checks that they are up to date."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from grafana import metrics_page
from grafana.dependencies import DEPENDENCIES
from grafana.overview import OVERVIEW
from grafana.payments import PAYMENTS
from grafana.streams import STREAMS
from grafana.webhooks import WEBHOOKS

HERE = Path(__file__).parent
BOARDS = (OVERVIEW, STREAMS, PAYMENTS, DEPENDENCIES, WEBHOOKS)


def generated_files() -> Mapping[Path, str]:
    """Return every generated file with its content."""
    boards = {HERE / "dashboards" / f"{board.uid}.json": board.to_json() for board in BOARDS}
    return {**boards, HERE.parent / "docs" / "metrics.md": metrics_page.text()}


def main() -> None:
    for path, text in generated_files().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
