"""Joining a Ray cluster that runs: everything that can be wrong with it is said in one line, before Ray is asked.

Ray itself would try for a minute, write pages, or end the process.
"""

import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from ray._private.grpc_utils import init_grpc_channel
from ray._private.ray_constants import KV_NAMESPACE_CLUSTER
from ray._private.services import find_node_ids
from ray._private.utils import compute_version_info
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.core.generated.gcs_pb2 import GcsNodeInfo
from ray.core.generated.gcs_service_pb2 import GetClusterIdRequest
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

from stkd.cluster.errors import ClusterError, TokenError
from stkd.cluster.tokens import MODE, require_token, set_mode, token_header, wrong_token

ANSWER_SECONDS = 10.0
"""How long a cluster may take to answer."""
PYTHON_LEVEL = "RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL"
"""Ray's own variable: `minor` lets the last number of Python's version differ."""


@contextmanager
def ready_to_join(address: str) -> Iterator[str]:
    """Yields the address as Ray takes it, once `ray.init` with it is known to work; Ray's token mode is set meanwhile.

    Raises:
        ClusterError: what is wrong, and what to do.

    """
    host, port = _parsed(address)
    _reach(host, port, address)
    gcs = f"{host}:{port}"
    before = os.environ.get(MODE)
    try:
        _agree_on_token(gcs, address)
        client = GcsClient(address=gcs)
        _compare_versions(client, address)
        _find_own_node(client, address)
        yield gcs
    finally:
        set_mode(before)


def wants_token(address: str) -> bool:
    """Whether the cluster asks for a token. Not while this process joins one; raises ClusterError."""
    host, port = _parsed(address)
    _reach(host, port, address)
    before = os.environ.get(MODE)
    set_mode("disabled")
    try:
        return _ask(f"{host}:{port}", address, None) is grpc.StatusCode.UNAUTHENTICATED
    finally:
        set_mode(before)


def _parsed(address: str) -> tuple[str, int]:
    if address.startswith("ray://"):
        raise ClusterError(
            f"--address {address}: a sweep runs on a node of its cluster, not through Ray's client, which would end it "
            "with your connection; from elsewhere: stkd submit --address http://HEAD:8265"
        )
    if "://" in address:
        raise ClusterError(
            f"--address {address}: must be HOST:PORT of the cluster's GCS, as in 10.0.0.1:6379; an http address is for "
            "stkd submit"
        )
    match = re.fullmatch(r"(?P<host>[^\s:]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})", address)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise ClusterError(f"--address {address}: must be HOST:PORT of the cluster's GCS, as in 10.0.0.1:6379")
    return match["host"], int(match["port"])


def _reach(host: str, port: int, address: str) -> None:
    try:
        socket.create_connection((host.strip("[]"), port), timeout=ANSWER_SECONDS).close()
    except socket.gaierror as error:
        raise ClusterError(f"--address {address}: there is no host {host}: {error.strerror}") from error
    except TimeoutError as error:
        raise ClusterError(
            f"--address {address}: nothing answered within {ANSWER_SECONDS:.0f} s; is the head up, and may this "
            "machine reach its port?"
        ) from error
    except OSError as error:
        raise ClusterError(
            f"--address {address}: nothing listens there ({error.strerror}); the head's GCS listens where "
            "`ray start --head --port` said, 6379 by default"
        ) from error


def _agree_on_token(gcs: str, address: str) -> None:
    """Put Ray into the mode of the cluster: with a token where it wants one, and the right one."""
    chosen = os.environ.get(MODE)
    set_mode("disabled")
    wanted = _ask(gcs, address, None) is grpc.StatusCode.UNAUTHENTICATED
    if not wanted and chosen == "token":
        raise TokenError(
            f"--address {address}: {MODE} is token here, but the cluster wants none, so that its nodes "
            f"could not answer; start the cluster with {MODE}=token, or unset it here"
        )
    if not wanted:
        return
    place = f"--address {address}"
    require_token(place)
    if _ask(gcs, address, token_header()) is grpc.StatusCode.UNAUTHENTICATED:
        raise TokenError(wrong_token(place))


def _ask(gcs: str, address: str, headers: dict[str, str] | None) -> grpc.StatusCode:
    """What the GCS says to a first request; raises ClusterError where it is none."""
    with init_grpc_channel(gcs) as channel:
        try:
            NodeInfoGcsServiceStub(channel).GetClusterId(
                GetClusterIdRequest(), timeout=ANSWER_SECONDS, metadata=list((headers or {}).items())
            )
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAUTHENTICATED:
                raise ClusterError(
                    f"--address {address}: something answers there, but it is no Ray GCS ({error.code().name}); the "
                    "head's GCS listens where `ray start --head --port` said, 6379 by default"
                ) from error
            return error.code()
    return grpc.StatusCode.OK


def _compare_versions(client: GcsClient, address: str) -> None:
    stored = client.internal_kv_get(b"CLUSTER_METADATA", namespace=KV_NAMESPACE_CLUSTER, timeout=ANSWER_SECONDS)
    cluster = json.loads(stored)
    ray_here, python_here = compute_version_info()[:2]
    numbers = 2 if os.environ.get(PYTHON_LEVEL) == "minor" else 3
    for name, here, there, level in (
        ("Ray", ray_here, cluster["ray_version"], 3),
        ("Python", python_here, cluster["python_version"], numbers),
    ):
        if here.split(".")[:level] != there.split(".")[:level]:
            raise ClusterError(
                f"--address {address}: the cluster runs {name} {there}, and this is {name} {here}; use the same on all"
            )


def _find_own_node(client: GcsClient, address: str) -> None:
    nodes = client.get_all_node_info(timeout=ANSWER_SECONDS).values()
    alive = {node.node_id.hex() for node in nodes if node.state == GcsNodeInfo.ALIVE}
    if alive.isdisjoint(find_node_ids()):
        raise ClusterError(
            f"--address {address}: this machine is no node of that cluster; run stkd on one, or from here: "
            "stkd submit --address http://HEAD:8265"
        )
