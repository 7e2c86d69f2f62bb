"""Which trial comes next: phase after phase, none twice, and from where it was after an interruption."""

from pathlib import Path
from typing import Any

import pytest
from sweeping import write_space

from stkd.orchestrator.agenda import Agenda
from stkd.orchestrator.phases import GOES_ON_WITH, drawn, name_of, phase_of, role_of, values_of
from stkd.orchestrator.results import Phase, Status, TaskResults, TrialResult
from stkd.orchestrator.searching import AgendaSearcher, SearchOnly, learning, scheduler
from stkd.orchestrator.study import Study
from stkd.search_spaces.reading import read_space
from stkd.search_spaces.schema import Space

SEARCH = {"interpolation": {"choice": [0.0, 1.0]}, "sparsity": {"choice": [0.0, 0.5]}}


class Sweep:
    """A task whose trials end as soon as they are told to."""

    def __init__(self, space: Space, folder: Path, results: TaskResults | None = None) -> None:
        self.space, self.results = space, results or TaskResults("tiny")
        self.announced: list[tuple[Phase, int]] = []
        self.configs: dict[str, dict[str, Any]] = {}
        study = Study(folder / "study.jsonl", space.search, 0, repr) if learning(space) else None
        self.agenda = Agenda(space, study, lambda: self.results, lambda *phase: self.announced.append(phase))
        self.searcher = AgendaSearcher(self.agenda, concurrent=lambda: 2)

    def begin(self) -> str | None:
        """Start the next trial, if there is one."""
        name = f"trial-{len(self.configs)}"
        config = self.searcher.suggest(name)
        if not isinstance(config, dict):
            return None
        self.configs[name] = config
        self.keep(name, "running")
        return name

    def keep(self, name: str, status: Status) -> None:
        config, values = self.configs[name], values_of(self.configs[name], self.space)
        metrics = {"score": 0.5 + 0.01 * len(self.results.trials)}
        called = name_of(name, config)
        self.results.trials[called] = TrialResult(
            called, values, status, phase_of(config), role_of(config), metrics=metrics, student=f"student-{called}"
        )

    def end(self, name: str, status: Status = "finished") -> None:
        self.keep(name, status)
        result = {"finished": status == "finished", "failure": "", "training_iteration": 2, "best_score": 0.5}
        self.searcher.on_trial_complete(name, result)

    def run(self) -> None:
        while (name := self.begin()) is not None:
            self.end(name)


@pytest.fixture(params=["optuna", "grid", "random"])
def space(request: pytest.FixtureRequest, tmp_path: Path) -> Space:
    trials = {"count": 4, "searcher": request.param}
    return read_space(write_space(tmp_path, search=SEARCH, trials=trials, confirm={"top": 1, "seeds": 2}))


def test_phases_follow_one_another(space: Space, tmp_path: Path) -> None:
    sweep = Sweep(space, tmp_path)
    sweep.run()
    assert sweep.searcher.suggest("another") == "FINISHED"
    assert [phase for phase, _ in sweep.announced] == ["search", "control", "confirm"]
    for phase, count in sweep.announced:
        assert len(sweep.results.of_phase(phase)) == count
    assert sweep.agenda.is_over
    assert sweep.agenda.is_complete()


def test_a_phase_waits_for_the_one_before(space: Space, tmp_path: Path) -> None:
    sweep = Sweep(space, tmp_path)
    names = [sweep.begin() for _ in range(2)]
    assert sweep.begin() is None  # two at a time
    for _ in range(2):
        ended = names.pop(0)
        assert ended
        sweep.end(ended)
        names.append(sweep.begin())
    assert len(sweep.results.of_phase("search")) == 4
    last, other = names
    assert last
    assert other
    sweep.end(last)
    assert sweep.begin() is None  # what the controls are depends on the last one
    assert not sweep.agenda.is_over
    sweep.end(other)
    begun = sweep.begin()
    assert begun
    assert phase_of(sweep.configs[begun]) == "control"


@pytest.mark.parametrize("ended", [1, 3, 5, 8])
def test_after_an_interruption_nothing_is_done_twice_or_left_out(space: Space, tmp_path: Path, ended: int) -> None:
    undisturbed = Sweep(space, tmp_path / "undisturbed")
    undisturbed.run()
    sweep = Sweep(space, tmp_path)
    for _ in range(ended):
        name = sweep.begin()
        assert name
        sweep.end(name)
    lost = {sweep.begin(), sweep.begin()} - {None}
    assert lost
    resumed = Sweep(space, tmp_path, sweep.results)
    resumed.configs = sweep.configs
    resumed.run()
    assert gone_on(resumed) == lost
    assert resumed.agenda.is_complete()
    assert {trial.status for trial in resumed.results.trials.values()} == {"finished"}

    def done(results: TaskResults) -> list[str]:
        return sorted(trial.phase for trial in results.trials.values() if trial.status == "finished")

    assert done(resumed.results) == done(undisturbed.results)


