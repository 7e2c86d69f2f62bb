"""The fresh process that measures what classifiers cost: a line of JSON for each comes in, and one goes out."""

import gc
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, thread_time

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from stkd.trainers.config import DistillationConfig
from stkd.trainers.costs import Conditions, Cost, Failure, Measurement, Saved, Untrained
from stkd.trainers.errors import UserError
from stkd.trainers.forms import DTYPES, FILES, Classifier, Inputs, TorchClassifier
from stkd.trainers.model_files import resolve_model, token_limit
from stkd.trainers.models import load_saved, parameter_count
from stkd.trainers.onnx_models import OnnxClassifier, quantize_onnx, write_onnx
from stkd.trainers.ranking import UnitScores
from stkd.trainers.students import make_student
from stkd.trainers.units import UnitMask, cut

WARM_SECONDS, WARM_RUNS = 0.5, 5
"""The first runs, at least so many for at least so long, do not count."""
SECONDS, RUNS, FEWEST_RUNS = 10.0, 300, 20
"""So many runs count, or fewer where they would take longer."""
OURS = 0.95
"""A run that has the processor for less of its time was interrupted."""


def main() -> None:
    """Answer every line; what a user can mend is an answer, too."""
    torch.set_num_interop_threads(1)
    answers = os.fdopen(int(sys.argv[1]), "w")
    for line in sys.stdin:
        try:
            answer: Cost | Failure = measure(Measurement.model_validate_json(line))
        except (UserError, OSError) as error:  # a hub that is away is an OSError
            answer = Failure(error=" ".join(str(error).split()))
        print(answer.model_dump_json(), file=answers, flush=True)


def measure(wanted: Measurement) -> Cost:
    """The cost of one classifier, measured in this process."""
    torch.set_num_threads(wanted.conditions.threads)
    model, conditions = _model(wanted.subject), wanted.conditions
    with _classifier(wanted, model) as (classifier, megabytes):
        inputs = _inputs(model, conditions)
        gc.collect()
        seconds, interrupted = _time(lambda: classifier.logits(inputs), conditions)
    p50, p95, p99 = (1000 * float(np.percentile(seconds, percent, method="higher")) for percent in (50, 95, 99))
    return Cost(
        parameters=parameter_count(model),
        megabytes=megabytes,
        p50=p50,
        p95=p95,
        p99=p99,
        runs=len(seconds),
        interrupted=interrupted,
    )


def untrained(wanted: Untrained) -> PreTrainedModel:
    """A student of this kind with random weights."""
    student = wanted.student
    config = AutoConfig.from_pretrained(resolve_model(student.model or wanted.teacher))
    config.num_labels = wanted.outputs
    whole: PreTrainedModel = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).eval()
    match student.init:
        case "drop_layers":
            return make_student(whole, student)
        case "prune_units":
            return cut(whole, _by_chance(whole, student.sparsity))
        case "pretrained":
            return whole


def _by_chance(model: PreTrainedModel, sparsity: float) -> UnitMask:
    dense = UnitMask.dense(model)
    heads, neurons = (np.zeros(mask.shape, dtype=np.float32) for mask in (dense.heads, dense.neurons))
    scores = UnitScores(heads, neurons, heads, neurons, heads, neurons)
    return UnitMask.of(scores, DistillationConfig(scorer="random", sparsity=sparsity))


def _model(subject: Saved | Untrained) -> PreTrainedModel:
    return load_saved(subject.folder) if isinstance(subject, Saved) else untrained(subject)


@contextmanager
def _classifier(wanted: Measurement, model: PreTrainedModel) -> Iterator[tuple[Classifier, float]]:
    """The classifier in its form, and how large it is in megabytes."""
    form, device, threads = wanted.conditions.form, wanted.conditions.device, wanted.conditions.threads
    if form in DTYPES:
        classifier = TorchClassifier(model, device, DTYPES[form])
        yield classifier, sum(weight.nbytes for weight in model.parameters()) / 1e6
        return
    if device != "cpu":
        raise UserError(f"{form} is run by onnxruntime on the processor; use the device cpu, not {device}")
    with TemporaryDirectory() as folder:
        path = _onnx_file(wanted, model, Path(folder))
        yield OnnxClassifier(path, threads), path.stat().st_size / 1e6


def _onnx_file(wanted: Measurement, model: PreTrainedModel, folder: Path) -> Path:
    """The file that lies beside a saved classifier, or one that is written for the purpose."""
    subject, form = wanted.subject, wanted.conditions.form
    if isinstance(subject, Saved) and (subject.folder / FILES[form]).is_file():
        return subject.folder / FILES[form]
    inputs = _inputs(model, Conditions(batch=2, length=min(16, wanted.conditions.length)))
    batches = [{name: torch.from_numpy(array) for name, array in inputs.items()}]
    write_onnx(model, folder / FILES["onnx"], batches)
    if form == "onnx-int8":
        quantize_onnx(folder / FILES["onnx"], folder / FILES[form], model, batches)
    return folder / FILES[form]


def _inputs(model: PreTrainedModel, conditions: Conditions) -> Inputs:
    """Tokens by chance, none of them padding; raises UserError where the model does not read so many."""
    limit = token_limit(model.config.to_dict())
    if limit is not None and conditions.length > limit:
        kind = model.config.model_type
        raise UserError(f"the length is {conditions.length} tokens, but this {kind} model reads {limit} at most")
    shape = conditions.batch, conditions.length
    tokens = np.random.default_rng(0).integers(model.config.vocab_size, size=shape)
    inputs = {"input_ids": tokens, "attention_mask": np.ones(shape, dtype=np.int64)}
    if "token_type_ids" in inspect.signature(model.forward).parameters:
        inputs["token_type_ids"] = np.zeros(shape, dtype=np.int64)
    return inputs


def _time(run: Callable[[], object], conditions: Conditions) -> tuple[list[float], float | None]:
    """Seconds of each run, and the share of the runs that other work interrupted.

    Of these, only the time counts in which they had the processor: it is what they take on a machine that does nothing
    else. Of several threads, or a GPU, that is not known: time by the clock counts, and the share is None.
    """
    alone = conditions.device == "cpu" and conditions.threads == 1
    start, warm = perf_counter(), 0
    while warm < WARM_RUNS or perf_counter() - start < WARM_SECONDS:
        run()
        warm += 1
    start, interrupted = perf_counter(), 0
    found: list[float] = []
    while len(found) < RUNS and (perf_counter() - start < SECONDS or len(found) < FEWEST_RUNS):
        seconds, own = _one(run)
        was_interrupted = alone and own < OURS * seconds
        interrupted += was_interrupted
        found.append(own if was_interrupted else seconds)
    return found, interrupted / len(found) if alone else None


def _one(run: Callable[[], object]) -> tuple[float, float]:
    """What a run takes by the clock, and for how long it had the processor."""
    begun, own = perf_counter(), thread_time()
    run()
    return perf_counter() - begun, thread_time() - own


if __name__ == "__main__":
    main()
