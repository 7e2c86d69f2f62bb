"""A sweep's stages up to the scores, and what the scores say; without a sweep's folder, trials or tracking."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from stkd.cluster.cluster import Cluster
from stkd.orchestrator.admission import admit
from stkd.orchestrator.artifacts import ArtifactStore
from stkd.orchestrator.events import Observers
from stkd.orchestrator.heat_maps import draw_heat_maps
from stkd.orchestrator.hosting import stage_host
from stkd.orchestrator.layout import Storage
from stkd.orchestrator.records import Printed, Record, as_csv, as_json
from stkd.orchestrator.score_report import ScoreReport
from stkd.orchestrator.score_tables import print_line, print_scores
from stkd.orchestrator.screen import console_for_people, people_watching
from stkd.orchestrator.session import hide_secrets_of_the_command, quiet_libraries, sigterm_as_ctrl_c
from stkd.orchestrator.stages import Shared, Stages, student_label
from stkd.search_spaces.schema import Space
from stkd.trainers.ranking import UnitScores
from stkd.trainers.sources import TaskData, load_task
from stkd.trainers.specs import SCORES

LOG = "score.log"


@dataclass(frozen=True)
class Scored:
    """The scores of one task's teacher, for one kind of student."""

    task: str
    student: str
    """What tells the student from the sweep's others, as `layers=4`; empty where it is the only one."""
    artifact: Path
    report: ScoreReport
    pictures: Mapping[str, Path]

    @property
    def name(self) -> str:
        """How it is headed."""
        return f"{self.task} ({self.student})" if self.student else self.task

    def as_dict(self) -> dict[str, Any]:
        """The same for machines. Shares are in 0..1."""
        names = {"task": self.task, "student": self.student or None, "artifact": str(self.artifact)}
        return {**names, **asdict(self.report), "pictures": {name: str(path) for name, path in self.pictures.items()}}

    def layer_records(self) -> list[Record]:
        """A row for each layer's heads, and for its neurons."""
        report = self.report
        return [
            {
                "task": self.task,
                "student": self.student,
                "units": units,
                **{name: value for name, value in asdict(layer).items() if name != "removed"},
                "removed": dict(zip((f"s={sparsity:g}" for sparsity in found.sparsities), layer.removed, strict=True)),
            }
            for units, found in (("heads", report.heads), ("neurons", report.neurons))
            for layer in found.layers
        ]


def run_score(
    space: Space,
    prepared: Mapping[str, TaskData],
    address: str | None,
    out: Path,
    then: str,
    printed: Printed | None,
) -> int:
    """Score each task's teacher and print what there is to see; returns the exit code.

    `prepared` holds the data of the tasks that were read already, `address` is that of the cluster to join, `out` takes
    pictures and a log, and `then` is the command to give next.
    """
    console = console_for_people(printed is not None)
    try:
        found = list(_score_tasks(space, prepared, Cluster(address), out, console, printed is None))
    except KeyboardInterrupt:
        print_line(console, "stopped; everything finished is kept, and the same command goes on from there")
        raise
    if printed:
        layers = [record for scored in found for record in scored.layer_records()]
        whole = {"scores": [scored.as_dict() for scored in found], "next": then}
        print(as_json(whole) if printed == "json" else as_csv(layers))
        return 0
    print_line(console, "")
    for place, path in enumerate(path for scored in found for path in scored.pictures.values()):
        print_line(console, f"{'' if place else 'pictures':<9} {path}")
    print_line(console, f"{'artifacts':<9} {Storage(space.storage_folder).artifacts}")
    print_line(console, f"{'next':<9} {then}")
    return 0


def _score_tasks(
    space: Space, prepared: Mapping[str, TaskData], cluster: Cluster, out: Path, console: Console, tables: bool
) -> Iterator[Scored]:
    """One task after another, printed as soon as it is there."""
    hide_secrets_of_the_command()
    with quiet_libraries(out / LOG), cluster, sigterm_as_ctrl_c():
        admit(space, cluster)
        for task in space.tasks:
            data = prepared.get(task) or load_task(task, space.data)
            shared = run_stages(space, data, cluster, console)
            for scored in _read_scores(space, task, shared, out / task):
                if tables:
                    print_scores(console, scored.name, scored.report)
                yield scored


def run_stages(space: Space, data: TaskData, cluster: Cluster, console: Console, cores: int | None = None) -> Shared:
    """A task's stages, shown as they run; on CPUs with so many cores, or all."""
    display = Observers(people_watching(console, space))
    finished = False
    display.task_started(data, resumed=False)
    try:
        with stage_host(space, cluster, display, cores) as host:
            shared = Stages(space, data, ArtifactStore(Storage(space.storage_folder).artifacts), display, host).run()
        finished = True
    finally:
        display.task_ended(finished)
    return shared


def _read_scores(space: Space, task: str, shared: Shared, folder: Path) -> Iterator[Scored]:
    students = space.students()
    for student in students:
        artifact, label = shared.of(student).scores, student_label(student, students).removeprefix("-")
        scores = UnitScores.load(artifact / SCORES)
        report = ScoreReport.of(scores, space.distillation, space.training.seed)
        title = f"{task} ({label})" if label else task
        pictures = draw_heat_maps(scores, space.distillation.interpolation, title, folder / label)
        yield Scored(task, label, artifact, report, pictures)
