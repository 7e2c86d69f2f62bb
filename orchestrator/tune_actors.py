"""Processes that Ray's memory monitor ends: a failure of one trial, not of Ray Tune as a whole.

Ray tells of them by an `OutOfMemoryError`, which Tune's actor manager (Ray 2.60) takes for an error of its own.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from ray.air.execution._internal import RayActorManager
from ray.air.execution._internal.tracked_actor_task import TrackedActorTask
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.execution import tune_controller
from typing_extensions import override


class TrialActors(RayActorManager):  # type: ignore[misc]
    """Tune's, for which a process that was ended for its memory is lost like any other."""

    @override
    def _actor_task_failed(self, tracked_actor_task: TrackedActorTask, exception: Exception) -> None:
        lost = isinstance(exception, OutOfMemoryError)
        super()._actor_task_failed(tracked_actor_task, RayActorError(error_msg=str(exception)) if lost else exception)


@contextmanager
def losing_no_more_than_a_trial() -> Iterator[None]:
    """While the context lasts, Tune tries a trial again whose process was ended for its memory."""
    before = tune_controller.RayActorManager
    tune_controller.RayActorManager = TrialActors
    try:
        yield
    finally:
        tune_controller.RayActorManager = before
