"""A folder of transformers, dressed as an MLflow model without loading or copying a weight.

`mlflow.transformers.save_model` would load the model, write it anew and ask the hub for a model card (48 s without a
network, each time); given a path instead of a model it raises under transformers 5. An MLflow model is a folder with an
`MLmodel` file that says what lies where, so this module writes that file and links the rest.
"""

import json
import os
import platform
import shutil
from importlib.metadata import version
from pathlib import Path

import yaml
from mlflow import pyfunc
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import ColSpec, Schema

TASK = "text-classification"
SEVERAL = "multi_label_classification"
"""What `transformers` calls a task in which several classes may apply."""
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
REQUIREMENTS = ("mlflow", "torch", "transformers")


def save_student(source: Path, target: Path, model: Model, pairs: bool) -> None:
    """Makes an MLflow model of flavours `transformers` and `python_function`.

    Args:
        source: a folder with config.json, weights and tokenizer, as `save_pretrained` writes them.
        target: the MLflow model's folder; what an earlier attempt left there is replaced.
        model: the description to complete and write.
        pairs: whether an input is two texts (columns `text` and `text_pair`) or one string.

    """
    _link_tree(source, target / "model")
    _link_tree(source, target / "components" / "tokenizer", leave_out=WEIGHTS)
    _describe(model, source, pairs)
    model.save(str(target / "MLmodel"))
    (target / "requirements.txt").write_text("\n".join(_requirements()) + "\n")
    environment = {
        "python": platform.python_version(),
        "build_dependencies": ["pip", "setuptools", "wheel"],
        "dependencies": ["-r requirements.txt"],
    }
    (target / "python_env.yaml").write_text(yaml.safe_dump(environment, sort_keys=False))


def _describe(model: Model, source: Path, pairs: bool) -> None:
    several = json.loads((source / "config.json").read_text(encoding="utf-8")).get("problem_type") == SEVERAL
    model.signature = _signature(pairs, several)
    model.add_flavor(
        "transformers",
        transformers_version=version("transformers"),
        task=TASK,
        instance_type="TextClassificationPipeline",
        pipeline_model_type="AutoModelForSequenceClassification",
        source_model_name=source.name,
        model_binary="model",
        components=["tokenizer"],
        tokenizer_type="AutoTokenizer",
    )
    settings = {"truncation": True} | ({"top_k": None} if several else {})
    pyfunc.add_to_model(model, loader_module="mlflow.transformers", python_env="python_env.yaml", model_config=settings)


def _signature(pairs: bool, several: bool) -> ModelSignature:
    """One label with its score; where several may apply, the answer has every class with its score, best first."""
    texts = [ColSpec("string", "text"), ColSpec("string", "text_pair")] if pairs else [ColSpec("string")]
    answer = Schema([ColSpec("string", "label"), ColSpec("double", "score")])
    return ModelSignature(Schema(texts), None if several else answer)


def _requirements() -> list[str]:
    """The versions in use here; a local part such as `+cpu` is on no index."""
    return [f"{name}=={version(name).partition('+')[0]}" for name in REQUIREMENTS]


def _link_tree(source: Path, target: Path, leave_out: tuple[str, ...] = ()) -> None:
    ignore = shutil.ignore_patterns(*leave_out)
    shutil.copytree(source, target, ignore=ignore, copy_function=_link, dirs_exist_ok=True)


def _link(source: str, target: str) -> None:
    """A hard link: a student's weights then lie on the disk once. A copy where the file system cannot link."""
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
