"""Options and seed of a run determine its schedule of faults and its orders."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence

import pytest

from torture.clients import orders
from torture.faults import FAULTS
from torture.options import TortureOptions
from torture.schedule import Card, Step, schedule
from torture.system.shape import Shape

SHAPE = Shape(apis=("api-1",), workers=("worker-1", "worker-2"), failpoints=("accept.here", "charge.there"))
CARDS = (
    Card(fault="kill", targets=("a", "b", "c"), weight=3),
    Card(fault="stop", targets=("a", "b"), hold_s=(1, 2)),
    Card(fault="flush", targets=("redis",)),
)
ALL_CARDS = [fault.card(Shape.of(TortureOptions(dispatchers=2))) for fault in FAULTS.values()]


def steps(seed: int, count: int, cards: Sequence[Card] = CARDS) -> list[Step]:
    return list(itertools.islice(schedule(cards, seed=seed, pause_s=1.0), count))


def test_the_same_seed_makes_the_same_schedule() -> None:
    assert steps(7, 500, ALL_CARDS) == steps(7, 500, ALL_CARDS)
    assert steps(7, 500, ALL_CARDS) != steps(8, 500, ALL_CARDS)


def test_another_process_makes_the_same_schedule() -> None:
    program = """
        from torture.faults import FAULTS
        from torture.options import TortureOptions
        from torture.system.shape import Shape
        from torture.schedule import schedule
        cards = [fault.card(Shape.of(TortureOptions(dispatchers=2))) for fault in FAULTS.values()]
        for step, _ in zip(schedule(cards, seed=3, pause_s=1.0), range(200)):
            print(step)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [str(step) for step in steps(3, 200, ALL_CARDS)]


def test_every_fault_comes_round_once_a_deck_as_often_as_its_weight() -> None:
    dealt = steps(1, 15)
    for deck in (dealt[:5], dealt[5:10], dealt[10:]):
        assert Counter(step.fault for step in deck) == {"kill": 3, "stop": 1, "flush": 1}


def test_the_targets_of_a_fault_take_turns() -> None:
    targets = [step.target for step in steps(1, 100) if step.fault == "kill"]
    assert len(targets) >= 6
    for at in range(0, len(targets) - 2, 3):
        assert set(targets[at : at + 3]) == {"a", "b", "c"}


def test_faults_are_held_within_their_bounds_and_pauses_vary() -> None:
    found = steps(1, 200)
    assert all(1 <= step.hold_s <= 2 for step in found if step.fault == "stop")
    assert all(step.hold_s == 0 for step in found if step.fault != "stop")
    assert all(0.5 <= step.pause_s <= 1.5 for step in found)
    assert len({step.pause_s for step in found}) > 100


def test_without_targets_there_is_nothing_to_do() -> None:
    assert steps(1, 5, [Card(fault="failpoint", targets=())]) == []


def test_failpoints_are_armed_where_they_are_passed() -> None:
    assert SHAPE.hosts_of("accept.here") == ("api-1",)
    assert SHAPE.hosts_of("charge.there") == ("worker-1", "worker-2")
    assert "api-1>clients" in SHAPE.links
    assert "worker-2>provider" in SHAPE.links
    assert "api-1>provider" not in SHAPE.links


def test_all_faults_can_be_dealt_and_name_what_they_touch() -> None:
    shape = Shape.of(TortureOptions(dispatchers=2))
    assert len(FAULTS) >= 30
    for step in steps(1, 1_000, ALL_CARDS):
        touched = FAULTS[step.fault].touches(step, shape)
        assert touched, step
    assert {card.fault for card in ALL_CARDS if card.targets} == {step.fault for step in steps(1, 200, ALL_CARDS)}


def test_faults_of_servers_that_a_run_does_not_have_leave_its_schedule_as_it_is() -> None:
    own = [fault.card(Shape.of(TortureOptions())) for fault in FAULTS.values() if not fault.needs.startswith("--")]
    assert steps(5, 500, own) == steps(5, 500, ALL_CARDS)


def test_redis_behind_sentinel_has_links_of_its_servers_and_no_failover_by_hand() -> None:
    shape = Shape.of(TortureOptions(redis="sentinel"))
    cards = [fault.card(shape) for fault in FAULTS.values()]
    dealt = steps(1, 3_000, cards)
    assert {"sentinel_promotion", "sentinel_down", "redis_flushed"} <= {step.fault for step in dealt}
    assert not {"redis_failover", "redis_split"} & {step.fault for step in dealt}
    assert "worker-1>redis" not in shape.links
    shared = [step for step in dealt if step.target == "all>redis-0"]
    assert shared
    assert all("redis" in FAULTS[step.fault].touches(step, shape) for step in shared)


def test_a_cluster_of_redis_has_a_link_for_each_node() -> None:
    shape = Shape.of(TortureOptions(redis="cluster"))
    dealt = steps(1, 3_000, [fault.card(shape) for fault in FAULTS.values()])
    assert {"cluster_promotion", "cluster_silent", "cluster_failover", "slot_moved"} <= {step.fault for step in dealt}
    assert not {"redis_failover", "sentinel_down"} & {step.fault for step in dealt}
    assert {f"all>redis-{number}" for number in range(6)} <= {step.target for step in dealt}


def test_promotions_are_dealt_where_there_are_standbys() -> None:
    shape = Shape.of(TortureOptions(postgres="standby"))
    cards = [fault.card(shape) for fault in FAULTS.values()]
    dealt = steps(1, 300, cards)
    assert {"postgres_promotion", "postgres_promotion_unfenced", "standby_down"} <= {step.fault for step in dealt}
    assert "worker-1>postgres-2" in {step.target for step in steps(1, 3_000, cards)}
    assert "worker-1>postgres" not in shape.links
    [unfenced] = [step for step in dealt[:150] if step.fault == "postgres_promotion_unfenced"][:1]
    touched = FAULTS[unfenced.fault].touches(unfenced, shape)
    assert {"postgres", "api-1>postgres-0", "api-1>postgres-2"} <= set(touched)
    assert not set(touched) - {"postgres"} - set(shape.links)


def test_orders_are_the_same_for_the_same_seed_and_of_every_kind() -> None:
    made = list(itertools.islice(orders(1), 2_000))
    assert made == list(itertools.islice(orders(1), 2_000))
    assert made != list(itertools.islice(orders(2), 2_000))
    assert {len(str(order.amount_minor)) for order in made} >= {3, 4, 5}
    assert 50 < sum(order.twin for order in made) < 200
    assert 50 < sum(order.repeat_after_s is not None for order in made) < 200
    assert 10 < sum(order.reuse_for_minor is not None for order in made) < 100
    assert sum(bool(order.metadata) for order in made) == 40


def test_options_say_what_is_wrong_with_them() -> None:
    assert (TortureOptions().kills, TortureOptions().payments) == (50, 5_000)
    assert TortureOptions(minutes=1).kills == 0
    assert TortureOptions(settings={"VISIBILITY_TIMEOUT": "500ms"}).lease_s == 0.5
    for wrong, said in (
        ({"workers": 1}, "two workers"),
        ({"rate": 0}, "above 0"),
        ({"kills": -1}, "negative"),
        ({"settings": {"VISIBILITY_TIMEOUT": "soon"}}, "duration"),
        ({"settings": {"lease time": "1s"}}, "named as in the environment"),
        ({"postgres": "three"}, "`one` or `standby`, not `three`"),
        ({"redis": "three"}, "`one`, `sentinel` or `cluster`, not `three`"),
    ):
        with pytest.raises(ValueError, match=said):
            TortureOptions(**wrong)
