"""How stages and trials went, epoch by epoch, and what was told of a task at its beginning: from a sweep's journal."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from stkd.orchestrator.layout import SweepFolder

Curve = Mapping[int, Mapping[str, float]]
"""An epoch's metrics by its number, from 1."""


def read_curves(sweep: SweepFolder, task: str) -> dict[str, Curve]:
    """The curve of every stage and trial of a task that has trained, by name. What was trained again counts once."""
    curves: dict[str, dict[int, Mapping[str, float]]] = {}
    beginning = f"{sweep.sweep_id}/{task}/"
    for event in _events(sweep, "measured"):
        if event["key"].startswith(beginning) and "epoch" in event["metrics"]:
            curve = curves.setdefault(event["key"].removeprefix(beginning), {})
            curve[event["step"]] = {**curve.get(event["step"], {}), **event["metrics"]}
    return dict(curves)


def read_parameters(sweep: SweepFolder, task: str) -> dict[str, str]:
    """What MLflow was told of a task as it began: sizes of its splits, what they share, all settings."""
    key = f"{sweep.sweep_id}/{task}"
    return next((dict(event["params"]) for event in _events(sweep, "run_started") if event["key"] == key), {})


def _events(sweep: SweepFolder, kind: str) -> Iterator[dict[str, Any]]:
    """Whole lines of the journal that tell of this kind of event."""
    if not sweep.journal.is_file():
        return
    mark = f'"kind":"{kind}"'
    with sweep.journal.open(encoding="utf-8") as file:
        for line in file:
            if mark in line and line.endswith("\n"):
                yield json.loads(line)


def run_ids(sweep: SweepFolder) -> dict[str, str]:
    """MLflow's id of each run that it knows of, by key: `SWEEP/TASK`, or `SWEEP/TASK/` and a stage or trial."""
    state = sweep.journal.with_suffix(".state.json")
    found: dict[str, str] = json.loads(state.read_text(encoding="utf-8"))["run_ids"] if state.is_file() else {}
    return found
