"""What a model's name stands for on disk, found without loading the model."""

import hashlib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from stkd.trainers.errors import UserError

PACKAGE = "package:"
FINGERPRINTED = (".json", ".txt", ".safetensors", ".bin", ".model")


def resolve_model(model: str) -> str:
    """A name that `from_pretrained` takes: `package:NAME/FOLDER` becomes that package's folder, others stay.

    Raises:
        UserError: the package is not installed.

    """
    if not model.startswith(PACKAGE):
        return model
    package, _, folder = model.removeprefix(PACKAGE).partition("/")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"model {model!r}: the Python package {package!r} is not installed")
    return str(Path(spec.submodule_search_locations[0]) / folder)


def model_fingerprint(model: str) -> str:
    """A hash of what a model name stands for: its files' contents for a folder, its name for a hub model."""
    source = Path(resolve_model(model))
    if not source.is_dir():
        return hashlib.sha256(model.encode()).hexdigest()[:16]
    digest = hashlib.sha256()
    for path in sorted(source.iterdir()):
        if path.suffix in FINGERPRINTED:
            digest.update(path.name.encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def layer_count(config: Mapping[str, object]) -> int | None:
    """How many encoder layers a model has by its config.json; None where that does not say."""
    count = config.get("num_hidden_layers", config.get("n_layers"))
    return count if isinstance(count, int) else None


def token_limit(config: Mapping[str, object]) -> int | None:
    """How many tokens a model reads at most by its config.json; None where that sets no limit."""
    positions = config.get("max_position_embeddings")
    relative_alone = config.get("position_biased_input") is False
    if not isinstance(positions, int) or relative_alone:
        return None
    return positions - _first_position(config)


def _first_position(config: Mapping[str, object]) -> int:
    """RoBERTa and its kin number tokens from behind the padding token's number on, which MPNet always takes for 1."""
    family, padding = config.get("model_type"), config.get("pad_token_id", 1)
    if family == "mpnet":
        return 2
    return padding + 1 if family in ("roberta", "xlm-roberta", "camembert") and isinstance(padding, int) else 0
