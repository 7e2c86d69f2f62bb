"""What a storage holds, as records: sweeps, tasks of a sweep, trials of a task. Scores are in 0..1."""

from collections import Counter
from collections.abc import Iterable, Iterator
from statistics import fmean

from stkd.orchestrator.activity import Activity
from stkd.orchestrator.evidence import chosen_trial
from stkd.orchestrator.layout import Storage, SweepFolder
from stkd.orchestrator.records import Record, flat
from stkd.orchestrator.results import Status, TaskResults, TrialResult, Values, read_results
from stkd.search_spaces.reading import read_space
from stkd.search_spaces.schema import SEARCHED_SECTIONS, Space, setting_of
from stkd.trainers.errors import UserError

STATUSES: tuple[Status, ...] = ("finished", "stopped", "failed", "running")


def sweep_records(storage: Storage) -> list[Record]:
    """Every sweep of a storage, the newest first."""
    return [sweep_record(sweep) for sweep in reversed(storage.all_sweeps())]


def sweep_record(sweep: SweepFolder) -> Record:
    """A sweep: when it began, what became of it, and the best that it has found.

    Where it has several tasks, `best` and `test` are means over those that have a student, and `student` is empty.
    """
    activity, results, space = Activity.of(sweep), list(read_results(sweep).values()), space_of(sweep)
    tasks = list(space.tasks) if space else [found.task for found in results]
    best = [record for found in results if (record := _best(found))]
    searched = [trial for found in results for trial in found.of_phase("search")]
    return {
        "sweep": sweep.sweep_id,
        "started": sweep.started and sweep.started.isoformat(),
        "seconds": sum(session.seconds for found in results for session in found.sessions.values()),
        "state": activity.state,
        "reason": activity.reason,
        "tasks": tasks,
        "trials": sum(trial.status != "running" for trial in searched),
        "planned": space.trial_count * len(tasks) if space else None,
        "failed": sum(trial.status == "failed" for trial in searched),
        "best": _mean(record["best"] for record in best),
        "test": _mean(record["test"] for record in best),
        "student": best[0]["student"] if len(tasks) == 1 and best else "",
        "trial": best[0]["trial"] if len(tasks) == 1 and best else "",
    }


def task_records(sweep: SweepFolder) -> list[Record]:
    """The tasks of a sweep in the order of its space, also those that have not begun."""
    space, by_task = space_of(sweep), read_results(sweep)
    return [
        _task_record(sweep, by_task.get(task) or TaskResults(task), space)
        for task in (space.tasks if space else by_task)
    ]


def _task_record(sweep: SweepFolder, results: TaskResults, space: Space | None) -> Record:
    counts = Counter(trial.status for trial in results.trials.values())
    teacher = results.stages.get("teacher")
    best = _best(results) or {"best": None, "test": None, "student": "", "trial": ""}
    return {
        "sweep": sweep.sweep_id,
        "task": results.task,
        "stages": len(results.stages),
        "searched": sum(trial.status != "running" for trial in results.of_phase("search")),
        "planned": space.trial_count if space else None,
        **{status: counts[status] for status in STATUSES},
        "teacher": teacher and teacher.metrics.get("score"),
        **best,
        "verdict": results.evidence.verdict if results.evidence else "",
    }


def trial_records(sweep: SweepFolder) -> Iterator[Record]:
    """The trials of a sweep, task by task, in the order in which they began, with their settings by full key."""
    space = space_of(sweep)
    for results in read_results(sweep).values():
        for trial in results.trials.values():
            yield _trial_record(sweep, results, trial, space)


def _trial_record(sweep: SweepFolder, results: TaskResults, trial: TrialResult, space: Space | None) -> Record:
    test = results.tests.get(trial.student)
    return {
        "sweep": sweep.sweep_id,
        "task": results.task,
        "trial": trial.trial,
        "name": trial.name,
        "phase": trial.phase,
        "role": trial.role,
        "status": trial.status,
        "epochs": trial.epochs,
        "seconds": trial.seconds,
        "score": trial.metrics.get("score"),
        "test_score": test and test.score,
        **trial.metrics,
        **settings_of(space, trial.values),
        "student": trial.student,
        "note": trial.note,
        "reason": trial.reason,
    }


def settings_of(space: Space | None, values: Values) -> dict[str, object]:
    """The settings of a trial by their full keys; those drawn for it alone where there is no space."""
    if space is None:
        return {".".join(setting_of(key)): value for key, value in values.items()}
    return flat(space.with_values(values).model_dump(include={*SEARCHED_SECTIONS}))


def space_of(sweep: SweepFolder) -> Space | None:
    """The space of a sweep; None where this version of stkd cannot read it."""
    try:
        return read_space(sweep.space)
    except UserError:
        return None


def _best(results: TaskResults) -> dict[str, float | str | None] | None:
    """The student to take, and its scores; None where there is none."""
    chosen = chosen_trial(results)
    if chosen is None:
        return None
    test = results.tests.get(chosen.student)
    return {"best": chosen.score, "test": test.score if test else None, "student": chosen.name, "trial": chosen.trial}


def _mean(scores: Iterable[object]) -> float | None:
    known = [score for score in scores if isinstance(score, float)]
    return fmean(known) if known else None
