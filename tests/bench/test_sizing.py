"""The table of sizes: its arithmetic, and that docs/sizing.md shows it as the command prints it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from bench import sizing
from bench.sizing import FIGURES, MEASURED, Wish, limits, main, size

DOCS = Path(__file__).parents[2] / "docs"


def test_the_docs_show_the_table_that_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    page = (DOCS / "sizing.md").read_text()
    for part in capsys.readouterr().out.strip().split("\n\n"):
        assert part in page


def test_the_table_is_made_of_the_costs_that_the_docs_name() -> None:
    page = (DOCS / "sizing.md").read_text()
    for line in (
        rf"\| API \| {MEASURED.api_us:g} us \| {MEASURED.process_mb:g} MB",
        rf"\| worker \| {MEASURED.worker_us:g} us",
        rf"\| Postgres \| {MEASURED.postgres_us:g} us, {MEASURED.log_bytes / 1000:g} kB of write-ahead log \|"
        rf" {MEASURED.row_bytes:,.0f} bytes",
        rf"\| Redis \| {MEASURED.redis_us:g} us",
    ):
        assert re.search(line, page), line
    assert f"{MEASURED.per_s:,.0f}/s" in (DOCS.parent / "README.md").read_text()
    operations = (DOCS / "operations.md").read_text()
    assert f"up to {sizing.API_CONNECTIONS} for an API process, {sizing.WORKER_CONNECTIONS} for a worker" in operations


def test_needs_grow_with_the_rate_and_one_process_may_die() -> None:
    costs = replace(MEASURED, api_us=100, worker_us=200, redis_us=50, row_bytes=1_000, per_s=5_000)
    small, large = (size(rate, costs, Wish(provider_ms=500, keep_days=10)) for rate in (1_000, 10_000))
    assert (small.api_cores, small.worker_cores, small.redis_threads) == (0.1, 0.2, 0.05)
    assert (small.api_processes, small.in_flight, small.worker_processes) == (2, 500, 3)
    assert (large.api_processes, large.in_flight, large.worker_processes) == (3, 5_000, 21)
    assert (small.disk_gb_per_day, small.disk_tb_kept) == (86.4, 0.864)
    assert (small.was_run, large.was_run) == (True, False)
    assert (small.cells, large.cells) == (1, 3)
    assert size(100_000, replace(costs, api_us=7, worker_us=700), Wish(provider_ms=1)).worker_processes == 101
    assert small.limits == ()
    assert large.limits == ("machine",)


def test_limits_come_in_the_order_in_which_a_growing_rate_meets_them() -> None:
    found = limits(MEASURED, Wish())
    assert [limit.per_s for limit in found] == sorted(limit.per_s for limit in found)
    assert size(100_000, MEASURED, Wish()).limits == tuple(limit.name for limit in found)


def test_the_costs_come_from_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts: dict[str, dict[str, list[object]]] = {}
    for number, (letter, name) in enumerate(FIGURES.values(), 1):
        parts.setdefault(letter, {"figures": []})["figures"].append({"name": name, "median": number * 1000.0})
    report = tmp_path / "bench.json"
    report.write_text(json.dumps({"parts": parts}))
    found = sizing.measured(report)
    assert [getattr(found, field) for field in FIGURES] == [number * 1000.0 for number in range(1, len(FIGURES) + 1)]
    main(["--figures", str(report), "--rates", "1", "--json"])
    assert json.loads(capsys.readouterr().out)[0]["api_cores"] == 0.001
    del parts["b"]
    report.write_text(json.dumps({"parts": parts}))
    with pytest.raises(SystemExit):
        main(["--figures", str(report)])
    assert "no figure 'okane, provider 0 ms' of part b" in capsys.readouterr().err
