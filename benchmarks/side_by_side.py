"""Trials side by side, one on each core, against one after the other on all cores."""

from collections.abc import Iterator
from functools import partial

from measuring import Goal, Row, Settings, in_turns
from places import workplace
from prepared import prepared_task

from stkd.orchestrator.artifacts import ArtifactStore
from stkd.orchestrator.events import Observer
from stkd.orchestrator.hosting import worker_gang
from stkd.orchestrator.packing import MakeGang, Packing, dense_job, packings, speed
from stkd.trainers.specs import JobSpec


def rows(settings: Settings) -> Iterator[Row]:
    """One row, of a trial's seconds for an example."""
    changes = ["data.train_examples=64"] if settings.quick else []
    with workplace() as folder, prepared_task(settings, folder, *changes) as prepared:
        spec = dense_job(prepared.space, prepared.data.task, prepared.shared, ArtifactStore(prepared.storage.artifacts))
        tried = packings(int(prepared.cluster.capacity().largest.cpus), gpus=0)
        one, most = tried[0], tried[-1]
        gang = partial(worker_gang, prepared.cluster, Observer(), "the bench waits")
        sides = {"ours": lambda: _seconds(most, spec, gang), "theirs": lambda: _seconds(one, spec, gang)}
        measured = in_turns(sides, settings.times(5))
    what = f"an example, {most.jobs} trials side by side of {most.cpus} thread(s) each"
    against = f"one after the other, of {one.cpus} threads"
    yield Row("side_by_side", what, against, "s", measured["ours"], measured["theirs"], [Goal("faster", 0.95)])


def _seconds(packing: Packing, spec: JobSpec, gang: MakeGang) -> float:
    found = speed(packing, spec, gang)
    assert found is not None, "a CPU's memory does not run out"
    return 1 / found
