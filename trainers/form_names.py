"""How a classifier is run, and on what, by name: for the command line, which loads nothing."""

from typing import Literal

Form = Literal["pytorch", "pytorch-bf16", "onnx", "onnx-int8"]
"""By PyTorch in fp32 or with all weights in bf16, by onnxruntime in fp32 or in int8."""
IN_WORDS: dict[Form, str] = {
    "pytorch": "PyTorch in fp32",
    "pytorch-bf16": "PyTorch in bf16",
    "onnx": "onnxruntime in fp32",
    "onnx-int8": "onnxruntime in int8",
}
Device = Literal["cpu", "cuda"]
