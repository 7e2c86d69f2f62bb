"""How Ray Tune starts and loses the processes of trials, where Ray 2.60 has it otherwise.

Ray tells of a process that its memory monitor ended by an `OutOfMemoryError`, which Tune's actor manager takes for an
error of its own: here it is a failure of one trial. And Tune gives trials an environment of their own, for a library
that they do not have, so that no process that Ray has ready will do: here one will.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray import tune
from ray.air.execution._internal import RayActorManager
from ray.air.execution._internal.tracked_actor_task import TrackedActorTask
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.execution import tune_controller
from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE, _ActorClassCache
from typing_extensions import override


class TrialActors(RayActorManager):  # type: ignore[misc]
    """Tune's, for which a process that was ended for its memory is lost like any other."""

    @override
    def _actor_task_failed(self, tracked_actor_task: TrackedActorTask, exception: Exception) -> None:
        lost = isinstance(exception, OutOfMemoryError)
        super()._actor_task_failed(tracked_actor_task, RayActorError(error_msg=str(exception)) if lost else exception)


class TrialClasses(_ActorClassCache):  # type: ignore[misc]
    """Tune's, whose trials run in the environment of the sweep, unless there are variables to pass on."""

    @override
    def get(self, trainable_cls: type[tune.Trainable]) -> Any:
        if not ENV_VARS_TO_PROPAGATE.isdisjoint(os.environ):
            return super().get(trainable_cls)
        if trainable_cls not in self._cache:
            self._cache[trainable_cls] = ray.remote(trainable_cls)
        return self._cache[trainable_cls]


@contextmanager
def trial_actors() -> Iterator[None]:
    """While the context lasts, Tune starts processes so, and tries a trial again whose process was ended for memory."""
    before = tune_controller.RayActorManager, tune_controller._ActorClassCache
    tune_controller.RayActorManager, tune_controller._ActorClassCache = TrialActors, TrialClasses
    try:
        yield
    finally:
        tune_controller.RayActorManager, tune_controller._ActorClassCache = before
