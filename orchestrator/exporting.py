"""Hands a student over: a folder for `transformers`, with a model card, and where it is wanted as ONNX."""

import json
import shutil
from pathlib import Path

from stkd.orchestrator.artifacts import RECORD
from stkd.orchestrator.best import BestStudent
from stkd.orchestrator.model_card import ONNX, WEIGHTS, HandedOver, ModelFile, model_card
from stkd.search_spaces.reading import read_space
from stkd.trainers.errors import OnnxError, UserError
from stkd.trainers.specs import UNITS

CARD, CONFIG = "README.md", "config.json"


def export_student(student: BestStudent, target: Path, onnx: bool = False) -> HandedOver:
    """Write the student's folder with its card; a pruned student is small only as ONNX, and gets that where it can.

    Raises:
        UserError: something lies at `target` already, it cannot be written, or the student is gone.
        OnnxError: `onnx` was asked for and cannot be had; then `target` stays empty.

    """
    _refuse_occupied(target)
    if not student.folder.is_dir():
        raise UserError(f"the student's folder {student.folder} is gone from the artifacts")
    space, pruned = read_space(student.space), (student.folder / UNITS).exists()
    files: list[ModelFile] = []
    lacking = ""
    try:
        target.mkdir(parents=True, exist_ok=True)
        if onnx or pruned:
            files, lacking = _small_form(student.folder, target / ONNX, space.training.max_length, required=onnx)
        shutil.copytree(student.folder, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(RECORD))
        files.insert(0, ModelFile(WEIGHTS, _megabytes(target / WEIGHTS)))
        config = json.loads((target / CONFIG).read_text(encoding="utf-8"))
        handed_over = HandedOver(student, space, config, pruned, files, lacking)
        (target / CARD).write_text(model_card(handed_over), encoding="utf-8")
    except OSError as error:
        raise UserError(f"--export {target}: cannot be written: {error.strerror}") from error
    return handed_over


def _refuse_occupied(target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"--export {target}: already there and not empty; choose another folder")


def _small_form(student: Path, path: Path, longest: int, required: bool) -> tuple[list[ModelFile], str]:
    """The student as ONNX; where it cannot be had, and need not be, why."""
    try:
        return [_write_onnx(student, path, longest)], ""
    except OnnxError as error:
        if required:
            raise
        return [], str(error)


def _write_onnx(student: Path, path: Path, longest: int) -> ModelFile:
    from stkd.trainers.models import load_saved, load_tokenizer  # loads torch
    from stkd.trainers.onnx_models import check_packages, sample_batches, write_onnx

    check_packages()
    model = load_saved(student)
    difference = write_onnx(model, path, sample_batches(model, load_tokenizer(str(student)), longest))
    return ModelFile(path.name, _megabytes(path), difference)


def _megabytes(path: Path) -> float:
    return path.stat().st_size / 1e6
