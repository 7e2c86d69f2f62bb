"""How many jobs a cluster has room for: now, and when it has grown as far as it may."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from stkd.cluster.errors import PlacementError


@dataclass(frozen=True)
class Request:
    """What one job asks for: so many ranks, each with these CPUs and GPUs of one node."""

    ranks: int
    cpus: int
    gpus: float = 0.0

    @property
    def bundles(self) -> list[dict[str, float]]:
        """The placement group of the job: a bundle for each rank."""
        return [{"CPU": float(self.cpus)} | ({"GPU": self.gpus} if self.gpus else {}) for _ in range(self.ranks)]

    def __str__(self) -> str:
        rank = Machine(self.cpus, self.gpus)
        return f"{self.ranks} ranks of {rank} each" if self.ranks > 1 else str(rank)


@dataclass(frozen=True)
class Machine:
    """What a node has."""

    cpus: float
    gpus: float = 0.0

    @classmethod
    def of(cls, resources: Mapping[str, float]) -> "Machine":
        """From Ray's resources."""
        return cls(resources.get("CPU", 0.0), resources.get("GPU", 0.0))

    def holds(self, request: Request) -> int:
        """How many of a job's ranks it has room for."""
        by_cpu = self.cpus // request.cpus
        return int(min(by_cpu, self.gpus // request.gpus) if request.gpus else by_cpu)

    def __str__(self) -> str:
        parts = [_counted(self.cpus, "CPU")] if self.cpus or not self.gpus else []
        return " and ".join(parts + ([_counted(self.gpus, "GPU")] if self.gpus else []))


Machines = Mapping[Machine, int]
"""How many there are of each."""


@dataclass(frozen=True)
class Growth:
    """The nodes that an autoscaler may start, beside those that are there."""

    machines: Machines = field(default_factory=dict)
    most: int | None = None
    """Of all of them together."""
    endless: bool = False
    """There is an autoscaler, but nothing says how far it goes."""

    def machines_for(self, request: Request) -> Machines:
        """Those that it would start for as many such jobs as it can."""
        left = sum(self.machines.values()) if self.most is None else self.most
        chosen: dict[Machine, int] = {}
        for machine, count in sorted(self.machines.items(), key=lambda kind: -kind[0].holds(request)):
            chosen[machine] = min(count, left)
            left -= chosen[machine]
        return chosen


@dataclass(frozen=True)
class Limits:
    """What an autoscaler may start, without the head."""

    machines: Mapping[Machine, int] = field(default_factory=dict)
    most: int | None = None
    """Of all kinds together."""
    unknown: bool = False
    """Whether there are more, of which nothing is known."""

    def beyond(self, workers: Iterable[Machine]) -> Growth:
        """What may come beside the workers that are there."""
        present = Counter(workers)
        left = None if self.most is None else max(0, self.most - present.total())
        machines = {machine: count - present[machine] for machine, count in self.machines.items()}
        coming = {machine: count for machine, count in machines.items() if count > 0 and left != 0}
        return Growth(coming, left, self.unknown and left != 0)


NO_GROWTH = Growth()


@dataclass(frozen=True)
class Capacity:
    """The nodes of a cluster: those that are there, and those that may come."""

    present: Machines
    growth: Growth = NO_GROWTH

    @classmethod
    def of(cls, nodes: Iterable[Machine], growth: Growth = NO_GROWTH) -> "Capacity":
        """The capacity of these nodes."""
        return cls(Counter(nodes), growth)

    def jobs_now(self, request: Request) -> int:
        """How many such jobs the nodes that are there hold at a time."""
        return _jobs(request, self.present)

    def jobs_at_most(self, request: Request) -> int | None:
        """How many such jobs the cluster holds when it has grown; None where nothing says how far it grows."""
        return None if self.growth.endless else _jobs(request, self.present, self.growth.machines_for(request))

    def refuse_impossible(self, request: Request) -> None:
        """Raise PlacementError where the cluster can never hold one job: Ray itself would wait for ever."""
        if self.jobs_at_most(request) == 0:
            raise PlacementError(
                f"resources: a trial takes {request}, which never fits this cluster, which has {self}; "
                "lower resources.ranks, resources.cpus_per_rank or resources.gpus_per_rank"
            )

    @property
    def largest(self) -> Machine:
        """The node that has most, also of those that may come: GPUs first, then CPUs."""
        return max((*self.present, *self.growth.machines), key=lambda machine: (machine.gpus, machine.cpus))

    def most_cpus_per_rank(self, ranks: int) -> int:
        """How many CPUs each rank of a job can have where the job has all nodes that are there; at least one."""
        counts = range(1, int(max((machine.cpus for machine in self.present), default=1)) + 1)
        return max((cpus for cpus in counts if self.jobs_now(Request(ranks, cpus))), default=1)

    def __str__(self) -> str:
        coming = f", and may start {_listed(self.growth.machines)}" if self.growth.machines else ""
        return f"{_listed(self.present) or 'no nodes'}{coming}"


def _jobs(request: Request, *places: Machines) -> int:
    held = (count * machine.holds(request) for machines in places for machine, count in machines.items())
    return sum(held) // request.ranks


def _listed(machines: Machines) -> str:
    kinds = sorted(machines.items(), key=lambda kind: (-kind[0].gpus, -kind[0].cpus))
    return ", ".join(f"{count} nodes with {kind}" if count > 1 else f"a node with {kind}" for kind, count in kinds)


def _counted(amount: float, name: str) -> str:
    return f"{amount:g} {name}" if amount == 1 or 0 < amount < 1 else f"{amount:g} {name}s"
