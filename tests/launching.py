"""The launch files as tests read them: their texts, what is in them, and the pins that they have to keep."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import googleapiclient
import yaml
from jsonschema import Draft202012Validator

from stkd import cluster

FOLDER = Path(str(cluster.__file__)).parent
ROOT = Path(__file__).parents[1]
RAY_UP = ("aws.yaml", "gcp.yaml", "on_premise.yaml")
KUBERNETES = ("kubernetes.yaml", "kubernetes_job.yaml", "mlflow_kubernetes.yaml")
COMPOSE = "mlflow_compose.yaml"
SLURM = "slurm.sh"
LAUNCH_FILES = (*RAY_UP, *KUBERNETES, COMPOSE, SLURM)


def text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(text(name)))


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(re.findall(r"^([^#=\s]+)==(\S+)$", "\n".join(lines), re.MULTILINE))


@cache
def google_instance() -> Any:
    """Validates a virtual machine by Google's own description of its interface, and refuses keys that it lacks."""
    path = Path(googleapiclient.__file__).parent / "discovery_cache" / "documents" / "compute.v1.json"
    described: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["schemas"]
    schemas = {name: _closed(schema) for name, schema in described.items()}
    return Draft202012Validator({"$defs": schemas, "$ref": "#/$defs/Instance"})


def _closed(described: Any) -> Any:
    if isinstance(described, list):
        return [_closed(part) for part in described]
    if not isinstance(described, dict):
        return described
    if isinstance(described.get("$ref"), str):
        return {"$ref": f"#/$defs/{described['$ref']}"}
    schema = {key: _closed(part) for key, part in described.items() if key in ("type", "properties", "items", "enum")}
    if "properties" in described:
        schema["properties"] = {name: _closed(part) for name, part in described["properties"].items()}
        schema["additionalProperties"] = False
    return schema
