"""What all benches share: sides measured in turns, ratios with their spread, and one table, printed and filed."""

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from math import sqrt
from pathlib import Path
from statistics import fmean, median, variance
from time import perf_counter
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("torch", "transformers", "deepspeed", "ray", "mlflow", "optuna", "numpy", "stkd")
HEADINGS = ("bench", "what", "against", "ours", "theirs", "ratio", "to reach", "reached")
WIDTH = 170
ON_CPU = {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
"""The environment of a bench for which a GPU of the machine is not there, set before anything looks for one."""


@dataclass(frozen=True)
class Settings:
    """How a bench is run: at full size, or so small that its numbers say nothing and only show that it runs."""

    quick: bool = False
    repeats: int | None = None

    def times(self, full: int) -> int:
        """How often each side is measured: as asked, or `full` times; when quick, once."""
        return self.repeats or (1 if self.quick else full)

    def size(self, full: int, quick: int) -> int:
        """The size of something in a full and in a quick run."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Goal:
    """What a row is to reach.

    `faster`: theirs by ours is so much or more. `costs`: ours by theirs is so much or less. `under`: ours itself is
    less, in the row's unit. `noise`: the means differ by no more than twice the standard error of their difference,
    which the spreads of both sides over their seeds make.
    """

    kind: Literal["faster", "costs", "under", "noise"]
    limit: float = 0.0

    def text(self, unit: str) -> str:
        """The goal as one reads it."""
        texts = {
            "faster": f"{self.limit:g}x as fast or more",
            "costs": f"{self.limit:g}x or less",
            "under": f"under {self.limit:g} {unit}",
            "noise": "within seed noise",
        }
        return texts[self.kind]


@dataclass(frozen=True)
class Row:
    """One thing measured against another, less being better; the sides' numbers belong together pair by pair."""

    bench: str
    what: str
    against: str
    unit: str
    ours: Sequence[float]
    theirs: Sequence[float]
    goals: Sequence[Goal] = ()
    of_speed: bool = False
    """Whether the ratio says how many times faster ours is, also where no goal does."""

    @property
    def ratios(self) -> list[float]:
        """Of each pair: how many times faster ours is where that is asked, else how much it is of theirs."""
        of_speed = self.of_speed or any(goal.kind == "faster" for goal in self.goals)
        pairs = list(zip(self.ours, self.theirs, strict=True))
        return [theirs / ours if of_speed else ours / theirs for ours, theirs in pairs]

    @property
    def reached(self) -> bool | None:
        """Whether the medians reach every goal; None where there is none, or where one cannot be told."""
        found = [self._reaches(goal) for goal in self.goals]
        return None if not found or None in found else all(found)

    def _reaches(self, goal: Goal) -> bool | None:
        match goal.kind:
            case "faster":
                return median(self.ratios) >= goal.limit
            case "costs":
                return median(self.ratios) <= goal.limit
            case "under":
                return median(self.ours) < goal.limit
            case "noise":
                if len(self.theirs) < 2:
                    return None
                error = sqrt((variance(self.ours) + variance(self.theirs)) / len(self.theirs))
                return abs(fmean(self.ours) - fmean(self.theirs)) <= 2 * error

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as it is printed, one text for each of HEADINGS: medians, and of the ratio the extremes, too."""
        ratio = f"{median(self.ratios):.3g}x"
        if len(self.ratios) > 1:
            ratio += f" ({min(self.ratios):.3g} to {max(self.ratios):.3g})"
        reached = {True: "yes", False: "NO", None: ""}[self.reached]
        goals = "; ".join(goal.text(self.unit) for goal in self.goals)
        ours, theirs = (f"{median(side):.4g} {self.unit}".strip() for side in (self.ours, self.theirs))
        return self.bench, self.what, self.against, ours, theirs, ratio, goals, reached

    def record(self) -> dict[str, Any]:
        """The row for machines, with every single number."""
        goals = [goal.text(self.unit) for goal in self.goals]
        return {**vars(self), "goals": goals, "ratio": median(self.ratios), "reached": self.reached}


def in_turns(sides: Mapping[str, Callable[[], float]], repeats: int, warm_up: bool = True) -> dict[str, list[float]]:
    """Measure every side in each of `repeats` rounds, A B A B ...; a round before them warms up and is left out."""
    measured: dict[str, list[float]] = {name: [] for name in sides}
    if warm_up:
        for measure in sides.values():
            measure()
    for _ in range(repeats):
        for name, measure in sides.items():
            measured[name].append(measure())
    return measured


def seconds(action: Callable[[], object]) -> float:
    """How long an action takes."""
    start = perf_counter()
    action()
    return perf_counter() - start


def resident_megabytes(pid: int) -> float:
    """Memory of a process that lies in RAM now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def environment() -> dict[str, Any]:
    """When, on what, and with what a bench runs."""
    processor = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "processor": processor[0] if processor else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "gpus": _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines(),
        "load": os.getloadavg()[0],
        "threads": os.environ.get("OMP_NUM_THREADS", "as torch chooses"),
        "system": platform.platform(),
        "versions": {"python": platform.python_version(), **_versions()},
    }


def _versions() -> dict[str, str]:
    found = {}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "not installed"
    return found


def _commit() -> str:
    changed = _output("git", "status", "--porcelain", "--untracked-files=no")
    return (_output("git", "rev-parse", "--short=12", "HEAD") or "unknown") + (" and changes" if changed else "")


def _output(program: str, *arguments: str) -> str:
    """What a program prints; nothing where it is missing or fails."""
    path = shutil.which(program)
    if path is None:
        return ""
    done = subprocess.run([path, *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.strip() if done.returncode == 0 else ""


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """One table on the screen."""
    table = Table(*headings, width=WIDTH)
    for row in rows:
        table.add_row(*row)
    Console(width=WIDTH).print(table)


def file_table(
    folder: Path, name: str, headings: Sequence[str], rows: Sequence[Sequence[str]], content: Mapping[str, Any]
) -> Path:
    """Write a table as Markdown and `content`, which holds the `environment`, as JSON; returns the Markdown's path."""
    folder.mkdir(parents=True, exist_ok=True)
    around = content["environment"]
    stamp = f"{name}-{around['date'][:19].replace(':', '').replace('-', '').replace('T', '-')}"
    (folder / f"{stamp}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    lines = [f"# {name}, {around['date']}", "", _markdown_row(headings), _markdown_row(["---"] * len(headings))]
    lines += [_markdown_row(row) for row in rows]
    lines += ["", *(f"- {name}: {_plain(value)}" for name, value in around.items() if name != "date"), ""]
    page = folder / f"{stamp}.md"
    page.write_text("\n".join(lines), encoding="utf-8")
    return page


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
