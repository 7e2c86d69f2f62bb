"""What a card says of its files: how far each form answers as the student does, and what it costs to serve."""

from collections.abc import Iterable

from stkd.orchestrator.cost_book import interruptions
from stkd.orchestrator.handed_over import HandedOver, ModelFile
from stkd.orchestrator.markdown import table
from stkd.orchestrator.single import local_settings
from stkd.orchestrator.tables import percent
from stkd.trainers.costs import Cost
from stkd.trainers.form_names import IN_WORDS

HEADINGS = ("file", "runs in", "MB", "score", "logits differ by at most", "p50 ms", "p95 ms", "p99 ms")
CHECKED = (
    "Score and difference of every form were measured on the whole selection split; the difference is that from the "
    "student in PyTorch."
)
MEASURED = (
    "Latency is of the model alone, from tokens to logits: {conditions}, on {processor}, over {runs} warm runs in a "
    "process that did nothing else{interrupted}. Under the same conditions the teacher takes {p50:.3g} ms "
    "(p95 {p95:.3g}, p99 {p99:.3g})."
)
PRUNED = (
    "`transformers` knows no layers of unequal width. So `model.safetensors` has full size, with zeros for the heads "
    "and neurons that this student lacks: `transformers` alone loads it, and answers the same, but neither smaller nor "
    "faster. stkd loads it small, and that is what its latency here is of."
)
SMALL = "`model.onnx` is the small one: {small:.1f} MB instead of {full:.1f} MB."
LACKING = "As ONNX it is not here: {reason}. `stkd export` writes it where that is mended."
REPRODUCE = """\
`space.yaml` beside this card is a search space that trains this student alone, from the same data ({data}) with the
same seed:

```sh
{command}
```"""
STOPPED = (
    "The sweep stopped this training early, after {ended}; run alone, it goes on to the end and keeps its best epoch."
)


def files(given: HandedOver) -> Iterable[str]:
    """The section of files."""
    yield "## Files"
    yield table(HEADINGS, [_row(file) for file in given.files])
    yield CHECKED
    full, teacher = given.files[0], given.teacher
    yield MEASURED.format(
        conditions=given.conditions.without_form,
        processor=given.processor,
        runs=full.cost.runs,
        interrupted=interruptions(full.cost),
        p50=teacher.p50,
        p95=teacher.p95,
        p99=teacher.p99,
    )
    if given.pruned:
        small = given.file("onnx")
        sizes = [SMALL.format(small=small.megabytes, full=full.megabytes)] if small else []
        yield " ".join([PRUNED, *sizes])
    if given.lacking:
        yield LACKING.format(reason=given.lacking)


def _row(file: ModelFile) -> tuple[str, ...]:
    difference = "" if file.largest_difference is None else f"{file.largest_difference:.1e}"
    megabytes, score = f"{file.megabytes:.1f}", percent(file.score)
    return f"`{file.name}`", IN_WORDS[file.form], megabytes, score, difference, *_latency(file.cost)


def _latency(cost: Cost) -> tuple[str, ...]:
    return tuple(f"{milliseconds:.3g}" for milliseconds in (cost.p50, cost.p95, cost.p99))


def reproduction(given: HandedOver) -> Iterable[str]:
    """The section that says how to get the student again."""
    trial, epochs = given.student.trial, given.settled.training.epochs
    options = "".join(f" --set {key}=PATH" for key in local_settings(given.space))
    yield "## Reproduce"
    yield REPRODUCE.format(data=given.data, command=f"stkd sweep --space space.yaml{options}")
    if trial.status == "stopped":
        yield STOPPED.format(ended=f"{trial.epochs} of {epochs} epochs")
    versions = ", ".join(f"{name} {version}" for name, version in given.versions.items())
    yield f"Handed over with {versions}."
