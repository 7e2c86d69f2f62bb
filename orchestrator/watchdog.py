"""Names what is stuck, and ends it; sees to it that nobody waits for storage for ever."""

import logging
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event, Thread
from time import monotonic
from types import TracebackType
from typing import Self

from ray.exceptions import RayError
from typing_extensions import override

from stkd.cluster import hearts
from stkd.cluster.hearts import BEAT_SECONDS, IDLE, Beat
from stkd.orchestrator.events import Observer
from stkd.orchestrator.interruption import is_waiting
from stkd.orchestrator.results import TrialResult
from stkd.trainers.patience import PATIENCE, StorageError

SLOWER = 10.0
"""A step may take so many times what the slowest one took before; then it is named."""
END, END_FIRST = 3.0, 12.0
"""What is named is ended after so many times as long; the first step of something new has more time."""
QUIET_SECONDS = 3 * BEAT_SECONDS
"""A sign of life may come so late, whatever the setting."""
LOOK_SECONDS = 5.0
UNHEARD_SECONDS = 15.0
"""MLflow may be away for so long before anybody is told."""
LOG = logging.getLogger("stkd.watchdog")


@dataclass
class Rank:
    """What is known of a rank: when it last showed a sign of life, and when it last got on, by this clock."""

    beat: Beat
    heard: float
    moved: float
    slowest: float = 0.0
    first: bool = True
    """Whether it has done no step yet of what it does."""

    def hear(self, beat: Beat, now: float) -> None:
        """Take its latest beat."""
        if beat.number == self.beat.number:
            return
        self.heard = now
        if (beat.phase, beat.steps) != (self.beat.phase, self.beat.steps):
            if self.beat.phase != IDLE:
                self.slowest = max(self.slowest, now - self.moved)
            self.first = beat.phase != self.beat.phase
            self.moved = now
        elif beat.problem:
            self.moved = now  # it waits for storage, which is another matter
        self.beat = beat

    def trouble(self, after: float, now: float) -> "Trouble | None":
        """What is wrong with it, where it has been stuck for longer than it may."""
        silent, still = now - self.heard, now - self.moved
        quiet = max(after, QUIET_SECONDS)
        if self.beat.number and silent > quiet:
            return Trouble("shows no sign of life", silent, silent > END * quiet, self.beat)
        limit = max(after, SLOWER * self.slowest)
        if self.beat.phase != IDLE and still > limit:
            patience = END_FIRST if self.first else END
            return Trouble("does not get on", still, still > patience * limit, self.beat)
        return None


@dataclass(frozen=True)
class Trouble:
    """A rank that is stuck."""

    what: str
    seconds: float
    is_over: bool
    """Whether it has had all the time it may have."""
    beat: Beat

    def __str__(self) -> str:
        beat = self.beat
        doing = f"in {beat.phase}" if beat.phase else "idle"
        return f"rank {beat.rank}, process {beat.pid} on {beat.host}, {self.what} for {self.seconds:.0f} s, {doing}"


@dataclass
class Ranks:
    """All ranks that have a heart."""

    after: float
    """Seconds without a sign of life, or without a step, after which a rank is named."""
    known: dict[tuple[str, int], Rank] = field(default_factory=dict)

    def hear(self, beats: Sequence[Beat], now: float) -> None:
        """Take the latest beats of all."""
        for beat in beats:
            rank = self.known.setdefault((beat.gang, beat.rank), Rank(beat, now, now))
            rank.hear(beat, now)
        present = {(beat.gang, beat.rank) for beat in beats}
        self.known = {key: rank for key, rank in self.known.items() if key in present}

    def stuck(self, now: float) -> dict[str, list[Trouble]]:
        """What is wrong, by gang. Where some ranks show no sign of life, the others wait for those."""
        found: dict[str, list[Trouble]] = {}
        for rank in self.known.values():
            trouble = rank.trouble(self.after, now)
            if trouble:
                found.setdefault(rank.beat.gang, []).append(trouble)
        silent = {gang: [each for each in every if each.what.startswith("shows")] for gang, every in found.items()}
        return {gang: silent[gang] or every for gang, every in found.items()}

    def of(self, gang: str) -> list[Beat]:
        """The last beats of a gang's ranks, the first rank last: the others end with it."""
        return sorted((rank.beat for (name, _), rank in self.known.items() if name == gang), key=lambda b: -b.rank)


