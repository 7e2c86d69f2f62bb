"""The Ray that a sweep runs on: one of this machine alone, or a cluster that it joins."""

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import ray
from ray._private import node, ray_constants, services
from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR
from ray._private.state import available_resources_per_node
from ray.util import placement_group_table
from typing_extensions import override

from stkd.cluster.capacity import Capacity, Limits, Machine, Request
from stkd.cluster.each_node import check_shared
from stkd.cluster.placing import hosted_gang
from stkd.cluster.tokens import token_of_its_own
from stkd.cluster.wheel import build_wheel

LOOPBACK = "127.0.0.1"
HEAD = "node:__internal_head__"
RECONNECT, LOST_SECONDS = "RAY_gcs_rpc_server_reconnect_timeout_s", "10"
"""After how long Ray ends a driver whose local Ray is gone: as long as it waits, nothing interrupts it."""


class Cluster:
    """What a sweep runs on, for as long as the context is open.

    Without an address it is a Ray of this machine alone, which nobody else reaches and which is gone at the end; no
    Ray that already runs is joined by chance. With the address of a cluster's GCS it is that cluster, as it is.
    """

    def __init__(self, address: str | None = None) -> None:
        self.address = address
        self._stack = ExitStack()
        self._limits = Limits()

    def __enter__(self) -> Self:
        if self.address is None:
            self._stack.enter_context(_local())
        else:
            self._limits = self._stack.enter_context(_joined(self.address))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def is_local(self) -> bool:
        """Whether it is this machine alone."""
        return self.address is None

    def nodes(self) -> list[Mapping[str, Any]]:
        """The nodes that are alive, as Ray tells of them."""
        return [node for node in ray.nodes() if node["Alive"]]

    def capacity(self) -> Capacity:
        """What the cluster has, and may come to have."""
        nodes = [node["Resources"] for node in self.nodes()]
        workers = (Machine.of(resources) for resources in nodes if HEAD not in resources)
        return Capacity.of(map(Machine.of, nodes), self._limits.beyond(workers))

    def free(self) -> Capacity:
        """What nobody uses at the moment."""
        return Capacity.of(map(Machine.of, available_resources_per_node().values()))

    def has_waiting(self, request: Request) -> bool:
        """Whether somebody waits for room for such a request."""
        groups = placement_group_table().values()
        return any(
            group["state"] == "PENDING" and list(group["bundles"].values()) == request.bundles for group in groups
        )

    def may_have_several_nodes(self) -> bool:
        """Whether it has more than one node, or may come to have."""
        capacity = self.capacity()
        return sum(capacity.present.values()) > 1 or bool(capacity.growth.machines) or capacity.growth.endless

    def check_shared(self, folder: Path, models: Sequence[str]) -> None:
        """Raise ClusterError unless all nodes see the folder that this one sees, and have the models' folders."""
        check_shared(self.nodes(), folder, models)

    def gang(self, member: str, request: Request, waits: Callable[[], None]) -> AbstractContextManager[Any]:
        """A gang of its own, see `stkd.cluster.placing`."""
        return hosted_gang(member, request, waits)


class _GroupOfItsOwn(services.ConsolePopen):  # type: ignore[misc]
    """A process of Ray's that a signal to the command's whole group, as `timeout` sends, does not end."""

    @override
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, process_group=0, **options)


class _NodeAlone(node.Node):  # type: ignore[misc]
    """A head that nobody watches or joins: without the processes for that, it starts and ends in half the time."""

    @override
    def start_monitor(self) -> None:
        """No autoscaler: no node is to be added."""

    @override
    def start_log_monitor(self) -> None:
        """No logs for drivers: they stay in Ray's own folder."""

    @override
    def start_api_server(self, **options: Any) -> None:
        """No dashboard; without it, the server that would show it has nothing to do but to report usage."""


@contextmanager
def _tied_to_the_command() -> Iterator[None]:
    """What Ray starts meanwhile serves nobody else and is ended by Ray alone; where it is lost, nobody waits long."""
    popen, any_node, patience = services.ConsolePopen, node.Node, os.environ.get(RECONNECT)
    services.ConsolePopen, node.Node = _GroupOfItsOwn, _NodeAlone
    os.environ.setdefault(RECONNECT, LOST_SECONDS)
    try:
        yield
    finally:
        services.ConsolePopen, node.Node = popen, any_node
        if patience is None:
            del os.environ[RECONNECT]


@contextmanager
def _local() -> Iterator[None]:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # As on a Mac: else Ray takes the address that others see for 127.0.0.1, and any other has it listen everywhere
    ray_constants.ENABLE_RAY_CLUSTER = False
    with token_of_its_own():
        with _tied_to_the_command():
            ray.init(
                address="local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _node_ip_address=LOOPBACK,
            )
        try:
            yield
        finally:
            ray.shutdown()
            ray_constants.ENABLE_RAY_CLUSTER = True


@contextmanager
def _joined(address: str) -> Iterator[Limits]:
    from stkd.cluster.growth import limits_of  # these two load what a Ray of this machine does not need
    from stkd.cluster.joining import ready_to_join

    with ready_to_join(address) as gcs, TemporaryDirectory(prefix="stkd-") as folder:
        ray.init(address=gcs, runtime_env=_shipped(Path(folder)), log_to_driver=False, logging_level=logging.ERROR)
        try:
            yield limits_of(ray.get_runtime_context().gcs_address)
        finally:
            ray.shutdown()


def _shipped(folder: Path) -> dict[str, Any]:
    """What nodes are given to run: this stkd, unless it came here by Ray itself, as a job."""
    job = json.loads(os.environ.get(RAY_JOB_CONFIG_JSON_ENV_VAR, "{}"))
    if "py_modules" in job.get("runtime_env", {}):
        return {}
    return {"py_modules": [str(build_wheel(folder))]}
