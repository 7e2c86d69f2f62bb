"""The launch files of real clusters, against the real schema or tool of whoever reads them."""

import os
import re
import shutil
import subprocess
import sys
from copy import deepcopy
from importlib.resources import files
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import compose_spec
import jsonschema
import kubernetes_validate
import pytest
from kuberay import KINDS
from launching import (
    COMPOSE,
    FOLDER,
    KUBERNETES,
    LAUNCH_FILES,
    RAY_UP,
    ROOT,
    SLURM,
    documents,
    google_instance,
    pins,
    text,
)
from pydantic import ValidationError
from ray.autoscaler._private.kuberay import autoscaling_config
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.sdk import get_docker_host_mount_location

KUBERNETES_VERSION = "1.33"
SECRETS = ("auth_token", "PASSWORD", "SECRET", "S3_ACCESS_KEY", "TOKEN")


# What all of them say


def test_every_file_in_the_folder_is_known_and_comes_with_the_package() -> None:
    assert {path.name for path in FOLDER.iterdir() if path.suffix in (".yaml", ".sh")} == set(LAUNCH_FILES)
    assert len(LAUNCH_FILES) == 8
    packaged = {entry.name for entry in files("stkd.cluster").iterdir()}
    assert {*LAUNCH_FILES, "README.md"} <= packaged


@pytest.mark.parametrize("name", LAUNCH_FILES)
def test_four_lines_say_what_it_makes_and_costs_and_how_to_use_it(name: str) -> None:
    lines = [line for line in text(name).splitlines() if not line.startswith("#!")][:5]
    assert [line[:9] for line in lines] == ["# Makes a", "# Forgott", "# Start: ", "# Use, en", ""]
    assert "costs" in lines[1]


@pytest.mark.parametrize("name", LAUNCH_FILES)
def test_lines_to_change_are_marked_alike(name: str) -> None:
    lines = text(name).splitlines()
    assert [line for line in lines if "# CHANGE" in line]
    assert not [line for line in lines if re.search("TODO|FIXME|EDIT:|# CHANGE(?!: |$)", line)]
    for number, line in enumerate(lines):
        if re.search(r"example\.com|192\.0\.2\.|0123456789abcdef0|your-", line):
            assert "# CHANGE" in "".join(lines[max(0, number - 4) : number + 1]), line


@pytest.mark.parametrize("name", LAUNCH_FILES)
def test_versions_are_the_pinned_ones(name: str) -> None:
    images = re.findall(r"image: (\S+)", text(name))
    ray, mlflow = f"rayproject/ray:{pins()['ray']}-py311-gpu", f"ghcr.io/mlflow/mlflow:v{pins()['mlflow']}"
    assert not [image for image in images if image.startswith(("rayproject", "ghcr.io")) and image not in (ray, mlflow)]
    assert not [image for image in images if image.endswith(":latest") or ":" not in image]
    assert images or name == SLURM
    installed = re.findall(r"([\w.-]+)==([0-9.]+)", text(name))
    assert not [pair for pair in installed if pins().get(pair[0]) != pair[1]]


@pytest.mark.parametrize("name", LAUNCH_FILES)
def test_nothing_is_public_and_no_secret_is_written_down(name: str) -> None:
    words = text(name)
    assert not [word for word in ("LoadBalancer", "NodePort", "Ingress", "dashboard-host=0.0.0.0") if word in words]
    for line in words.splitlines():
        if any(f"{secret}:" in line for secret in SECRETS):
            assert "${" in line or "secretKeyRef" in line, line


# ray up


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_takes_its_cluster_files(name: str) -> None:
    (config,) = documents(name)
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["max_workers"] == (2 if name == "on_premise.yaml" else 40)
    with pytest.raises(jsonschema.ValidationError, match="head_setup_comands"):
        validate_config(prepared | {"head_setup_comands": []})


