"""The AWS cluster file, launched by Ray's own code on a stand-in for AWS."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from launching import documents, text
from moto import mock_aws
from ray.autoscaler._private.providers import _get_node_provider, _get_node_provider_cls
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.tags import TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE

pytestmark = pytest.mark.slow
ROLE = "ray-autoscaler-v1"
"""What Ray calls the head's role; it would wait half a minute for one that it has to make."""


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, str]]:
    """An account of the stand-in; gives what stands in it for the identifiers of the launch file."""
    (config,) = documents("aws.yaml")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "of-nobody")
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray writes the ssh key there
    (tmp_path / ".ssh").mkdir()
    with mock_aws():
        access = boto3.client("iam")
        access.create_role(RoleName=ROLE, AssumeRolePolicyDocument="{}")
        access.create_instance_profile(InstanceProfileName=ROLE)
        access.add_role_to_instance_profile(InstanceProfileName=ROLE, RoleName=ROLE)
        machines = boto3.client("ec2", config["provider"]["region"])
        subnet = machines.describe_subnets()["Subnets"][0]
        group = machines.create_security_group(GroupName="nodes", Description="nodes", VpcId=subnet["VpcId"])
        yield {
            "subnet-0123456789abcdef0": subnet["SubnetId"],
            "sg-0123456789abcdef0": group["GroupId"],
            "ami-0123456789abcdef0": machines.describe_images()["Images"][0]["ImageId"],
        }


def test_ray_launches_a_head_and_gpu_nodes(account: dict[str, str]) -> None:
    filled = text("aws.yaml")
    for example, real in account.items():
        assert example in filled
        filled = filled.replace(example, real)
    config: dict[str, Any] = prepare_config(yaml.safe_load(filled))
    aws = _get_node_provider_cls(config["provider"])
    config = aws.fillout_available_node_types_resources(config)
    validate_config(config)
    config = aws.bootstrap_config(config)
    types = config["available_node_types"]
    assert types["head"]["resources"]["CPU"] == 0
    assert {kind: types["gpu"]["resources"][kind] for kind in ("CPU", "GPU")} == {"CPU": 8, "GPU": 1}

    provider = _get_node_provider(config["provider"], config["cluster_name"])
    launched = {}
    for kind, node_type in types.items():
        tags = {TAG_RAY_NODE_KIND: "head" if kind == "head" else "worker", TAG_RAY_USER_NODE_TYPE: kind}
        ((launched[kind]),) = provider.create_node(node_type["node_config"], tags, 1).values()
    assert len(launched) == 2
    for machine in launched.values():
        assert machine.subnet_id == account["subnet-0123456789abcdef0"]
        assert [group["GroupId"] for group in machine.security_groups] == [account["sg-0123456789abcdef0"]]
    assert (launched["head"].instance_lifecycle, launched["gpu"].instance_lifecycle) == (None, "spot")
