"""Finds tasks and trials of a storage by what people call them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from stkd.orchestrator.curves import run_ids
from stkd.orchestrator.layout import Storage
from stkd.orchestrator.results import read_results
from stkd.orchestrator.runs import FoundTask, Run
from stkd.trainers.errors import UserError
from stkd.trainers.tasks import did_you_mean

BEST = "best"
"""Stands for the student that a task's sweep has chosen."""
SHAPES = f"a trial's id, SWEEP/TASK/TRIAL, an MLflow run id, or `{BEST}`"
SHOWN = 5


def find_task(storage: Path, sweep_id: str, task: str | None) -> FoundTask:
    """A task of a sweep; raises UserError where there is none, or several and none was named."""
    root = Storage(storage.expanduser().absolute())
    sweep = root.find_sweep(sweep_id)
    by_task = read_results(sweep)
    if not by_task:
        raise UserError(f"sweep {sweep.sweep_id} has no results yet")
    if task is None and len(by_task) > 1:
        raise UserError(f"sweep {sweep.sweep_id} has several tasks; choose one with --task: {', '.join(by_task)}")
    name = task or next(iter(by_task))
    if name not in by_task:
        raise UserError(f"sweep {sweep.sweep_id} has no task {name!r}; it has: {', '.join(by_task)}")
    return FoundTask(root, sweep, by_task[name])


def best_run(found: FoundTask) -> Run:
    """The trial whose student is to be taken; raises UserError where there is no student yet."""
    if found.best is None:
        raise UserError(f"sweep {found.sweep.sweep_id} has no student for task {found.results.task} yet")
    return found.best


def find_run(storage: Storage, called: str) -> Run:
    """The trial that is meant; raises UserError where there is none, or several.

    The beginning of a name is enough where only one begins so.
    """
    storage.find_sweep()  # where there is none, it says how to start one
    sweeps = {BEST, "latest", *(sweep.sweep_id for sweep in storage.all_sweeps())}
    if called in sweeps or "/" in called:
        return _by_path(storage, "latest" if called == BEST else called)
    trials, ids = list(_trials(storage)), _mlflow_ids(storage)
    by_id = {run.trial.trial: run for run in trials}
    by_name = {run.name: run for run in trials}
    found = _matching(called, [*by_id, *ids])
    if len(found) == 1:
        key = ids.get(found[0], "")
        run = by_id.get(found[0]) or by_name.get(key)
        if run is None:
            raise UserError(f"run {called} is of {key}, which is no trial; give {SHAPES}")
        return run
    if found:
        names = [by_id[name].name if name in by_id else ids[name] for name in found]
        raise UserError(f"run {called!r} may be {_listed(names)}; write more of it")
    near = did_you_mean(called, by_id)
    raise UserError(f"no run {called!r} in {storage.root}{near}; give {SHAPES}, see `stkd list --trials`")


def _by_path(storage: Storage, path: str) -> Run:
    """From `SWEEP/TASK/TRIAL`; the task may be left out where there is one, and the trial where the best is meant."""
    parts = path.strip("/").split("/")
    if len(parts) > 3:
        raise UserError(f"run {path!r} has {len(parts)} parts; give {SHAPES}")
    sweep = storage.find_sweep(parts[0])
    by_task = read_results(sweep)
    if not by_task:
        raise UserError(f"sweep {sweep.sweep_id} has no results yet")
    if len(parts) == 1 and len(by_task) > 1:
        raise UserError(
            f"sweep {sweep.sweep_id} has several tasks; give {sweep.sweep_id}/TASK/{BEST}: {_listed(by_task)}"
        )
    if len(parts) == 2 and len(by_task) == 1 and not _matching(parts[1], by_task):
        parts.insert(1, next(iter(by_task)))
    task = _one_of("task", parts[1], by_task, sweep.sweep_id) if len(parts) > 1 else next(iter(by_task))
    results = by_task[task]
    asked = parts[2] if len(parts) > 2 else BEST
    if asked == BEST:
        return best_run(FoundTask(storage, sweep, results))
    trial = _one_of("trial", asked, results.trials, f"{sweep.sweep_id}/{task}")
    return Run(storage, sweep, results, results.trials[trial])


def _one_of(kind: str, asked: str, known: Mapping[str, object], place: str) -> str:
    found = _matching(asked, known)
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{kind} {asked!r} of {place} may be {_listed(found)}; write more of it")
    raise UserError(f"{place} has no {kind} {asked!r}{did_you_mean(asked, known)}; it has: {_listed(known)}")


def _matching(asked: str, known: Sequence[str] | Mapping[str, object]) -> list[str]:
    """The name itself, or else all that begin so."""
    return [asked] if asked in known else [name for name in known if asked and name.startswith(asked)]


def _listed(names: Sequence[str] | Mapping[str, object]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(list(names)[:SHOWN]) + more


def _trials(storage: Storage) -> Iterator[Run]:
    for sweep in storage.all_sweeps():
        for results in read_results(sweep).values():
            for trial in results.trials.values():
                yield Run(storage, sweep, results, trial)


def _mlflow_ids(storage: Storage) -> dict[str, str]:
    """The key of each run in MLflow, by its id."""
    return {run_id: key for sweep in storage.all_sweeps() for key, run_id in run_ids(sweep).items()}
