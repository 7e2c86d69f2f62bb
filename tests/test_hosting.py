"""How many trials run side by side as nodes come and go, and what is said while work waits for room."""

from pathlib import Path

import pytest
from typing_extensions import override

from stkd.cluster.capacity import Capacity, Growth, Machine, Request
from stkd.cluster.cluster import Cluster
from stkd.orchestrator.events import Observer
from stkd.orchestrator.hosting import FEWEST_AHEAD, Room, concurrent_trials, device_plan, stage_cores
from stkd.orchestrator.waiting import Queue, Waiting
from stkd.search_spaces.reading import read_space
from stkd.search_spaces.schema import Space

NODE = Machine(4, 2)
TRIAL = Request(1, 2, 1.0)


def space(*overrides: str) -> Space:
    resources = "resources={gpus_per_rank: 1, cpus_per_rank: 2}"
    return read_space(Path("quickstart"), [resources, *(f"{change}" for change in overrides)])


class Changing(Cluster):
    """A cluster whose nodes the test says."""

    def __init__(self, *nodes: Machine, growth: Growth | None = None) -> None:
        super().__init__("10.0.0.1:6379")
        self.now = Capacity.of(nodes, growth or Growth())
        self.waiting = True

    @override
    def capacity(self) -> Capacity:
        return self.now

    @override
    def has_waiting(self, request: Request) -> bool:
        return self.waiting


class Heard(Observer):
    def __init__(self) -> None:
        self.lines: list[str] = []

    @override
    def waiting(self, reason: str) -> None:
        self.lines.append(reason)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("capacity", "allowed", "trials", "devices"),
    [
        (Capacity.of([NODE, NODE]), "null", 4, 4),
        (Capacity.of([NODE, NODE]), "3", 3, 3),
        (Capacity.of([Machine(0)], Growth({NODE: 20})), "null", 40, 1),
        (Capacity.of([NODE], Growth({NODE: 20}, most=2)), "null", 6, 2),
        (Capacity.of([Machine(0)], Growth(endless=True)), "null", FEWEST_AHEAD, 1),
        (Capacity.of([NODE] * 5, Growth(endless=True)), "null", 20, 10),
        (Capacity.of([]), "null", 1, 1),
    ],
)
def test_trials_go_by_what_the_cluster_can_become_and_devices_by_what_it_is(
    capacity: Capacity, allowed: str, trials: int, devices: int
) -> None:
    chosen = space(f"trials.concurrent={allowed}")
    assert concurrent_trials(chosen, capacity) == trials
    assert device_plan(chosen, capacity).devices == devices


def test_nodes_that_come_and_go_change_the_number_of_trials() -> None:
    cluster, clock = Changing(NODE, NODE), Clock()
    room = Room(space(), cluster, clock)
    assert (room.trials(), room.devices().devices) == (4, 4)
    cluster.now = Capacity.of([NODE])
    assert room.trials() == 4  # it looks now and then
    clock.now += 5
    assert (room.trials(), room.devices().devices) == (2, 2)
    cluster.now = Capacity.of([NODE] * 40)
    clock.now += 5
    assert (room.trials(), room.devices().devices) == (80, 80)


def test_a_stage_on_cpus_has_what_is_free_but_never_less_than_a_trial() -> None:
    on_cpus = read_space(Path("quickstart"), ["resources={cpus_per_rank: 2}"])
    assert stage_cores(on_cpus, Capacity.of([Machine(16), Machine(3)])) == 16
    assert stage_cores(on_cpus, Capacity.of([Machine(1)])) == 2
    assert stage_cores(space(), Capacity.of([Machine(16, 1)])) == 2


def test_what_is_waited_for_is_said_once_and_again_when_it_has_changed() -> None:
    cluster, heard, clock = Changing(Machine(0), growth=Growth({NODE: 2})), Heard(), Clock()
    waiting = Waiting(cluster, heard, clock)
    for _ in range(20):
        waiting.tell("the stage waits", TRIAL)
        clock.now += 5
    assert heard.lines == [
        "the stage waits for 2 CPUs and 1 GPU; no node has that yet: the cluster has a node with 0 CPUs, and may start "
        "2 nodes with 4 CPUs and 2 GPUs"
    ]
    cluster.now = Capacity.of([Machine(0), NODE])
    waiting.tell("the stage waits", TRIAL)
    assert len(heard.lines) == 2
    assert "what has that is taken: the cluster has a node with 4 CPUs and 2 GPUs" in heard.lines[1]
    cluster.now = Capacity.of([NODE] * 2)
    waiting.tell("the stage waits", TRIAL)
    assert len(heard.lines) == 2  # not with every node that comes
    clock.now += 30
    waiting.tell("the stage waits", TRIAL)
    assert len(heard.lines) == 3


@pytest.mark.parametrize(
    ("pending", "waiting", "said"), [(True, True, 1), (False, True, 0), (True, False, 0)], ids=["", "none", "starting"]
)
def test_trials_that_wait_for_room_are_said_unless_they_only_start(pending: bool, waiting: bool, said: int) -> None:
    cluster, heard, clock = Changing(NODE), Heard(), Clock()
    cluster.waiting = waiting
    queue = Queue(TRIAL, cluster, heard, clock)
    queue.look(lambda: pending)
    assert heard.lines == []  # a moment is no waiting
    for _ in range(14):
        clock.now += 1
        queue.look(lambda: pending)
    assert heard.lines == []
    for _ in range(100):
        clock.now += 1
        queue.look(lambda: pending)
    assert len(heard.lines) == said
    cluster.waiting = False
    clock.now += 5
    queue.look(lambda: pending)
    cluster.waiting = True
    for _ in range(10):
        clock.now += 5
        queue.look(lambda: pending)
    assert len(heard.lines) == said + pending
