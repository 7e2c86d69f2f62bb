"""The ranks that train one model together, and the process group that joins them."""

import os
import socket
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as distributed

TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True)
class Ranks:
    """One process's place among the ranks of a training job. Not for two jobs in threads of one process."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this rank is the one that writes files."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """The GPU that this process sees, or the CPU."""
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")

    def barrier(self) -> None:
        """Wait for the other ranks."""
        if self.size > 1:
            distributed.barrier()

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum of the tensor over all ranks, on every rank."""
        if self.size > 1:
            tensor = tensor.to(self.device)
            distributed.all_reduce(tensor)
        return tensor.cpu()


def open_port(host: str) -> distributed.TCPStore:
    """A rendezvous for several ranks, on a free port of `host` that `.port` names; the first rank holds it open.

    The store would listen on every interface: it is given a socket that listens on this address alone.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, 0), family=family)
    port = listener.getsockname()[1]
    return distributed.TCPStore(
        host, port, is_master=True, wait_for_workers=False, timeout=TIMEOUT, master_listen_fd=listener.detach()
    )


def connect(host: str, port: int) -> distributed.TCPStore:
    """The rendezvous that the first rank opened."""
    return distributed.TCPStore(host, port, is_master=False, timeout=TIMEOUT)


def join(ranks: Ranks, store: distributed.Store | None = None) -> None:
    """Form the process group that DeepSpeed finds ready: over `store`, or alone and without a port where it is None."""
    if distributed.is_initialized():
        assert distributed.get_world_size() == ranks.size, "this process already belongs to ranks of another number"
        return
    _allow_machines_without_compiler()
    # DeepSpeed looks for MPI unless these stand in the environment; it never connects to the address itself
    os.environ.update(
        RANK=str(ranks.rank), WORLD_SIZE=str(ranks.size), LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT="0"
    )
    distributed.init_process_group(
        "nccl" if torch.cuda.is_available() else "gloo",
        store=store or distributed.HashStore(),
        rank=ranks.rank,
        world_size=ranks.size,
        timeout=TIMEOUT,
    )


def leave() -> None:
    """End the process group, so that ranks that still wait for this one fail at once instead of at the time-out."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _allow_machines_without_compiler() -> None:
    """DeepSpeed would compile a shared-memory extension at the first process group on a CPU; gloo does that work.

    The answer is set before DeepSpeed asks: finding it out tries a compiler, whose errors would reach the screen.
    """
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__ = {"deepspeed_shm_comm": False}
