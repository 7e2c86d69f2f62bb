"""Where everything of a storage folder lies."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from stkd.trainers.errors import UserError
from stkd.trainers.tasks import did_you_mean


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

    def new_sweep(self, name: str) -> SweepFolder:
        """A fresh folder for a sweep that starts now."""
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        for suffix in ("", *(f"-{number}" for number in range(2, 100))):
            folder = SweepFolder(self.sweeps / f"{name}-{stamp}{suffix}")
            try:
                folder.root.mkdir(parents=True)
            except FileExistsError:
                continue
            return folder
        raise FileExistsError(f"{self.sweeps}: 99 sweeps named {name} started within one second")

    def find_sweep(self, sweep_id: str = "latest") -> SweepFolder:
        """The sweep of that name, or the newest one; raises UserError where there is none."""
        known = sorted((path.parent for path in self.sweeps.glob("*/space.yaml")), key=lambda path: _age(path))
        if not known:
            raise UserError(f"no sweep in {self.root}; start one with `stkd sweep --space ...`, or name its --storage")
        if sweep_id == "latest":
            return SweepFolder(known[-1])
        names = [path.name for path in known]
        if sweep_id not in names:
            shown = ", ".join(reversed(names[-5:]))
            near = did_you_mean(sweep_id, names)
            raise UserError(f"no sweep {sweep_id!r} in {self.root}{near}; the newest are: {shown}")
        return SweepFolder(self.sweeps / sweep_id)


def _age(sweep: Path) -> tuple[str, int]:
    """Sweeps in the order in which they started, by the stamp in their names."""
    match = re.search(r"(\d{8}-\d{6})(?:-(\d+))?$", sweep.name)
    return (match[1], int(match[2] or 1)) if match else ("", 0)
