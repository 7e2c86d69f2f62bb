"""How many trials a device serves best side by side, found by trying it with the real student."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayTaskError

from stkd.cluster.capacity import Request
from stkd.cluster.cluster import Cluster
from stkd.orchestrator.artifacts import ArtifactStore
from stkd.orchestrator.events import Observer
from stkd.orchestrator.hosting import worker_gang
from stkd.orchestrator.stages import DENSE, Shared, StageError, computed_stage, read_metrics
from stkd.search_spaces.schema import Space
from stkd.search_spaces.sections import ResourcesConfig
from stkd.trainers.specs import Distillation, JobSpec
from stkd.trainers.tasks import Task

WARM_STEPS, TIMED_STEPS = 3, 30
MOST_ON_A_GPU = 8
WORTHWHILE = 1.03
"""More trials side by side must bring so much more, or each of them is only slower."""
MakeGang = Callable[[Request], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Packing:
    """Trials of some resources, of which `jobs` fill a GPU, or where there is none a node's cores."""

    jobs: int
    cpus: int
    gpus: float

    def applied(self, resources: ResourcesConfig) -> ResourcesConfig:
        """The resources of trials that are packed so."""
        return resources.model_copy(update={"cpus_per_rank": self.cpus, "gpus_per_rank": self.gpus})


def packings(cores: int, gpus: int) -> list[Packing]:
    """What can be tried on a node: 1, 2, 4, ... trials side by side; on a GPU each has its share of the cores."""
    if gpus:
        per_gpu = max(1, cores // gpus)
        counts = [count for count in _doubling(MOST_ON_A_GPU) if count <= per_gpu]
        return [Packing(count, per_gpu // count, 1.0 / count) for count in counts]
    return [Packing(count, cores // count, 0.0) for count in _doubling(cores)]


def _doubling(most: int) -> Iterator[int]:
    count = 1
    while count <= most:
        yield count
        count *= 2


def packed(
    space: Space, task: Task, shared: Shared, store: ArtifactStore, observer: Observer, cluster: Cluster
) -> Space:
    """The space with the resources of trials that are packed best; a stage, found again by job and node."""
    node, student = cluster.capacity().largest, shared.of(space.student)
    cores, gpus = int(node.cpus) or 1, int(node.gpus) if space.resources.gpus_per_rank else 0
    spec = dense_job(space, task, shared, store)
    inputs = {
        "student": student.inputs,
        "training": space.training.model_dump(exclude={"epochs", "patience", "seed"}),
        "deepspeed": space.deepspeed,
        "cores": cores,
        "gpus": gpus,
    }

    def compute(_: Path) -> Mapping[str, float]:
        gang = partial(worker_gang, cluster, observer, "the try waits")
        speeds = _speeds(packings(cores, gpus), spec, gang)
        best = best_packing(speeds)
        shown = {f"examples_per_second_{tried.jobs}": found for tried, found in speeds.items()}
        return {"jobs": best.jobs, "cpus": best.cpus, "gpus": best.gpus, **shown}

    found = read_metrics(computed_stage(store, observer, "packing", inputs, compute))
    best = Packing(int(found["jobs"]), int(found["cpus"]), found["gpus"])
    return space.model_copy(update={"resources": best.applied(space.resources)})


def dense_job(space: Space, task: Task, shared: Shared, store: ArtifactStore) -> JobSpec:
    """The training of the dense teacher's student, whose logits are there before any trial's."""
    student = shared.of(space.student)
    logits = store.path("logits", {"data": shared.data.name, "teacher": shared.teacher.name, "mask": DENSE})
    distillation = Distillation(shared.teacher, logits, space.student, space.distillation, student.importance)
    return JobSpec(task, student.data, space.training, distillation=distillation, deepspeed=space.deepspeed)


def best_packing(speeds: Mapping[Packing, float]) -> Packing:
    """The fewest trials side by side that no larger number beats by what is worth it."""
    best = next(iter(speeds))
    for packing, found in speeds.items():
        if found > WORTHWHILE * speeds[best]:
            best = packing
    return best


def _speeds(tried: Iterable[Packing], spec: JobSpec, gang: MakeGang) -> dict[Packing, float]:
    """Examples per second by packing, for as long as more trials side by side bring more; raises StageError."""
    speeds: dict[Packing, float] = {}
    for packing in tried:
        found = speed(packing, spec, gang)
        if found is None:
            break
        paid = not speeds or found > WORTHWHILE * max(speeds.values())
        speeds[packing] = found
        if not paid:
            break
    if not speeds:
        raise StageError("not even one trial fits on a device; raise training.accumulation")
    return speeds


def speed(packing: Packing, spec: JobSpec, gang: MakeGang) -> float | None:
    """Examples per second of all trials of a packing together; None where they run out of memory."""
    with ExitStack() as stack:
        request = Request(1, packing.cpus, packing.gpus)
        gangs = [stack.enter_context(gang(request)) for _ in range(packing.jobs)]
        try:
            _all(gangs, "begin", spec)
            _all(gangs, "time_steps", WARM_STEPS)
            together: float = sum(_all(gangs, "time_steps", TIMED_STEPS))
            return together
        except RayTaskError as error:
            if type(error.cause).__name__ == "OutOfMemoryError":  # torch's, which is not loaded here
                return None
            raise


def _all(gangs: list[Any], method: str, *arguments: Any) -> list[Any]:
    answers: list[Any] = ray.get([gang.call.remote(method, *arguments) for gang in gangs])
    return answers
