"""How far a cluster may grow: what its autoscaler was told, wherever that can be read.

Ray keeps no such limits where a driver could ask for them. They stand in the file that the head's autoscaler was
started with (`ray up`), or in Kubernetes (KubeRay). Elsewhere it is only known whether there is an autoscaler.
"""

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import requests
import yaml
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray.autoscaler._private.kuberay import autoscaling_config as kuberay
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.experimental.internal_kv import _internal_kv_get

from stkd.cluster.capacity import Limits, Machine

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
UNMANAGED = "node_"
"""What the kinds of nodes begin with in a cluster whose nodes were started by hand."""


def limits_of(address: str) -> Limits:
    """The limits of the cluster that is connected, whose GCS has this address by its own account."""
    config = _config_here(address) or _config_in_kubernetes()
    return from_config(config) if config else Limits(unknown=_is_managed(address))


def from_config(config: Mapping[str, Any]) -> Limits:
    """The limits in a configuration of Ray's autoscaler, as `ray up` reads it."""
    most = int(config.get("max_workers", 2))  # Ray's own default
    machines: Counter[Machine] = Counter()
    unknown = False
    for kind in config.get("available_node_types", {}).values():
        count = int(kind.get("max_workers", most))
        resources = kind.get("resources") or {}
        unknown = unknown or (count > 0 and not resources)
        machines[Machine.of(resources)] += count if resources else 0
    return Limits(+machines, most, unknown)


def _config_here(address: str) -> dict[str, Any] | None:
    """What the autoscaler of this cluster was started with, where it runs on this machine."""
    for process in psutil.process_iter(["cmdline"]):
        options = dict(
            part.split("=", 1) for part in process.info["cmdline"] or () if part.startswith("--") and "=" in part
        )
        file = options.get("--autoscaling-config")
        if file and options.get("--gcs-address") == address:
            config: dict[str, Any] = yaml.safe_load(Path(file).expanduser().read_text(encoding="utf-8"))
            return config
    return None


def _config_in_kubernetes() -> dict[str, Any] | None:
    """What KubeRay's autoscaler works by, where this pod may read it."""
    name, namespace = os.environ.get("RAY_CLUSTER_NAME"), SERVICE_ACCOUNT / "namespace"
    if not name or not namespace.is_file():
        return None
    client = kuberay.node_provider.KubernetesHttpApiClient(namespace.read_text(encoding="utf-8").strip())
    try:
        return from_raycluster(client.get(f"rayclusters/{name}"))
    except (OSError, requests.RequestException):
        return None


def from_raycluster(resource: Mapping[str, Any]) -> dict[str, Any] | None:
    """KubeRay's RayCluster as a configuration of Ray's autoscaler; None where it does not scale."""
    if not resource["spec"].get("enableInTreeAutoscaling"):
        return None
    config: dict[str, Any] = kuberay._derive_autoscaling_config_from_ray_cr(resource)
    return config


def _is_managed(address: str) -> bool:
    """Whether an autoscaler has started nodes of this cluster, or may."""
    if is_autoscaler_v2():
        status = get_cluster_status(address)
        kinds = [node.ray_node_type_name for node in (*status.active_nodes, *status.idle_nodes)]
    else:
        report = json.loads(_internal_kv_get(DEBUG_AUTOSCALING_STATUS) or "{}").get("autoscaler_report") or {}
        kinds = list((report.get("node_type_mapping") or {}).values())
    return any(not kind.startswith(UNMANAGED) for kind in kinds)
