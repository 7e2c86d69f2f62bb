"""`stkd sweep --dry-run`: what a sweep would run, on what, for how long, and what it would take over."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass

from rich.console import Console

from stkd.cluster.capacity import Capacity, Machine
from stkd.cluster.cluster import Cluster
from stkd.cluster.each_node import ask_each
from stkd.orchestrator.artifacts import ArtifactStore
from stkd.orchestrator.forecast import Forecast, Span
from stkd.orchestrator.hosting import concurrent_trials, device_plan, stage_cores, trial_request
from stkd.orchestrator.layout import Storage
from stkd.orchestrator.ledger import DevicePlan
from stkd.orchestrator.node_findings import size
from stkd.orchestrator.node_questions import Room
from stkd.orchestrator.pace import Pace, RunSteps, earlier, probed
from stkd.orchestrator.preflight import count_gpus, existing
from stkd.orchestrator.tables import clock
from stkd.orchestrator.tracking import tracking_uri
from stkd.search_spaces.schema import Space
from stkd.search_spaces.values import without_secrets
from stkd.trainers.sources import TaskData, load_task
from stkd.trainers.steps import StepError, Steps, Timed, time_steps

STARTING_SECONDS = 8.0
"""Until processes stand, each time that a task's stages and its trials begin."""
CHECKPOINT_COPIES = 6
"""A trial that runs keeps two checkpoints, each of the student's weights and what the optimizer knows of them."""
MEGABYTE = 1e6


@dataclass(frozen=True)
class Estimate:
    """What a task takes. Device-seconds are those held, as the account at a sweep's end has them."""

    seconds: Span
    device_seconds: Span
    bytes: float | None
    source: str


def estimate(space: Space, forecast: Forecast, pace: Pace, devices: DevicePlan, concurrent: int) -> Estimate:
    """What the task's stages and trials take at this pace."""
    stages = Span.sure(STARTING_SECONDS)
    for stage in forecast.stages:
        if not stage.taken_over:
            stages += pace.stage(stage.name)
    later = forecast.controls + forecast.confirm
    count = forecast.search - (forecast.known or 0) + later
    epochs = forecast.epochs + Span.sure(later * space.training.epochs)
    trials = pace.start.times(count) + pace.epoch * epochs
    side_by_side = max(1, min(concurrent, count))
    tail = pace.epoch.times(space.training.epochs * (side_by_side - 1) / side_by_side)  # the last ones run alone
    seconds = stages + trials.times(1 / side_by_side) + tail + Span.sure(STARTING_SECONDS)
    return Estimate(seconds, seconds.times(devices.devices), _bytes(forecast, pace, count, concurrent), pace.source)


def _bytes(forecast: Forecast, pace: Pace, trials: int, concurrent: int) -> float | None:
    student, teacher = pace.student_megabytes, pace.teacher_megabytes
    if student is None or teacher is None:
        return None
    models = sum(
        stage.name.partition("-")[0] in ("teacher", "trial_student")
        for stage in forecast.stages
        if not stage.taken_over
    )
    return MEGABYTE * (models * max(teacher, student) + trials * student + CHECKPOINT_COPIES * concurrent * student)