class Watchdog(Observer):
    """Looks at the ranks of all stages and trials of a task now and then, from a thread of its own.

    Who has been stuck for `after` seconds is told to `tell`; who stays so is killed, and the sweep tries that again as
    after any loss. Where storage refuses writes for longer than `patience`, the sweep is stopped as by Ctrl-C.
    """

    def __init__(
        self,
        after: float,
        patience: float,
        tell: Callable[[str], None],
        tracking: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`tracking` says why MLflow cannot be told anything at the moment, or None."""
        self.reasons: dict[str, str] = {}
        """Why processes were ended, by trial; "" is the stage."""
        self._ranks, self._patience, self._tell = Ranks(after), patience, tell
        self._names: dict[str, str] = {"": "stage"}
        self._told: set[str] = set()
        self._problem, self._problem_since, self._gave_up = "", 0.0, False
        self._tracking, self._unheard_since, self._told_tracking = tracking, float("inf"), False
        self._over = Event()
        self._thread = Thread(target=self._run, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        PATIENCE.seconds = self._patience
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def check_storage(self) -> None:
        """Raises StorageError where the sweep was stopped because of it."""
        if self._gave_up:
            raise StorageError(self._problem)

    @override
    def stage_started(self, stage: str) -> None:
        self._names[""] = f"stage {stage.replace('_', ' ')}"

    @override
    def testing_started(self) -> None:
        self._names[""] = "the test"

    @override
    def trial_started(self, trial: TrialResult) -> None:
        self._names[trial.trial] = f"trial {trial.trial} ({trial.name})"

    @override
    def trial_ended(self, trial: TrialResult) -> None:
        self.reasons.pop(trial.trial, None)

    def _run(self) -> None:
        while not self._over.wait(min(LOOK_SECONDS, self._ranks.after / 4, self._patience / 4)):
            try:
                self._look(monotonic())
            except (RayError, RuntimeError, ConnectionError):  # the head is away; the sweep itself will hear of it
                LOG.warning("the watchdog sees nothing", exc_info=True)

    def _look(self, now: float) -> None:
        self._look_at_tracking(self._tracking(), now)
        beats = hearts.beats()
        beats += hearts.unborn(beats)
        self._look_at_storage([PATIENCE.problem, *_problems(beats)], now)
        self._ranks.hear(beats, now)
        stuck = self._ranks.stuck(now)
        if stuck:
            stuck = self._without_the_dead(stuck)
        for gang, troubles in stuck.items():
            self._deal_with(gang, troubles)
        for gang in self._told - set(stuck):
            self._told.remove(gang)

    def _without_the_dead(self, stuck: Mapping[str, list[Trouble]]) -> dict[str, list[Trouble]]:
        """Who is no more is not stuck; what it left is taken away."""
        living = hearts.living_processes()
        found: dict[str, list[Trouble]] = {}
        for gang, troubles in stuck.items():
            for trouble in troubles:
                if (trouble.beat.node, trouble.beat.pid) in living:
                    found.setdefault(gang, []).append(trouble)
                else:
                    hearts.forget(trouble.beat)
        return found

    def _deal_with(self, gang: str, troubles: Sequence[Trouble]) -> None:
        first = next((beat.name for beat in self._ranks.of(gang) if not beat.rank), "")
        reason = f"stuck: {'; '.join(map(str, troubles))}"
        name = self._names.get(first, f"trial {first}")
        if gang not in self._told:
            self._told.add(gang)
            self._say(f"{name} is {reason}")
        if any(trouble.is_over for trouble in troubles):
            self.reasons[first] = reason
            self._say(f"{name} is ended: {reason}")
            for beat in self._ranks.of(gang):
                problem = hearts.end_process(beat)
                if problem:
                    self._say(f"{name}: process {beat.pid} on {beat.host} cannot be ended: {problem}")
                else:
                    hearts.forget(beat)

    def _look_at_storage(self, problems: Sequence[str], now: float) -> None:
        problem = next((each for each in problems if each), "")
        if problem and not self._problem:
            self._problem_since = now
            self._say(f"storage refuses writes: {problem}; it is tried again for {self._patience:.0f} s")
        elif self._problem and not problem and not self._gave_up:
            self._say("storage takes writes again")
        if self._gave_up:
            if is_waiting():  # for trials that wait for storage: as Ctrl-C for the second time
                os.kill(os.getpid(), signal.SIGTERM)
            return
        self._problem = problem
        if problem and now - self._problem_since > self._patience:
            self._gave_up, PATIENCE.seconds = True, 0.0
            os.kill(os.getpid(), signal.SIGTERM)  # which stops as Ctrl-C does, also where that is not listened to

    def _look_at_tracking(self, problem: str | None, now: float) -> None:
        if problem is None:
            if self._told_tracking:
                self._say("MLflow answers again")
            self._unheard_since, self._told_tracking = float("inf"), False
            return
        self._unheard_since = min(self._unheard_since, now)
        if now - self._unheard_since >= UNHEARD_SECONDS and not self._told_tracking:
            self._told_tracking = True
            self._say(f"MLflow does not answer ({problem}); the sweep goes on, and tells it later")

    def _say(self, text: str) -> None:
        LOG.warning(text)
        self._tell(text)


def _problems(beats: Sequence[Beat]) -> list[str]:
    """What ranks wait for; one that ended as soon as it was served has left word that it waits."""
    waiting = [beat for beat in beats if beat.problem]
    living = hearts.living_processes() if waiting else set()
    return [beat.problem for beat in waiting if (beat.node, beat.pid) in living]
