"""A cluster whose workers come when they are asked for, with Ray's own autoscaler and its provider for one machine."""

from pathlib import Path

import pytest
import yaml
from hosts import Host, RayCluster

from stkd.cluster.capacity import Request
from stkd.cluster.cluster import Cluster
from stkd.cluster.errors import PlacementError
from stkd.orchestrator.hosting import concurrent_trials
from stkd.search_spaces.reading import read_space

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray's sockets and subprocesses
]
HEAD_ID = "f" * 51 + "00000"
UNUSED = ("file_mounts", "auth")
LISTS = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")


def autoscaling(cluster: RayCluster) -> dict[str, object]:
    """As `ray up` reads it: a head without CPUs, and up to two workers with a GPU."""
    return {
        "cluster_name": "test",
        "max_workers": 2,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 5,
        "provider": {"type": "fake_multinode", "gcs_address": cluster.address, "head_node_id": HEAD_ID}
        | {"disable_node_updaters": True, "disable_launch_config_check": True},
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "gpu": {"resources": {"CPU": 1, "GPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2},
        },
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        **{name: {} for name in UNUSED},
        **{f"{name}_commands": [] for name in LISTS},
        **{f"rsync_{name}": [] for name in ("exclude", "filter")},
    }


looks = iter(range(20))


def fail_where_it_hangs() -> None:
    next(looks)


def test_workers_that_scale_to_zero_are_waited_for_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "autoscaling.yaml"
    with RayCluster() as started:
        head = Host("127.0.0.9")
        started.choose_ports(head)
        file.write_text(yaml.safe_dump(autoscaling(started)))
        started.start_head(
            head,
            "--num-cpus=0",
            f"--autoscaling-config={file}",
            RAY_FAKE_CLUSTER="1",
            RAY_OVERRIDE_NODE_ID_FOR_TESTING=HEAD_ID,
            AUTOSCALER_UPDATE_INTERVAL_S="1",
        )
        monkeypatch.setenv("RAY_AUTH_TOKEN", str(started.token))
        trial = Request(1, 1, 1.0)
        with Cluster(started.address) as cluster:
            capacity = cluster.capacity()
            assert (capacity.jobs_now(trial), capacity.jobs_at_most(trial)) == (0, 2)
            assert cluster.may_have_several_nodes()
            space = read_space(Path("quickstart"), ["resources={gpus_per_rank: 1, cpus_per_rank: 1}"])
            assert concurrent_trials(space, capacity) == 2
            with pytest.raises(PlacementError, match="may start 2 nodes with 1 CPU and 1 GPU"):
                capacity.refuse_impossible(Request(1, 1, 2.0))
            with cluster.gang("stkd.trainers.worker:Worker", trial, fail_where_it_hangs):
                capacity = cluster.capacity()
                assert (capacity.jobs_now(trial), capacity.jobs_at_most(trial)) == (1, 2)