class DryRun:
    """Says what a sweep of a space would do; writes nothing."""

    def __init__(self, space: Space, prepared: Mapping[str, TaskData], probe: bool, console: Console) -> None:
        self._space, self._prepared, self._probe, self._console = space, prepared, probe, console
        self._storage = Storage(space.storage_folder)

    def run(self, address: str | None) -> int:
        """Print it; returns the exit code. Raises ClusterError where the cluster could never run it."""
        if address is None:
            return self._run(Capacity.of([Machine(os.cpu_count() or 1, count_gpus())]), None)
        with Cluster(address) as cluster:
            cluster.capacity().refuse_impossible(trial_request(self._space))
            return self._run(cluster.capacity(), cluster)

    def _run(self, capacity: Capacity, cluster: Cluster | None) -> int:
        self._cluster = cluster
        concurrent = concurrent_trials(self._space, capacity)
        devices = device_plan(self._space, capacity)
        self._say_where(capacity, devices, concurrent)
        estimates = [self._task(task, devices, concurrent, capacity) for task in self._space.tasks]
        self._say_all([found for found in estimates if found is not None], devices)
        self._say("nothing was started or written; the same command without --dry-run runs it")
        return 0

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _say_where(self, capacity: Capacity, devices: DevicePlan, concurrent: int) -> None:
        space, request = self._space, trial_request(self._space)
        place = f"the cluster at {self._cluster.address}" if self._cluster else "this machine"
        self._say(f"sweep     {space.name}: {len(space.tasks)} task(s), in {self._storage.root}")
        self._say(f"place     {place}, {capacity}")
        ranks = f"a trial takes {request}"
        at_a_time = f"{concurrent} at a time"
        packed = "; how many is tried out first (resources.pack)" if space.resources.pack else ""
        stage = "" if space.resources.gpus_per_rank else f"; a stage {stage_cores(space, capacity)} CPUs a rank"
        self._say(f"trials    {ranks}, {at_a_time}{packed}{stage}: {devices.devices:g} {devices.unit}(s) are held")
        uri = tracking_uri(space.tracking.uri, self._storage.root)
        self._say(f"MLflow    {without_secrets(uri)}, experiment {space.experiment}")

    def _task(self, task: str, devices: DevicePlan, concurrent: int, capacity: Capacity) -> Estimate | None:
        data = self._prepared.get(task)
        if data is None and self._probe:
            data = load_task(task, self._space.data)
        self._say("")
        if data is None:
            trials = f"{self._space.trial_count} trials"
            self._say(f"{task}: {trials}; its data come from the hub, which --probe asks: so nothing more is known")
            return None
        forecast = Forecast.of(self._space, data, ArtifactStore(self._storage.artifacts), concurrent)
        for line in task_lines(self._space, forecast):
            self._say(line)
        pace = self._pace(data, forecast, capacity)
        if pace is None:
            return None
        found = estimate(self._space, forecast, pace, devices, concurrent)
        self._say(f"  takes     {in_words(found, devices)}, by {found.source}")
        return found

    def _pace(self, data: TaskData, forecast: Forecast, capacity: Capacity) -> Pace | None:
        artifact = next(stage.artifact for stage in forecast.stages if stage.name == "data")
        known = None if self._probe else earlier(self._space, data, artifact, self._storage)
        if known is not None or not self._probe:
            if known is None:
                self._say("  takes     not known: no sweep here has trained such students; --probe tries a few steps")
            return known
        try:
            with self._console.status("training a few steps of teacher and student"):
                cores = stage_cores(self._space, capacity)
                return probed(self._space, data, cores, *(_on_largest(self._cluster) if self._cluster else ()))
        except StepError as error:
            self._say(f"  takes     not known: the probe failed: {error}")
            return None

    def _say_all(self, found: Sequence[Estimate], devices: DevicePlan) -> None:
        room = Room.of(existing(self._storage.root))
        self._say("")
        if len(found) == len(self._space.tasks) and len(found) > 1:
            seconds = sum((one.seconds for one in found), Span.sure(0.0))
            held = sum((one.device_seconds for one in found), Span.sure(0.0))
            self._say(f"all tasks {in_words(Estimate(seconds, held, None, ''), devices)}")
        known = [one.bytes for one in found if one.bytes is not None]
        needed = f"about {size(sum(known))} needed" if known else "what is needed is not known"
        short = "; that is too little" if sum(known) > room.free else ""
        self._say(f"disk      {needed}, {size(room.free)} free{short}")


def _on_largest(cluster: Cluster) -> tuple[RunSteps, str]:
    """What makes steps on the node that has most, and how that is called."""
    node = max(cluster.nodes(), key=lambda node: astuple(Machine.of(node["Resources"]))[::-1])

    def run(steps: Sequence[Steps], limit: float) -> list[Timed]:
        (answer,) = ask_each([node], time_steps, list(steps), limit)
        if answer.found is None:
            raise StepError(answer.problem)
        return answer.found

    return run, f"node {node['NodeManagerAddress']}"


def task_lines(space: Space, forecast: Forecast) -> Iterator[str]:
    """What a task would run, a line each."""
    yield f"{forecast.task}: {forecast.examples:,} training examples"
    for stage in forecast.stages:
        name = stage.name.replace("_", " ")
        what = f"taken over, which saves {clock(stage.saved)}" if stage.taken_over else "to be computed"
        yield f"  {'stage':<9} {name}: {what}"
    yield f"  {'search':<9} {_search(space, forecast)}"
    if forecast.controls:
        yield f"  {'controls':<9} {forecast.controls} trials of {forecast.longest} epochs at most"
    if forecast.confirm and space.confirm:
        confirm = space.confirm
        of = f"{confirm.top} finalists and the controls, {confirm.seeds} seeds each"
        yield f"  {'confirm':<9} {forecast.confirm} trials: {of}"


def _search(space: Space, forecast: Forecast) -> str:
    who = space.trials.searcher if space.search else "one setting"
    known = f", {forecast.known} of them taken over" if forecast.known else ""
    trained = (
        f"; {forecast.trained} of this teacher are there, and taken over where the search comes to them"
        if forecast.trained and forecast.known is None
        else ""
    )
    return f"{forecast.search} trials ({who}){known}, {_stops(space, forecast)}{trained}"


def _stops(space: Space, forecast: Forecast) -> str:
    if not forecast.rungs or space.trials.scheduler is None:
        return f"each of {forecast.longest} epochs"
    at = ", ".join(map(str, forecast.rungs))
    factor, epochs = space.trials.scheduler.asha.reduction_factor, forecast.epochs
    return (
        f"at most {forecast.longest} epochs; weak ones stop at {at} (one of {factor} goes on): "
        f"about {epochs.middle:.0f} epochs in all ({epochs.low:.0f} to {epochs.high:.0f})"
    )


def in_words(found: Estimate, devices: DevicePlan) -> str:
    """An estimate with its error."""
    held, seconds = found.device_seconds.times(1 / 3600), found.seconds
    hours = f"about {held.middle:.3g} {devices.unit}-hours ({held.low:.3g} to {held.high:.3g})"
    return f"{hours}, {clock(seconds.middle)} by the clock ({clock(seconds.low)} to {clock(seconds.high)})"


def run_dry(space: Space, prepared: Mapping[str, TaskData], address: str | None, probe: bool) -> int:
    """Say what a sweep would do; returns the exit code. `probe` tries a few steps instead of asking earlier sweeps."""
    return DryRun(space, prepared, probe, Console()).run(address)
