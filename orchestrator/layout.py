"""Where everything of a storage folder lies."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from stkd.trainers.errors import UserError
from stkd.trainers.tasks import did_you_mean

STAMP = re.compile(r"(\d{8}-\d{6})(?:-(\d+))?$")
"""Ends a sweep's name: when it started, and which it was of several in one second."""


@dataclass(frozen=True)
class TaskFolder:
    """The files of one task of one sweep."""

    root: Path

    @property
    def tune(self) -> Path:
        """Ray Tune's own state."""
        return self.root / "tune"

    @property
    def results(self) -> Path:
        """One line for each stage and trial as it ends; see `stkd.orchestrator.results`."""
        return self.root / "results.jsonl"

    @property
    def study(self) -> Path:
        """Optuna's study; see `stkd.orchestrator.study`."""
        return self.root / "study.jsonl"

    @property
    def pick(self) -> Path:
        """Which student was picked last, and under which conditions; see `stkd.orchestrator.picks`."""
        return self.root / "pick.json"

    def heat_maps(self, stage: str) -> Path:
        """Pictures of the scores that a stage measured; MLflow gets copies."""
        return self.root / "heat-maps" / stage

    def checkpoints(self, trial: str) -> Path:
        """A trial's checkpoints, for as long as it runs."""
        return self.all_checkpoints / trial

    @property
    def all_checkpoints(self) -> Path:
        """The checkpoints of every trial."""
        return self.root / "checkpoints"


@dataclass(frozen=True)
class SweepFolder:
    """The files of one sweep."""

    root: Path

    @property
    def sweep_id(self) -> str:
        """The sweep's name, unique in its storage."""
        return self.root.name

    @property
    def started(self) -> datetime | None:
        """When it was begun, in UTC, by the stamp in its name; None where somebody gave it another one."""
        found = STAMP.search(self.sweep_id)
        return datetime.strptime(f"{found[1]}+0000", "%Y%m%d-%H%M%S%z") if found else None

    @property
    def space(self) -> Path:
        """The space as it was run, with everything that was overridden."""
        return self.root / "space.yaml"

    @property
    def budget(self) -> Path:
        """What was found of untrained students' costs before the sweep; only where it has a budget."""
        return self.root / "budget.txt"

    @property
    def journal(self) -> Path:
        """What MLflow is told, as it was told."""
        return self.root / "journal.jsonl"

    @property
    def log(self) -> Path:
        """What Ray and the libraries had to say."""
        return self.root / "sweep.log"

    @property
    def report(self) -> Path:
        """The page that tells of the sweep; MLflow gets copies."""
        return self.root / "report.html"

    @property
    def claim(self) -> Path:
        """Held by the process that runs the sweep, see `stkd.orchestrator.claims`."""
        return self.root / ".claim"

    @property
    def ending(self) -> Path:
        """How the sweep ended, see `stkd.orchestrator.activity`."""
        return self.root / "ending.json"

    def task(self, name: str) -> TaskFolder:
        """The files of one task."""
        return TaskFolder(self.root / name)

    def tasks(self) -> list[str]:
        """Names of the tasks that have begun."""
        return sorted(path.parent.name for path in self.root.glob("*/results.jsonl"))


@dataclass(frozen=True)
class Storage:
    """A storage folder: artifacts shared by all sweeps, the sweeps, and the MLflow store."""

    root: Path

    @property
    def artifacts(self) -> Path:
        """Finished stages of all sweeps."""
        return self.root / "artifacts"

    @property
    def sweeps(self) -> Path:
        """One folder a sweep."""
        return self.root / "sweeps"

    def new_sweep(self, name: str, sweep_id: str | None = None) -> SweepFolder:
        """A fresh folder for a sweep that starts now, or has this id from elsewhere."""
        if sweep_id is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", sweep_id):
            raise UserError(f"--sweep-id {sweep_id!r}: must be letters, digits, '.', '_' or '-'")
        sweep_id = sweep_id or f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
        for suffix in ("", *(f"-{number}" for number in range(2, 100))):
            folder = SweepFolder(self.sweeps / f"{sweep_id}{suffix}")
            try:
                folder.root.mkdir(parents=True)
            except FileExistsError:
                continue
            return folder
        raise FileExistsError(f"{self.sweeps}: 99 sweeps named {name} started within one second")

    def all_sweeps(self) -> list[SweepFolder]:
        """Every sweep, in the order in which they started."""
        found = [SweepFolder(path.parent) for path in self.sweeps.glob("*/space.yaml")]
        return sorted(found, key=lambda sweep: _age(sweep.sweep_id))

    def find_sweep(self, sweep_id: str = "latest") -> SweepFolder:
        """The sweep of that name, or of the only name that begins so, or the newest one; raises UserError."""
        known = self.all_sweeps()
        if not known:
            raise UserError(f"no sweep in {self.root}; start one with `stkd sweep --space ...`, or name its --storage")
        if sweep_id == "latest":
            return known[-1]
        names = [sweep.sweep_id for sweep in known]
        beginning = [name for name in names if name.startswith(sweep_id)]
        if sweep_id not in names and len(beginning) != 1:
            shown = ", ".join(reversed((beginning or names)[-5:]))
            if beginning:
                raise UserError(f"{len(beginning)} sweeps in {self.root} begin with {sweep_id!r}, the newest: {shown}")
            near = did_you_mean(sweep_id, names)
            raise UserError(f"no sweep {sweep_id!r} in {self.root}{near}; the newest are: {shown}")
        return SweepFolder(self.sweeps / (sweep_id if sweep_id in names else beginning[0]))


def _age(sweep_id: str) -> tuple[str, int]:
    """Sweeps in the order in which they started, by the stamp in their names."""
    match = STAMP.search(sweep_id)
    return (match[1], int(match[2] or 1)) if match else ("", 0)
