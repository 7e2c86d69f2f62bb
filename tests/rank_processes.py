"""Real ranks for tests: processes that are joined over loopback and know `stkd.trainers` alone."""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import forkserver
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import pytest
import torch

from stkd.trainers.ranks import Ranks, connect, join, leave, open_port

Answer = TypeVar("Answer")


class RankProcesses:
    """So many ranks of one process group. They are forked from one process, which does the imports, once."""

    def __init__(self, size: int) -> None:
        start_imports()
        context = multiprocessing.get_context("forkserver")
        self._ranks = [Ranks(rank, size) for rank in range(size)]
        self._store = open_port("127.0.0.1")
        self._processes = [ProcessPoolExecutor(1, context, _join_ranks, (ranks, self.port)) for ranks in self._ranks]

    @property
    def port(self) -> int:
        """Where the ranks meet."""
        return int(self._store.port)

    def call(self, work: Callable[..., Answer], *arguments: Any) -> list[Answer]:
        """Run `work(ranks, *arguments)` on every rank at once; what each of them returned."""
        calls = [
            process.submit(_on_rank, work, ranks, *arguments)
            for process, ranks in zip(self._processes, self._ranks, strict=True)
        ]
        return [call.result(timeout=120) for call in calls]

    def __enter__(self) -> "RankProcesses":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for process in self._processes:
            process.shutdown(cancel_futures=True)


def start_imports() -> None:
    """Begin the ranks' imports, beside whatever this process does until it needs the ranks."""
    forkserver.set_forkserver_preload(["bare_rank"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        forkserver.ensure_running()


def _join_ranks(ranks: Ranks, port: int) -> None:
    torch.set_num_threads(1)
    join(ranks, connect("127.0.0.1", port))


def _on_rank(work: Callable[..., Answer], ranks: Ranks, *arguments: Any) -> Answer:
    with ExitStack() as on_failure:
        on_failure.callback(leave)  # or the other rank would wait for this one
        answer = work(ranks, *arguments)
        on_failure.pop_all()
    return answer
