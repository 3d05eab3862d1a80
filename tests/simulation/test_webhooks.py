"""The simulation of webhooks: seeds find nothing, a seed replays exactly, and every planted bug is caught."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.simulation.webhooks.mutants import MUTANTS
from tests.simulation.webhooks.world import run

CHUNKS, SEEDS = 8, 60  # per chunk
BUDGET = 400  # seeds in which a planted bug must show; the slowest takes some hundred


@pytest.mark.timeout(300)
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_seed_breaks_an_invariant(chunk: int) -> None:
    for seed in range(chunk * SEEDS, (chunk + 1) * SEEDS):
        assert not run(seed).found, f"replay: python -m tests.simulation --webhooks --seed {seed}"


def test_a_seed_runs_the_same_way_in_another_process() -> None:
    """Whatever the hash seed of that process: nothing goes by the order of a set."""
    digests = str([run(seed).digest for seed in range(5)])
    assert digests == str([run(seed).digest for seed in range(5)])
    code = "from tests.simulation.webhooks.world import run; print([run(seed).digest for seed in range(5)])"
    for hash_seed in ("1", "2"):
        there = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert there.stdout.strip() == digests


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_planted_bug_is_caught(name: str) -> None:
    with MUTANTS[name]():
        assert any(run(seed).found for seed in range(BUDGET))
    assert not run(0).found, "the bug is still planted"


def test_faults_and_repairs_are_really_made() -> None:
    """A nemesis that does nothing finds nothing."""
    results = [run(seed) for seed in range(80)]
    faults = sum((result.faults for result in results), start=results[0].faults.copy())
    repairs = sum((result.repairs for result in results), start=results[0].repairs.copy())
    assert len([kind for kind, count in faults.items() if count]) > 20
    for repair in ("repeats", "stale results", "retries", "taken over"):
        assert repairs[repair], (repair, repairs)
