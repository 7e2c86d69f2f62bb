"""Hands a student over: a folder for `transformers` and onnxruntime, in which every form was checked and measured."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from safetensors.numpy import load_file

from stkd.orchestrator.artifacts import RECORD, ArtifactStore
from stkd.orchestrator.cost_book import CostBook
from stkd.orchestrator.evidence import over_examples
from stkd.orchestrator.handed_over import HandedOver, ModelFile
from stkd.orchestrator.model_card import model_card
from stkd.orchestrator.results import Interval, TrialResult
from stkd.orchestrator.runs import FoundTask
from stkd.orchestrator.single import single_student
from stkd.orchestrator.stages import METRICS
from stkd.search_spaces.budgets import Budget
from stkd.search_spaces.reading import space_text
from stkd.trainers.batches import EncodedExamples
from stkd.trainers.costs import Conditions, Cost, Measurement, Saved, processor_name
from stkd.trainers.errors import OnnxError, UserError
from stkd.trainers.form_names import Form
from stkd.trainers.forms import FILES, load_form, logits_of
from stkd.trainers.metrics import evaluate
from stkd.trainers.models import load_saved, load_tokenizer, saved_task
from stkd.trainers.onnx_models import check_packages, quantize_onnx, sample_batches, write_onnx
from stkd.trainers.specs import LABELS, LOGITS, UNITS, VALIDATION
from stkd.trainers.tasks import FITTING_METRICS, Task

CARD, CONFIG, SPACE = "README.md", "config.json", "space.yaml"
PACKAGES = ("stkd", "torch", "transformers", "onnx", "onnxruntime")


def export_student(
    found: FoundTask,
    trial: TrialResult,
    target: Path,
    forms: Sequence[Form],
    required: bool,
    conditions: Conditions | None = None,
) -> HandedOver:
    """Write a trial's student for PyTorch and in ONNX `forms`, each checked on the selection split, and a card.

    Costs are measured under the conditions, or those of the space's budget. Where `required`, ONNX that cannot be had
    is an error; else the card says why it is lacking.

    Raises:
        UserError: something lies at `target` already, it cannot be written, or the student or its data are gone.
        OnnxError: ONNX is required and cannot be had.

    """
    student, space = found.storage.artifacts / trial.student, found.space
    _refuse_occupied(target)
    if not student.is_dir():
        raise UserError(f"the student's folder {student} is gone from the artifacts")
    data = _validation(found)
    with _aside(target) as folder:
        shutil.copytree(student, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(RECORD, METRICS))
        lacking = _write_onnx(folder, forms, space.training.max_length, required)
        written: list[Form] = ["pytorch", *(form for form in forms if (folder / FILES[form]).is_file())]
        conditions = conditions or (space.budget or Budget()).conditions(space.training.max_length)
        costs = _measure(found, folder, written, conditions)
        task = _task(found, trial, folder)
        handed_over = HandedOver(
            student=found.run(trial),
            space=space,
            config=json.loads((folder / CONFIG).read_text(encoding="utf-8")),
            pruned=(folder / UNITS).exists(),
            files=_check(folder, dict(zip(written, costs, strict=False)), data, task),
            teacher=costs[-1],
            conditions=conditions,
            processor=processor_name(conditions.device),
            data=_fingerprint(found),
            versions={name: version(name) for name in PACKAGES if find_spec(name)},
            intervals=_intervals(found, task),
            lacking=lacking,
        )
        alone = single_student(space, found.results.task, trial.values)
        (folder / SPACE).write_text(space_text(alone), encoding="utf-8")
        (folder / CARD).write_text(model_card(handed_over), encoding="utf-8")
    return handed_over


def _refuse_occupied(target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} is already there and not empty; choose another folder")


@contextmanager
def _aside(target: Path) -> Iterator[Path]:
    """A folder beside `target` that takes its name when all is well, and is gone otherwise."""
    aside: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        aside.chmod(0o755)
        yield aside
        aside.rename(target)
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)


def _validation(found: FoundTask) -> EncodedExamples:
    """The split that students are chosen by, in the student's own tokens."""
    stage = "student_data" if found.space.student.init == "pretrained" else "data"
    path = found.storage.artifacts / found.results.stages[stage].artifact / VALIDATION
    if not path.is_file():
        raise UserError(f"{path} is gone from the artifacts, and a student is checked on these data before it leaves")
    return EncodedExamples.load(path)


