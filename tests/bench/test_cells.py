"""The simulation of cells behind one router."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from bench.cells import Found, Plan, Simulation, cell_of_request, main
from bench.parts.end_to_end import PER_S


def simulated(*, killed: int, cells: int = 10) -> Found:
    plan = Plan(
        cells=cells, rate_per_s=700 * cells, cell_rate_per_s=1000, killed=killed, before_s=1, down_s=5, after_s=20
    )
    return Simulation(plan).run()


def test_equal_requests_reach_one_cell_and_all_cells_are_reached_evenly() -> None:
    assert cell_of_request("acct", "key-1", 80) == cell_of_request("acct", "key-1", 80)
    assert cell_of_request("a", "bc", 1024) != cell_of_request("ab", "c", 1024)
    found = Counter(cell_of_request("one-big-account", f"key-{number}", 8) for number in range(8_000))
    assert all(850 < count < 1_150 for count in found.values())


def test_a_dead_cell_delays_its_own_payments_only_and_loses_none() -> None:
    found, calm = simulated(killed=2), simulated(killed=0)
    assert found.settled == found.requested > 100_000
    assert found.refused_share == pytest.approx(0.2, abs=0.02)
    assert found.others_p99_s == calm.others_p99_s < 0.1
    assert 1 < found.killed_p99_s < 30
    assert found.most_waiting > 2 * 700 * 4
    assert 0 < found.caught_up_s < 20
    assert (calm.refused_share, calm.caught_up_s, calm.killed_p99_s) == (0, 0, 0)


def test_the_rate_of_a_cell_comes_from_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "bench.json"
    report.write_text(json.dumps({"parts": {"b": {"figures": [{"name": PER_S, "median": 1000.0}]}}}))
    main(["--rate", "1400", "--figures", str(report), "--down-s", "1", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (found["cells"], found["cell_rate_per_s"], found["settled"]) == (2, 1000.0, found["requested"])
    main(["--rate", "1400", "--cell-rate", "1000", "--down-s", "1"])
    assert "lost" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rate", "1000000", "--cell-rate", "100"], "room for the number of 1,024"),
        (["--cell-rate", "10000", "--kill", "1000"], "--kill"),
        ([], "required"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err