@pytest.mark.parametrize("name", RAY_UP)
def test_nodes_have_the_token_before_ray_starts(name: str) -> None:
    (config,) = documents(name)
    (folder,) = config["file_mounts"]
    on_host = f"{get_docker_host_mount_location(config['cluster_name'])}{folder}"
    options = config["docker"]["run_options"]
    assert "--env RAY_AUTH_MODE=token" in options
    assert f"--env-file {on_host}/env" in options


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml"])
def test_gpu_nodes_go_to_zero_and_the_head_trains_nothing(name: str) -> None:
    (config,) = documents(name)
    types = config["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    assert types["gpu"]["min_workers"] == 0
    assert types["gpu"]["max_workers"] == config["max_workers"] == 40
    assert 0 < config["idle_timeout_minutes"] <= 15
    assert config["provider"]["cache_stopped_nodes"] is False


def test_google_takes_the_nodes() -> None:
    (config,) = documents("gcp.yaml")
    nodes = [node_type["node_config"] for node_type in config["available_node_types"].values()]
    assert len(nodes) == 2
    for node in nodes:
        google_instance().validate(node)
        with pytest.raises(jsonschema.ValidationError, match="machinType"):
            google_instance().validate(node | {"machinType": "e2"})
    with pytest.raises(jsonschema.ValidationError, match="PREEMPT"):
        google_instance().validate(nodes[1] | {"scheduling": {"provisioningModel": "PREEMPT"}})


# Kubernetes


def as_core(document: dict[str, Any]) -> list[dict[str, Any]]:
    """What Kubernetes itself has a schema for: the object, or the pod templates of a resource of KubeRay's."""
    if document["kind"] not in KINDS:
        return [document]
    cluster = document["spec"].get("rayClusterSpec", document["spec"])
    templates = [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    return [{"apiVersion": "v1", "kind": "PodTemplate", "template": template} for template in templates]


@pytest.mark.parametrize("name", KUBERNETES)
def test_kubernetes_takes_every_object(name: str) -> None:
    objects = [core for document in documents(name) for core in as_core(document)]
    assert len(objects) == {"kubernetes.yaml": 3, "kubernetes_job.yaml": 2, "mlflow_kubernetes.yaml": 5}[name]
    for core in objects:
        kubernetes_validate.validate(core, KUBERNETES_VERSION, strict=True)


def test_kubernetes_refuses_a_misspelt_key() -> None:
    (pod, *_) = as_core(documents("kubernetes.yaml")[1])
    pod["template"]["spec"]["containers"][0]["volumMounts"] = []
    with pytest.raises(kubernetes_validate.ValidationError, match="volumMounts"):
        kubernetes_validate.validate(pod, KUBERNETES_VERSION, strict=True)


@pytest.mark.parametrize("name", ["kubernetes.yaml", "kubernetes_job.yaml"])
def test_kuberay_takes_its_resources(name: str) -> None:
    resources = [document for document in documents(name) if document["kind"] in KINDS]
    assert len(resources) == 1
    KINDS[resources[0]["kind"]].model_validate(resources[0])
    wrong = deepcopy(resources[0])
    cluster = wrong["spec"].get("rayClusterSpec", wrong["spec"])
    cluster["authOptions"]["secret"] = cluster["authOptions"].pop("secretName")
    with pytest.raises(ValidationError, match=r"authOptions\.secret\b"):
        KINDS[wrong["kind"]].model_validate(wrong)


def test_the_job_has_the_cluster_of_the_other_file() -> None:
    (job,) = documents("kubernetes_job.yaml")
    (volume, cluster) = documents("kubernetes.yaml")
    assert job["spec"]["rayClusterSpec"] == cluster["spec"]
    assert cluster["spec"]["rayVersion"] == pins()["ray"]
    assert volume["spec"]["accessModes"] == ["ReadWriteMany"]


def test_ray_reads_from_the_resource_what_its_pods_have() -> None:
    cluster = documents("kubernetes.yaml")[1]
    cluster["metadata"]["namespace"] = "default"
    config = autoscaling_config._derive_autoscaling_config_from_ray_cr(cluster)
    head, gpu = config["available_node_types"]["headgroup"], config["available_node_types"]["gpu"]
    assert head["resources"]["CPU"] == 0
    assert gpu["resources"] == {"CPU": 8, "GPU": 1, "memory": 32 * 2**30}
    assert (gpu["min_workers"], gpu["max_workers"]) == (0, 40)
    assert config["idle_timeout_minutes"] == 15.0


def test_a_second_try_of_the_job_resumes_the_first(tmp_path: Path) -> None:
    entrypoint = documents("kubernetes_job.yaml")[0]["spec"]["entrypoint"].replace("/shared", str(tmp_path))
    stkd = tmp_path / "stkd"
    stkd.write_text(f'#!/bin/sh\nmkdir -p {tmp_path}/stkd-sweep/sweeps\necho "$*"\n')
    stkd.chmod(0o700)
    tries = [
        subprocess.run(entrypoint, shell=True, env={"PATH": f"{tmp_path}:{os.defpath}"}, capture_output=True, text=True)
        for _ in range(2)
    ]
    assert [attempt.stdout for attempt in tries] == [
        f"sweep --address 127.0.0.1:6379 --storage {tmp_path}/stkd-sweep --space glue\n",
        f"sweep --address 127.0.0.1:6379 --storage {tmp_path}/stkd-sweep --resume\n",
    ]


# Docker compose


def test_compose_takes_the_mlflow_server() -> None:
    server = compose_spec.PyCompose.from_yaml(text(COMPOSE))
    server.validate()
    assert sorted(server.service_names()) == ["mlflow", "postgres", "seaweedfs"]
    published = [service.get("ports", []) for service in documents(COMPOSE)[0]["services"].values()]
    assert [port for ports in published for port in ports] == ["127.0.0.1:5000:5000"]
    for right, wrong in (("restart:", "restrat:"), ("service_healthy", "sound"), ("interval: 5s", "interval: soon")):
        with pytest.raises(ValueError, match=wrong.split()[-1].strip(":")):
            compose_spec.PyCompose.from_yaml(text(COMPOSE).replace(right, wrong))


# Slurm


def test_the_shell_takes_the_slurm_script() -> None:
    subprocess.run(["/bin/bash", "-n", FOLDER / SLURM], check=True)
    shellcheck = shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    assert shellcheck
    done = subprocess.run([shellcheck, "--severity=warning", FOLDER / SLURM], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# What nodes get


@pytest.mark.slow
def test_make_nodes_writes_what_they_need(tmp_path: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("there is no make")
    nodes = tmp_path / "nodes"
    command = ["make", "--silent", "--old-file=.venv/.installed-quickstart", "nodes", f"NODES={nodes}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    subprocess.run([*command, f"BIN={Path(sys.executable).parent}"], cwd=ROOT, env=environment, check=True)
    token = (nodes / "auth_token").read_text()
    assert re.fullmatch("[0-9a-f]{64}", token)
    assert (nodes / "env").read_text() == f"RAY_AUTH_TOKEN={token}\n"
    assert [(nodes / name).stat().st_mode & 0o077 for name in ("auth_token", "env")] == [0, 0]
    assert sum(path.stat().st_size for path in nodes.iterdir()) < 2**20 * 3 / 4  # as a Secret of Kubernetes, in base64
    (wheel,) = nodes.glob("*.whl")
    packaged = {name.removeprefix("stkd/cluster/") for name in ZipFile(wheel).namelist() if "/cluster/" in name}
    assert {*LAUNCH_FILES, "README.md"} <= packaged