def _task(found: FoundTask, trial: TrialResult, folder: Path) -> Task:
    """The task, with the metrics that the sweep has measured."""
    task = saved_task(folder, found.results.task)
    return replace(task, metrics=tuple(name for name in FITTING_METRICS[task.kind] if name in trial.metrics))


def _write_onnx(folder: Path, forms: Sequence[Form], longest: int, required: bool) -> str:
    """Add the ONNX forms; where they cannot be had, and need not be, says why."""
    if not forms:
        return ""
    try:
        check_packages()
        model = load_saved(folder)
        batches = sample_batches(model, load_tokenizer(str(folder)), longest)
        write_onnx(model, folder / FILES["onnx"], batches)
        if "onnx-int8" in forms:
            quantize_onnx(folder / FILES["onnx"], folder / FILES["onnx-int8"], model, batches)
    except OnnxError as error:
        if required:
            raise
        return str(error)
    if "onnx" not in forms:
        (folder / FILES["onnx"]).unlink()
    return ""


def _measure(found: FoundTask, folder: Path, forms: Sequence[Form], conditions: Conditions) -> list[Cost]:
    """What each form costs, and as the last what the teacher does in PyTorch, under the same conditions otherwise."""
    teacher = found.storage.artifacts / found.results.stages["teacher"].artifact
    subjects: list[tuple[Path, Form]] = [*((folder, form) for form in forms), (teacher, "pytorch")]
    wanted = []
    for model, form in subjects:
        changes = {"form": form, "device": "cpu" if form.startswith("onnx") else conditions.device}
        subject = Saved(folder=model)
        wanted.append(Measurement(subject=subject, conditions=conditions.model_copy(update=changes)))
    with Console(stderr=True).status("measuring what each form costs"):
        return CostBook(ArtifactStore(found.storage.artifacts)).costs(wanted)


def _check(folder: Path, costs: Mapping[Form, Cost], data: EncodedExamples, task: Task) -> list[ModelFile]:
    """Each form's file with its score on the data, and how far its logits lie there from those of the first form."""
    files: list[ModelFile] = []
    expected: NDArray[np.float32] | None = None
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("checking every form on the selection split", total=len(data) * len(costs))
        for form, cost in costs.items():
            logits = logits_of(load_form(folder, form), data, advance=lambda done: progress.advance(bar, done))
            difference = None if expected is None else float(np.abs(logits - expected).max())
            expected = logits if expected is None else expected
            path, score = folder / FILES[form], evaluate(task, logits, data.labels)["score"]
            files.append(ModelFile(form, path.name, path.stat().st_size / 1e6, score, cost, difference))
    return files


def _intervals(found: FoundTask, task: Task) -> dict[str, Interval]:
    """Of every model that was tested, the interval of its score by the chance of the examples alone."""
    intervals: dict[str, Interval] = {}
    for model, tested in found.results.tests.items():
        path = found.storage.artifacts / tested.artifact / LOGITS
        if path.is_file():
            answers = load_file(path)
            logits, labels = answers["logits"], answers[LABELS]
            intervals[model] = over_examples(logits, labels, lambda *answered: evaluate(task, *answered)["score"])
    return intervals


def _fingerprint(found: FoundTask) -> str:
    """What names the data that the sweep has read."""
    record = found.storage.artifacts / found.results.stages["data"].artifact / RECORD
    return str(json.loads(record.read_text(encoding="utf-8"))["inputs"]["data"])
