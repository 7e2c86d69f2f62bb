"""Finds the student that is meant, and hands it over."""

import json
from pathlib import Path
from typing import Any

import click

from stkd.orchestrator.exporting import export_student
from stkd.orchestrator.finding import best_run, find_task
from stkd.orchestrator.results import TrialResult
from stkd.orchestrator.runs import FoundTask
from stkd.orchestrator.tracking import registry_of
from stkd.trainers.costs import Conditions
from stkd.trainers.errors import UserError
from stkd.trainers.form_names import Form
from stkd.trainers.tasks import did_you_mean

ONNX_FORMS: tuple[Form, ...] = ("onnx", "onnx-int8")


def run_export(
    target: Path, storage: Path, sweep_id: str, task: str | None, model: str | None, forms: tuple[Form, ...]
) -> None:
    """Write a student's folder and say what is in it."""
    found, trial = find_student(storage, sweep_id, task, model)
    wanted = [form for form in ONNX_FORMS if form in forms] if forms else ONNX_FORMS
    target, conditions = target.expanduser().absolute(), _conditions(found, trial)
    handed_over = export_student(found, trial, target, wanted, required=bool(forms), conditions=conditions)
    click.echo(f"{trial.name}, trial {trial.trial} of {found.sweep.sweep_id}, task {found.results.task}")
    for file in handed_over.files:
        away = "" if file.largest_difference is None else f", logits at most {file.largest_difference:.1e} away"
        click.echo(
            f"{target / file.name}: {file.megabytes:.1f} MB, score {100 * file.score:.1f}, "
            f"latency {file.cost.p50:.3g} ms (p95 {file.cost.p95:.3g}){away}"
        )
    click.echo(f"{target / 'README.md'}: its card")
    if handed_over.lacking:
        click.echo(f"without ONNX: {handed_over.lacking}", err=True)


def find_student(storage: Path, sweep_id: str, task: str | None, model: str | None) -> tuple[FoundTask, TrialResult]:
    """The trial that `model` means; without one, the trial that was picked last, else the best.

    Raises:
        UserError: there is none.

    """
    if model is not None and model.startswith("models:"):
        return _registered(storage, model)
    found = find_task(storage, sweep_id, task)
    if model is not None:
        return found, _trial(found, model)
    picked = _picked(found)
    if picked:
        return found, found.results.trials[picked["trial"]]
    return found, best_run(found).trial


def _picked(found: FoundTask) -> dict[str, Any]:
    """What was picked last; empty where nothing was."""
    path = found.folder.pick
    picked: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return picked


def _conditions(found: FoundTask, trial: TrialResult) -> Conditions | None:
    """Those under which the student was picked; None where it was not."""
    picked = _picked(found)
    return Conditions.model_validate(picked["conditions"]) if picked.get("trial") == trial.trial else None


def _trial(found: FoundTask, called: str) -> TrialResult:
    """The trial whose name begins so."""
    students = {name: trial for name, trial in found.results.trials.items() if trial.student}
    matching = [called] if called in students else [name for name in students if name.startswith(called)]
    place = f"{found.sweep.sweep_id}/{found.results.task}"
    if not matching:
        near = did_you_mean(called, students)
        raise UserError(f"--model {called}: {place} has no trial with a student that begins so{near}")
    if len(matching) > 1:
        raise UserError(f"--model {called}: may be {', '.join(matching)}; write more of it")
    return students[matching[0]]


def _registered(storage: Path, model: str) -> tuple[FoundTask, TrialResult]:
    """The trial that a registered model came from, in this storage."""
    tags = registry_of(None, storage.expanduser().absolute()).run_of(model)
    sweep, task, trial = tags["stkd.key"].rsplit("/", 2)
    found = find_task(storage, sweep, task)
    return found, found.results.trials[trial]
