"""Classifiers as ONNX files: small, also where `transformers` needs full size. Needs the extra `onnx`.

What is written is run by onnxruntime and compared with the model before it gets its name. Shapes: B examples, T tokens.
"""

import copy
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stkd.trainers.errors import OnnxError

PACKAGES = ("onnx", "onnx_ir", "onnxruntime", "onnxscript")
OPSET = 20
"""Later ones have an attention of their own, which onnxruntime cannot quantise."""
TOLERANCE = 1e-4
"""How far a logit may lie from PyTorch's: different orders of summation are far below, a mistake is far above."""
MOST_BYTES = 2_000_000_000
"""What one file can hold."""

Batches = Sequence[Mapping[str, Tensor]]
"""What the model reads, by the names of its inputs, each (B, T); all batches have the same names."""


def check_packages() -> None:
    """Raises OnnxError where a package is missing, with the command that installs all."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise OnnxError(f"ONNX needs {', '.join(missing)}, not installed here: pip install 'stkd[onnx]'")


def write_onnx(model: PreTrainedModel, path: Path, batches: Batches, tolerance: float = TOLERANCE) -> float:
    """Write a classifier in eval mode as one file; returns how far its logits on `batches` are from PyTorch's at most.

    Inputs are named as in the batches, the output is `logits`, (B, C). B and T may change from call to call.

    Raises:
        OnnxError: packages are missing, or the model is too large, cannot be written, or answers otherwise there. The
            file is then not there, or what it was before.

    """
    check_packages()
    with _aside(path) as aside:
        _export(model, batches[0], aside)
        difference = largest_difference(aside, model, batches)
        _check(difference, tolerance, model)
        aside.replace(path)
    return difference


def quantize_onnx(source: Path, target: Path, model: PreTrainedModel, batches: Batches) -> float:
    """Write what `write_onnx` wrote with weights in int8, each channel with its own scale.

    Activations are quantised as they come: no data are needed. Returns the same comparison with the model as
    `write_onnx`, without a limit: how much rounding a task bears is told by its score alone. Weights are unsigned:
    with signed ones sums saturate on CPUs without VNNI instructions, and answers differ from machine to machine.

    Raises:
        OnnxError: packages are missing, or an answer is not a number.

    """
    check_packages()
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with _aside(target) as aside, TemporaryDirectory() as folder, _quietly():
        prepared = Path(folder) / source.name
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_dynamic(prepared, aside, per_channel=True, weight_type=QuantType.QUInt8)
        difference = largest_difference(aside, model, batches)
        _check(difference, inf, model)
        aside.replace(target)
    return difference


class OnnxClassifier:
    """A file that onnxruntime runs on the processor, with so many threads, or as many as there are cores."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        check_packages()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        options.intra_op_num_threads = threads or 0
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._names = {declared.name for declared in self._session.get_inputs()}

    def logits(self, inputs: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        """Raw logits (B, C) of inputs (B, T); those that the program does not know are left out."""
        known = {name: array for name, array in inputs.items() if name in self._names}
        found: list[NDArray[np.float32]] = self._session.run(["logits"], known)
        return found[0]


def largest_difference(path: Path, model: PreTrainedModel, batches: Iterable[Mapping[str, Tensor]]) -> float:
    """How far any logit that onnxruntime computes from the file is from the model's own; the model is on the CPU."""
    classifier = OnnxClassifier(path)
    worst = torch.zeros(())
    for batch in batches:
        found = classifier.logits({name: tensor.numpy() for name, tensor in batch.items()})
        with torch.inference_mode():
            expected = model(**batch).logits
        worst = torch.maximum(worst, (torch.from_numpy(found) - expected).abs().max())
    return float(worst)


def _check(difference: float, tolerance: float, model: PreTrainedModel) -> None:
    if not difference <= tolerance:  # nor is nan
        raise OnnxError(
            f"{_name(model)} cannot be handed over as ONNX: its logits there differ by {difference:.1e} from PyTorch's "
            f"and may by {tolerance:.0e}"
        )


def sample_batches(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, longest: int) -> list[dict[str, Tensor]]:
    """Seeded random batches of several shapes, up to `longest` tokens, with the inputs that the tokenizer makes."""
    names = ["input_ids", "attention_mask"]
    if "token_type_ids" in tokenizer.model_input_names:
        names.append("token_type_ids")
    shapes = ((1, min(7, longest)), (5, min(16, longest)), (2, longest))
    generator = torch.Generator().manual_seed(0)
    return [random_batch(model, names, shape, generator) for shape in shapes]


def random_batch(
    model: PreTrainedModel, names: Sequence[str], shape: tuple[int, int], generator: torch.Generator
) -> dict[str, Tensor]:
    """Random tokens of that shape (B, T); every example but the first is shorter, and padded."""
    examples, length = shape
    lengths = torch.randint(1, length + 1, (examples, 1), generator=generator)
    lengths[0] = length
    present = (torch.arange(length) < lengths).long()
    tokens = torch.randint(model.config.vocab_size, shape, generator=generator)
    kinds = max(1, model.config.to_dict().get("type_vocab_size", 1))
    inputs = {
        "input_ids": torch.where(present.bool(), tokens, model.config.pad_token_id),
        "attention_mask": present,
        "token_type_ids": torch.randint(kinds, shape, generator=generator) * present,
    }
    return {name: inputs[name] for name in names}


def _export(model: PreTrainedModel, names: Iterable[str], path: Path) -> None:
    """The exporter reads the program and not the values, so that any inputs serve whose axes are longer than one."""
    assert not model.training, "a model is written as it answers"
    size = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    if size > MOST_BYTES:
        raise OnnxError(f"{_name(model)} has {size / 1e9:.1f} GB, and an ONNX file holds {MOST_BYTES / 1e9:.0f} GB")
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    with _quietly():
        try:
            program = torch.onnx.export(
                _without_empty_projections(model),
                kwargs={name: torch.zeros(2, 8, dtype=torch.long) for name in names},
                output_names=["logits"],
                opset_version=OPSET,
                dynamo=True,
                dynamic_shapes={name: {0: "batch", 1: "sequence"} for name in names},
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = str(error.__cause__ or error).strip().partition("\n")[0]
            raise OnnxError(f"{_name(model)} cannot be written as ONNX: {reason}") from error
        assert program is not None, "no file was named, so that the program comes back"
        ClearMetadataAndDocStringPass()(program.model)  # it tells lines of source code with their paths
        program.save(path, external_data=False)


def _without_empty_projections(model: PreTrainedModel) -> PreTrainedModel:
    """The same function for programs that stumble over empty matrices: quantised, they come to anything."""
    empty = [name for name, part in model.named_modules() if isinstance(part, nn.Linear) and part.in_features == 0]
    same = copy.deepcopy(model) if empty else model
    for name in empty:
        same.set_submodule(name, _BiasAlone(same.get_submodule(name)))
    return same


class _BiasAlone(nn.Module):
    """What is left of a projection from no channels, of a layer that has lost all its heads or neurons."""

    def __init__(self, projection: nn.Linear) -> None:
        super().__init__()
        self.bias = nn.Parameter(projection.weight.new_zeros(projection.out_features))
        if projection.bias is not None:
            self.bias = projection.bias

    def forward(self, channels: Tensor) -> Tensor:
        """The bias (width,) for every token of (B, T, 0)."""
        return self.bias.expand(*channels.shape[:-1], -1)


def _name(model: PreTrainedModel) -> str:
    return f"this {model.config.model_type} model"


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """A name to write to before `path` is replaced; whatever lies there in the end goes."""
    aside = path.with_name(f".{path.name}")
    try:
        yield aside
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what the libraries remark to their own developers; what they write is checked, whatever they say."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
