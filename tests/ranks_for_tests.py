"""A rank that fails on purpose, for tests of gangs; its own module, since Ray's processes import it by name."""

import os
import time

import torch

from stkd.cluster import wheel
from stkd.trainers.worker import Worker


def where_stkd_is() -> str:
    """The file of a module that a node runs."""
    return wheel.__file__


class FaultyWorker(Worker):
    """A worker with verbs that show what a gang does when one rank fails."""

    def summed(self) -> float:
        """The sum of all ranks' numbers."""
        return float(self._ranks.sum(torch.tensor(float(self._ranks.rank + 1))))

    def fail_on_second_rank(self) -> None:
        """The second rank raises while the first one waits for it."""
        if self._ranks.rank == 1:
            raise RuntimeError("the second rank has failed")
        self._ranks.barrier()

    def die_on_second_rank(self) -> None:
        """The second rank's process ends while the first one waits for it."""
        if self._ranks.rank == 1:
            time.sleep(0.5)
            os._exit(1)
        self._ranks.barrier()

    def group_size(self) -> int:
        """Ranks in the process group."""
        return torch.distributed.get_world_size()
