"""A sweep to its first trial: the second one on the same inputs, against the first."""

import csv
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter, sleep

from measuring import Goal, Row, Settings
from places import STKD, workplace
from workloads import teacher_name

from stkd.orchestrator.layout import Storage, SweepFolder
from stkd.orchestrator.results import read_results
from stkd.trainers import generated

PAIRS_TASK = "pairs as MRPC's"
PAIRS = {"train": 3668, "validation": 408}
"""Examples of MRPC, the official splits."""
REMARKS_OF_A_TEXT = 2
"""So that a pair of texts has some fifty tokens, as MRPC's have."""
POLLING_SECONDS = 0.02
ONE_TRIAL = ("trials.count=1", "trials.searcher=grid", "search={temperature: {choice: [2.0]}}")
AS_FOR_GLUE = (
    *("teacher.finetune.max_length=128", "training.max_length=128"),
    *("teacher.finetune.epochs=3", "training.epochs=3"),
)


def rows(settings: Settings) -> Iterator[Row]:
    """A row for the quick start, which is very small, and one for a task of MRPC's size and lengths."""
    for task, repeats in ((PAIRS_TASK, 1),) if settings.quick else (("quick start", 3), (PAIRS_TASK, 1)):
        first, second = [], []
        for _ in range(settings.times(repeats)):
            with workplace() as folder:
                command = _command(settings, folder, task)
                first.append(_to_first_trial(command, folder))
                second.append(_to_first_trial(command, folder))
        what = f"second sweep on the same inputs to its first trial, {task}"
        yield Row("second_sweep", what, "the first sweep", "s", second, first, [Goal("faster", 20)])


def _command(settings: Settings, folder: Path, task: str) -> list[str]:
    """A sweep of one trial."""
    changes = [f"teacher.model={teacher_name(settings, folder / 'base')}", "controls=false", *ONE_TRIAL]
    words = [*STKD, "sweep", "--space", "quickstart", "--storage", str(folder / "runs")]
    if task == PAIRS_TASK:
        words += ["--tasks", "pairs"]
        changes += [f"data={_written_pairs(settings, folder)}", *AS_FOR_GLUE]
    return words + [word for change in changes for word in ("--set", change)]


def _written_pairs(settings: Settings, folder: Path) -> str:
    """The `data` section of a task of pairs, whose files are written into the folder."""
    files = {split: folder / f"{split}.csv" for split in PAIRS}
    for split, count in PAIRS.items():
        _write_pairs(files[split], settings.size(count, 64), seed=split)
    return f"{{source: files, train: {files['train']}, validation: {files['validation']}, text_pair: pair}}"


def _write_pairs(path: Path, count: int, seed: str) -> None:
    """Pairs of texts of some remarks each; the first remark decides the label."""
    source = random.Random(seed)  # noqa: S311 (no secret depends on it)
    remarks = generated.generate(4000, 1, 1)[0]
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["text", "pair", "label"])
        for _ in range(count):
            chosen = source.sample(range(len(remarks)), 2 * REMARKS_OF_A_TEXT)
            texts, label = [remarks.texts[number] for number in chosen], remarks.labels[chosen[0]]
            assert isinstance(label, int), "the generated task has classes"
            text, pair = " ".join(texts[:REMARKS_OF_A_TEXT]), " ".join(texts[REMARKS_OF_A_TEXT:])
            lines.writerow([text, pair, generated.CLASS_NAMES[label]])


def _to_first_trial(command: list[str], folder: Path) -> float:
    """Seconds from a sweep's start to its first trial's; the sweep then runs to its end."""
    storage = Storage(folder / "runs")
    known, screen = set(storage.sweeps.glob("*")), folder / "screen"
    start = perf_counter()
    with screen.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file, cwd=folder) as process:  # noqa: S603
        took = None
        while process.poll() is None:
            if took is None and _began(storage, known):
                took = perf_counter() - start
            sleep(POLLING_SECONDS)
    if took is None or process.returncode:
        raise RuntimeError(f"a sweep ended with {process.returncode}: {screen.read_text()}")
    return took


def _began(storage: Storage, known: set[Path]) -> bool:
    """Whether a trial of a sweep that was not known has begun."""
    new = [path for path in storage.sweeps.glob("*") if path not in known]
    return any(results.trials for sweep in new for results in read_results(SweepFolder(sweep)).values())
