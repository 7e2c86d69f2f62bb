"""Classifiers in the forms in which they are run: arrays in, logits out. Shapes: B examples, T tokens, C outputs."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from stkd.trainers.batches import PREDICT_TOKENS, EncodedExamples, sorted_batches
from stkd.trainers.errors import UserError
from stkd.trainers.form_names import Device, Form
from stkd.trainers.models import load_saved
from stkd.trainers.onnx_models import OnnxClassifier

FILES: dict[Form, str] = {
    "pytorch": "model.safetensors",
    "pytorch-bf16": "model.safetensors",
    "onnx": "model.onnx",
    "onnx-int8": "model-int8.onnx",
}
"""What each form is read from, in a classifier's folder."""
DTYPES: dict[Form, torch.dtype] = {"pytorch": torch.float32, "pytorch-bf16": torch.bfloat16}
"""Precision of the weights, in the forms that PyTorch runs."""
Inputs = Mapping[str, NDArray[np.int64]]
"""What a classifier reads, by the names of its inputs, each (B, T)."""


class Classifier(Protocol):
    """Whatever answers with logits."""

    def logits(self, inputs: Inputs) -> NDArray[np.float32]:
        """Raw logits (B, C)."""
        ...


class TorchClassifier:
    """A model that PyTorch runs on some device, in the precision of its weights."""

    def __init__(self, model: PreTrainedModel, device: Device = "cpu", dtype: torch.dtype = torch.float32) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise UserError("device cuda: PyTorch finds no GPU on this machine; use the device cpu")
        self.model = model.eval().to(device=device, dtype=dtype)
        self._device = device

    def logits(self, inputs: Inputs) -> NDArray[np.float32]:
        """Raw logits (B, C)."""
        with torch.inference_mode():
            found = self.model(**{name: torch.from_numpy(array).to(self._device) for name, array in inputs.items()})
            logits: NDArray[np.float32] = found.logits.float().cpu().numpy()
        return logits


def load_form(folder: Path, form: Form, device: Device = "cpu", threads: int | None = None) -> Classifier:
    """The classifier of a folder in one of its forms; `threads` of the processor, or as many as there are cores.

    Raises:
        UserError: the folder lacks the form, or it does not run on this device.

    """
    path = folder / FILES[form]
    if form in ("onnx", "onnx-int8"):
        if device != "cpu":
            raise UserError(f"{form} is run by onnxruntime on the processor; use the device cpu, not {device}")
        if not path.is_file():
            raise UserError(f"{folder} has no {path.name}; `stkd export` writes it")
        return OnnxClassifier(path, threads)
    if threads is not None:
        torch.set_num_threads(threads)
    return TorchClassifier(load_saved(folder), device, DTYPES[form])


def logits_of(
    classifier: Classifier,
    data: EncodedExamples,
    device: Device = "cpu",
    advance: Callable[[int], object] | None = None,
) -> NDArray[np.float32]:
    """Raw logits of all examples in their order, (examples, C); `advance` hears how many more are done."""
    rows: list[NDArray[np.float32]] = [np.empty(0, dtype=np.float32)] * len(data)
    for indices in sorted_batches(data.lengths, PREDICT_TOKENS[device]):
        batch = data.batch(indices, torch.device("cpu"))
        found = classifier.logits({name: tensor.numpy() for name, tensor in batch.inputs.items()})
        for index, row in zip(indices, found, strict=True):
            rows[index] = row
        if advance is not None:
            advance(len(indices))
    return np.stack(rows)
