"""A task's study: the settings that were tried and what came of them, and from these the settings to try next."""

import os
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState, create_trial
from typing_extensions import override

from stkd.orchestrator.sampling import Guided, View
from stkd.search_spaces.distributions import Choice, Distribution, LogUniform, QUniform, RandInt, Uniform, Value
from stkd.trainers.patience import patiently

optuna.logging.set_verbosity(optuna.logging.WARNING)

Settings = Mapping[str, Value]
"""A value for each searched key."""
Effective = Callable[[Settings], str]
"""Names what settings come to: equal for settings that lead to the same student."""

NAME = "students"
TRIAL, EFFECTIVE, DUPLICATE_OF, EXHAUSTED = "trial", "effective", "duplicate_of", "exhausted"
GUIDED, RANDOM = 10, 10
"""How often the sampler is asked for settings that are new, and how often chance after it."""
LARGEST_FINITE = 2_000
"""A search with more points than these is taken as endless: its last points are not looked for one by one."""
LOCK_SECONDS = 5
"""After these, the lock of a process that was killed while it wrote a line is taken from it."""


class Study:
    """Says what to try next, and is told what came of it.

    The study lies in one file that `optuna-dashboard` shows: Optuna's journal, which needs neither a server nor the
    file locks that network file systems lack. Every change is one line of it, so that a kill can only fall between two.
    Settings that come to the same as others before are answered from what is known, and are not handed out. Trials that
    run when a study is opened were lost with the process that ran them: they are handed out again, before any other.
    """

    def __init__(self, path: Path, search: Mapping[str, Distribution], seed: int, effective: Effective) -> None:
        self.path = path
        self._search, self._seed, self._effective = search, seed, effective
        self._distributions = {key: distribution_of(searched) for key, searched in search.items()}
        grids = [searched.grid() for searched in search.values()]
        self._grids = [grid for grid in grids if grid is not None]
        self._finite = len(self._grids) == len(grids) and prod(map(len, self._grids)) <= LARGEST_FINITE
        self._keys: dict[tuple[Value, ...], str] = {}

        path.parent.mkdir(parents=True, exist_ok=True)
        _drop_cut_line(path)
        lock = JournalFileSymlinkLock(str(path), grace_period=LOCK_SECONDS)
        self._storage = JournalStorage(WholeLines(str(path), lock))
        self._study = optuna.create_study(
            storage=self._storage, study_name=NAME, direction="maximize", load_if_exists=True
        )
        trials = self._trials()
        self._count = len(trials)
        handed_out = [trial for trial in trials if TRIAL in trial.user_attrs]
        self._known = {trial.user_attrs[EFFECTIVE]: trial.number for trial in reversed(handed_out)}
        self._lost = [trial.number for trial in handed_out if trial.state is TrialState.RUNNING]
        self._handed_out = len(handed_out)
        self._view = View(trials, self._distributions)
        self._running: dict[str, int] = {}
        self._all_known = False

    @property
    def running(self) -> int:
        """How many trials were handed out and have not ended."""
        return len(self._running)

    @property
    def handed_out(self) -> int:
        """How many trials were handed out in all, but for those that were lost."""
        return self._handed_out - len(self._lost)

    @property
    def exhausted(self) -> bool:
        """Whether everything there is to try was tried."""
        return EXHAUSTED in self._study.user_attrs

    def ask(self, trial: str) -> dict[str, Value] | None:
        """Settings for a new trial; None where there is nothing left to try, or nothing that is not running already."""
        if self._lost:
            return self._hand_out_again(trial, self._lost.pop(0))
        settings = None if self._all_known else self._choose()
        if settings is None:
            self._all_known = True  # and stays so: it costs nothing to be asked again
            if not self._running:
                self._study.set_user_attr(EXHAUSTED, True)
            return None
        key, number = self._key(settings), self._count
        self._add(self._record(settings, {TRIAL: trial, EFFECTIVE: key}, TrialState.RUNNING))
        self._handed_out += 1
        self._running[trial] = number
        self._known.setdefault(key, number)
        return dict(settings)

    def report(self, trial: str, epoch: int, score: float) -> None:
        """Take the best score of a trial up to an epoch; nothing is changed of a trial that has ended."""
        number = self._running.get(trial)
        if number is not None:
            self._storage.set_trial_intermediate_value(self._id(number), epoch, score)
            self._view.report(number, epoch, score)

    def complete(self, trial: str, score: float) -> None:
        """A trial has come to its end with this best score."""
        self._end(trial, TrialState.COMPLETE, score)

    def prune(self, trial: str) -> None:
        """A trial was stopped early: it is ranked by how far it came and what it reported last."""
        self._end(trial, TrialState.PRUNED)

    def fail(self, trial: str) -> None:
        """A trial has failed for good. Its settings are not tried again, and no score is made up for them."""
        self._end(trial, TrialState.FAIL)

    def _end(self, trial: str, state: TrialState, score: float | None = None) -> None:
        number = self._running.pop(trial, None)
        if number is not None:
            self._study.tell(number, score, state)
            self._view.tell(number, score, state)

    def _add(self, record: FrozenTrial) -> None:
        self._study.add_trial(record)
        self._view.add(self._count, record)
        self._count += 1

    def _hand_out_again(self, trial: str, number: int) -> dict[str, Value]:
        self._storage.set_trial_user_attr(self._id(number), TRIAL, trial)
        self._running[trial] = number
        return self._clean(self._trials()[number].params)

    def _choose(self) -> Settings | None:
        """New settings; where none are found, None if all are known, else the last ones found, known as they are."""
        number = self._count
        settings: Settings | None = None
        if self._view.is_outgrown(number):
            self._view = View(self._trials(), self._distributions)
        self._view.forget()
        for sampler in self._samplers(number):
            settings = self._clean(self._view.ask(sampler))
            twin = self._known.get(self._key(settings))
            if twin is None:
                return settings
            if self._repeat(settings, self._trials()[twin]):
                self._view.forget(1)
        return self._untried(number) if self._finite else settings

    def _samplers(self, number: int) -> Iterator[BaseSampler]:
        """One an attempt to find settings for a trial, seeded by both: a study resumed goes on as it would have."""
        for attempt in range(GUIDED + (0 if self._finite else RANDOM)):
            seed = int(np.random.SeedSequence((self._seed, number, attempt)).generate_state(1)[0])
            yield Guided(self._distributions, seed) if attempt < GUIDED else RandomSampler(seed)

    def _repeat(self, settings: Settings, known: FrozenTrial) -> bool:
        """Tell the study of settings what is known of their twin; nothing while that runs, or if they were told of."""
        if not known.state.is_finished() or settings in (trial.params for trial in self._trials()):
            return False
        attributes = {EFFECTIVE: self._key(settings), DUPLICATE_OF: known.number}
        self._add(self._record(settings, attributes, known.state, known.value, known.intermediate_values))
        return True

    def _untried(self, number: int) -> Settings | None:
        """One of the points that nothing is known of, by chance."""
        points = list(product(*self._grids))
        order = np.random.default_rng((self._seed, number)).permutation(len(points))
        candidates = (dict(zip(self._search, points[index], strict=True)) for index in order)
        return next((settings for settings in candidates if self._key(settings) not in self._known), None)

    def _record(
        self,
        settings: Settings,
        attributes: Mapping[str, str | int],
        state: TrialState,
        score: float | None = None,
        reports: Mapping[int, float] | None = None,
    ) -> FrozenTrial:
        return create_trial(
            state=state,
            value=score,
            params=dict(settings),
            distributions=self._distributions,
            user_attrs=dict(attributes),
            intermediate_values=dict(reports or {}),
        )

    def _clean(self, settings: Settings) -> dict[str, Value]:
        return {key: self._search[key].clean(settings[key]) for key in self._search}

    def _key(self, settings: Settings) -> str:
        values = tuple(self._clean(settings).values())
        if values not in self._keys:
            self._keys[values] = self._effective(self._clean(settings))
        return self._keys[values]

    def _trials(self) -> list[FrozenTrial]:
        trials: list[FrozenTrial] = self._study.get_trials(deepcopy=False)
        return trials

    def _id(self, number: int) -> int:
        study = self._storage.get_study_id_from_name(NAME)
        return int(self._storage.get_trial_id_from_study_id_trial_number(study, number))


class WholeLines(JournalFileBackend):  # type: ignore[misc]
    """Optuna's journal on storage that may refuse: what was written of a change is taken back and tried again."""

    @override
    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add changes, all of them or none; raises StorageError."""
        path = Path(self._file_path)
        end = path.stat().st_size

        def write() -> None:
            if path.stat().st_size > end:
                os.truncate(path, end)
            super(WholeLines, self).append_logs(logs)

        patiently(write, path.parent)


def distribution_of(searched: Distribution) -> BaseDistribution:
    """What Optuna knows a searched key's values as."""
    match searched:
        case Uniform():
            return FloatDistribution(*searched.uniform)
        case LogUniform():
            return FloatDistribution(*searched.loguniform, log=True)
        case QUniform():
            low, high, step = searched.quniform
            whole = all(isinstance(number, int) for number in searched.quniform)
            return IntDistribution(low, high, step=step) if whole else FloatDistribution(low, high, step=step)
        case RandInt():
            return IntDistribution(*searched.randint)
        case Choice():
            return CategoricalDistribution(searched.choice)


def _drop_cut_line(path: Path) -> None:
    """Cut off the beginning of a line that a power cut left at the end: what is appended to it could not be read."""
    if path.exists():
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            path.write_bytes(whole)
