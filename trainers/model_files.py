"""What a model's name stands for on disk, found without loading the model."""

import hashlib
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
