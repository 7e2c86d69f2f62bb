"""Picks a student, registers it, and remembers which: what is handed over afterwards is the one that was picked."""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from stkd.orchestrator.artifacts import ArtifactStore, write_json
from stkd.orchestrator.cost_book import CostBook, in_words
from stkd.orchestrator.finding import find_task
from stkd.orchestrator.pick_tables import limits, pick_table, reasons
from stkd.orchestrator.picking import Pick, pick
from stkd.orchestrator.preflight import check_conditions
from stkd.orchestrator.records import Printed, as_csv, as_json
from stkd.orchestrator.runs import FoundTask
from stkd.orchestrator.tables import percent, print_whole
from stkd.orchestrator.tracking import default_uri, registry_of, tracking_uri
from stkd.search_spaces.budgets import Budget, LatencyBudget
from stkd.search_spaces.schema import Space
from stkd.search_spaces.values import without_secrets
from stkd.trainers.costs import Conditions
from stkd.trainers.form_names import Device, Form

if TYPE_CHECKING:
    from stkd.orchestrator.registry import Registered


@dataclass(frozen=True)
class Asked:
    """Limits and conditions as the command line gives them; None takes the space's, or the default."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    parameters: int | None = None
    megabytes: float | None = None
    form: Form | None = None
    batch: int | None = None
    length: int | None = None
    device: Device | None = None
    threads: int | None = None

    def conditions(self, space: Space) -> Conditions:
        """Under which students are measured."""
        known = (space.budget or Budget()).conditions(space.training.max_length)
        names = ("form", "batch", "length", "device", "threads")
        given = {name: value for name in names if (value := asdict(self)[name]) is not None}
        conditions = Conditions.model_validate({**known.model_dump(), **given})
        check_conditions(conditions, "--{}:")
        return conditions

    def budget(self, space: Space, conditions: Conditions) -> Budget:
        """The limits that were given; where none was, the space's."""
        latency = {name: limit for name, limit in (("p50", self.p50), ("p95", self.p95), ("p99", self.p99)) if limit}
        if not latency and self.parameters is None and self.megabytes is None:
            return space.budget or Budget()
        measured = LatencyBudget.model_validate({**conditions.model_dump(), **latency}) if latency else None
        return Budget(latency_ms=measured, parameters=self.parameters, megabytes=self.megabytes)


def run_pick(
    storage: Path, sweep_id: str, task: str | None, asked: Asked, alias: str, again: bool, printed: Printed | None
) -> None:
    """Pick, say why, and register. Raises NothingFitsError where no student keeps the budget."""
    console, found = Console(), find_task(storage, sweep_id, task)
    conditions = asked.conditions(found.space)
    budget, book = asked.budget(found.space, conditions), CostBook(ArtifactStore(found.storage.artifacts))
    with Console(stderr=True).status("measuring what students cost"):
        picked = pick(found, budget, conditions, book, again)
    if printed is None:
        _show(console, found, picked)
    write_json(found.folder.pick, {"trial": picked.chosen.trial.trial, "conditions": conditions.model_dump()})
    registered = _register(found, picked, alias)
    if printed is None:
        _print_rows(console, _next(found, registered))
    elif printed == "json":
        print(as_json(_as_dict(found, picked, registered)))
    else:
        print(as_csv([{**option.as_dict(), "picked": option is picked.chosen} for option in picked.options]))


def _show(console: Console, found: FoundTask, picked: Pick) -> None:
    run = found.run(picked.chosen.trial)
    teacher = (run.teacher_score or 0.0, run.teacher_test_score)
    title = f"{found.results.task}: what students of {found.sweep.sweep_id} are worth, and cost"
    print_whole(console, pick_table(picked, title, teacher))
    _print_rows(console, reasons(picked, found.space))


def _print_rows(console: Console, rows: list[tuple[str, str]]) -> None:
    for name, text in rows:
        console.print(f"{name:<11} {text}", markup=False, highlight=False, soft_wrap=True)


def model_name(experiment: str, task: str) -> str:
    """What a task's student is registered as: such that an address can hold it."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", f"stkd-{experiment}-{task}")


def _register(found: FoundTask, picked: Pick, alias: str) -> "Registered":
    space, chosen, sweep, task = found.space, picked.chosen, found.sweep.sweep_id, found.results.task
    scores = f"score {percent(chosen.score)}, test {percent(chosen.test)}"
    tags = {
        "stkd.sweep": sweep,
        "stkd.task": task,
        "stkd.trial": chosen.trial.trial,
        "stkd.budget": limits(picked.budget),
        "stkd.latency": str(picked.conditions),
    }
    name, key = model_name(space.experiment, task), f"{sweep}/{task}/{chosen.trial.trial}"
    description = f"{chosen.trial.name}, of {sweep}: {scores}; {in_words(chosen.cost)}"
    registry = registry_of(space.tracking.uri, found.storage.root)
    return registry.register(space.experiment, key, name, alias, description, tags)


def _next(found: FoundTask, registered: "Registered") -> list[tuple[str, str]]:
    before = registered.before
    moved = "" if before in (None, registered.version) else f"; before, it was version {before}"
    root, uri = found.storage.root, tracking_uri(found.space.tracking.uri, found.storage.root)
    where = "" if found.space.storage == "./stkd-runs" else f" --storage {root}"
    address = f"MLFLOW_TRACKING_URI={without_secrets(uri)} "
    predict = f"stkd predict{where} --model {registered.uri} --input FILE"
    return [
        ("registered", f"{registered.name} version {registered.version}, alias {registered.alias}{moved}"),
        ("next", f"stkd export{where} my-student"),
        ("", predict if uri == default_uri(root) else address + predict),
        ("", f"{address}mlflow models serve --env-manager local -m {registered.uri}"),
    ]


def _as_dict(found: FoundTask, picked: Pick, registered: "Registered") -> dict[str, Any]:
    return {
        **found.run(picked.chosen.trial).as_dict(),
        "picked": picked.chosen.as_dict(),
        "options": [option.as_dict() for option in picked.options],
        "teacher_cost": picked.teacher.model_dump(),
        "conditions": picked.conditions.model_dump(),
        "budget": picked.budget.model_dump(exclude_none=True),
        "registered": {**asdict(registered), "uri": registered.uri},
    }