def gone_on(sweep: Sweep) -> set[str]:
    return {config[GOES_ON_WITH] for config in sweep.configs.values() if GOES_ON_WITH in config}


def test_what_the_study_knew_to_have_ended_and_the_results_did_not_goes_on(tmp_path: Path) -> None:
    space = read_space(write_space(tmp_path, search=SEARCH, trials={"count": 2, "searcher": "optuna"}))
    sweep = Sweep(space, tmp_path)
    first, second = sweep.begin(), sweep.begin()
    assert first
    assert second
    sweep.end(first)
    sweep.end(second)
    sweep.keep(second, "running")  # its last line was not written
    resumed = Sweep(space, tmp_path, sweep.results)
    resumed.configs = sweep.configs
    assert not resumed.agenda.is_complete()
    resumed.run()
    assert gone_on(resumed) == {second}
    assert [trial.status for trial in resumed.results.of_phase("search")] == ["finished", "finished"]
    assert resumed.agenda.is_complete()


def test_a_finished_task_is_complete_without_a_searcher(space: Space, tmp_path: Path) -> None:
    sweep = Sweep(space, tmp_path)
    sweep.run()
    assert Sweep(space, tmp_path, sweep.results).agenda.is_complete()
    sweep.results.trials.popitem()
    assert not Sweep(space, tmp_path, sweep.results).agenda.is_complete()


def test_a_grid_is_all_its_points_and_chance_is_seeded(tmp_path: Path) -> None:
    grid = read_space(write_space(tmp_path, search=SEARCH, trials={"searcher": "grid"}))
    assert [tuple(trial.values.values()) for trial in drawn(grid)] == [(0.0, 0.0), (0.0, 0.5), (1.0, 0.0), (1.0, 0.5)]
    endless = {
        "interpolation": {"uniform": [0.0, 1.0]},
        "sparsity": {"quniform": [0.0, 0.9, 0.1]},
        "temperature": {"loguniform": [1.0, 8.0]},
        "student.layers": {"randint": [1, 2]},
        "training.batch_size": {"choice": [8, 16]},
    }
    random = read_space(write_space(tmp_path, search=endless, trials={"searcher": "random", "count": 30}))
    first = drawn(random)
    assert first == drawn(random)
    assert len({str(trial.values) for trial in first}) == 30
    for trial in first:
        assert {key: random.search[key].clean(value) for key, value in trial.values.items()} == trial.values
        random.with_values(trial.values)


class TuneTrial:
    def __init__(self, trial_id: str, config: dict[str, Any]) -> None:
        self.trial_id, self.config = trial_id, config


def test_early_stopping_remembers_what_had_ended_before_an_interruption(space: Space) -> None:
    def at(trial: str, epochs: int, score: float, status: Status = "running", phase: Phase = "search") -> TrialResult:
        return TrialResult(trial, {}, status, phase, epochs=epochs, metrics={"best_score": score} if epochs else {})

    course = [
        at("a", 0, 0.0),
        at("a", 1, 0.7),
        at("b", 1, 0.8),
        at("a", 1, 0.7, "stopped"),
        at("b", 2, 0.9, "finished"),
    ]
    course += [at("c", 1, 0.1, "finished", phase="control"), at("d", 1, 0.1)]
    report = {"training_iteration": 1, "best_score": 0.75}
    decisions = []
    for before in ([], course, course[-2:]):
        asha, trial = scheduler(space, before), TuneTrial("goes on with d", {})
        asha.on_trial_add(None, trial)
        decisions.append(asha.on_trial_result(None, trial, report))
    assert decisions == ["CONTINUE", "STOP", "CONTINUE"]


def test_only_trials_of_the_search_are_stopped_early(space: Space) -> None:
    asha = scheduler(space)
    assert isinstance(asha, SearchOnly)
    control = {"planned": {"phase": "control", "role": "no teacher", "values": {}}}
    trials = [TuneTrial(str(number), {} if number < 4 else control) for number in range(8)]
    decisions = []
    for number, trial in enumerate(trials):
        asha.on_trial_add(None, trial)
        report = {"training_iteration": 1, "best_score": 0.9 - 0.1 * number}
        decisions.append(asha.on_trial_result(None, trial, report))
        asha.on_trial_complete(None, trial, report)
    assert "STOP" in decisions[:4]
    assert decisions[4:] == ["CONTINUE"] * 4
