"""A team's machines: a head and two workers that share a folder, and an MLflow server on PostgreSQL.

Each is a host of its own, in a network namespace. The head has no CPUs for trials, each worker has one.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hosts import Host, Node, RayCluster, bridged_hosts
from mlflow import MlflowClient
from mlflow.entities import Run
from postgres_server import free_port, postgres, started

PASSWORD = "a-password-of-the-test"


class Team:
    """The hosts, and a cluster on them that can lose any of them."""

    def __init__(self, hosts: Sequence[Host], tracking: str) -> None:
        self.hosts, self.tracking = hosts, tracking
        self.cluster = RayCluster()
        self.workers: list[Node] = []

    def complete(self) -> None:
        """Start every node that is not up."""
        if not self.cluster.nodes:
            self.cluster.__enter__()
            self.cluster.start_head(self.hosts[0], "--num-cpus=0")
        self.workers = [node for node in self.workers if node.process.poll() is None]
        up = {node.host for node in self.workers}
        self.workers += [self.cluster.start_worker(host, "--num-cpus=1") for host in self.hosts[1:] if host not in up]

    def lose(self) -> None:
        """As if the head and every worker lost their power; what comes up next is a new cluster."""
        for node in self.cluster.nodes:
            if node.process.poll() is None:
                node.kill()
        self.end()
        self.cluster, self.workers = RayCluster(), []

    def end(self) -> None:
        """Shut everything down."""
        if self.cluster.nodes:
            self.cluster.__exit__()

    def runs(self, experiment: str) -> list[Run]:
        """Every MLflow run of an experiment."""
        client = MlflowClient(self.tracking)
        found = client.get_experiment_by_name(experiment)
        assert found is not None
        return list(client.search_runs([found.experiment_id]))


@contextmanager
def team(folder: Path) -> Iterator[Team]:
    """Everything up, and gone at the end; skips where this machine cannot have it."""
    with bridged_hosts(4) as hosts, mlflow_server(hosts[3], folder) as tracking:
        made = Team(hosts[:3], tracking)
        try:
            made.complete()
            yield made
        finally:
            made.end()


@contextmanager
def mlflow_server(host: Host, folder: Path) -> Iterator[str]:
    """An MLflow server on PostgreSQL, on a host that has nothing else; yields its address."""
    port = free_port()
    with postgres("mlflow", "mlflow", PASSWORD, host.prefix) as address:
        settings = {
            "MLFLOW_BACKEND_STORE_URI": f"postgresql+psycopg2://mlflow@{address}/mlflow",
            "PGPASSWORD": PASSWORD,
            "MLFLOW_ARTIFACTS_DESTINATION": str(folder / "mlflow"),
            "MLFLOW_SERVER_ALLOWED_HOSTS": f"{host.address}:{port}",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        listen = ["--host", host.address, "--port", str(port), "--workers", "1"]
        command = [*host.prefix, sys.executable, "-m", "mlflow", "server", *listen]
        ask = [*host.prefix, "curl", "-fs", f"http://{host.address}:{port}/health"]
        with started(command, folder, env=os.environ | settings) as server:
            server.wait_until(lambda: subprocess.run(ask, capture_output=True).returncode == 0)
            yield f"http://{host.address}:{port}"
