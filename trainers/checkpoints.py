"""Checkpoints that are written while the training goes on."""

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from stkd.trainers.lean_imports import unimportable
from stkd.trainers.patience import patiently

with unimportable("mlflow"):
    from deepspeed.checkpoint.utils import clone_tensors_for_torch_save
    from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine


class BackgroundWriter(TorchCheckpointEngine):  # type: ignore[misc]
    """DeepSpeed's way to write, on a thread of its own: saving takes no longer than a copy in memory.

    One checkpoint is under way at a time. What went wrong is raised by whoever next saves, or waits.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._under_way: list[Future[object]] = []

    def save(self, state_dict: Any, path: str) -> None:
        """Copy the state, and have the copy written."""
        copied = clone_tensors_for_torch_save(state_dict)
        self.then(lambda: patiently(lambda: super(BackgroundWriter, self).save(copied, path), Path(path).parent))

    def preserves_storage_sharing(self) -> bool:
        """Nobody else needs to copy."""
        return False

    def then(self, work: Callable[[], object]) -> None:
        """Do something after all that is to be written, unless some of that fails: then neither happens."""
        self._under_way.append(self._thread.submit(_after, tuple(self._under_way), work))

    def wait(self) -> None:
        """Until everything is written; raises what writing raised."""
        under_way, self._under_way = self._under_way, []
        for write in under_way:
            write.result()

    def close(self) -> None:
        """Wait, and end the thread. What went wrong is of no use to a training that is over."""
        self._thread.shutdown(wait=True)


def _after(earlier: Iterable[Future[object]], work: Callable[[], object]) -> None:
    for write in earlier:
        write.result()
    work()
