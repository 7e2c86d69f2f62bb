"""Commands that hand a student over: picked under a budget, written as a folder, and put to work."""

from pathlib import Path
from typing import Any, get_args

import click
from typing_extensions import override

from stkd.orchestrator.options import debug_option, printed_option, storage_option
from stkd.orchestrator.records import Printed
from stkd.search_spaces.amounts import amount
from stkd.trainers.form_names import Device, Form

sweep_option = click.option(
    "--sweep", "sweep_id", default="latest", show_default=True, metavar="SWEEP", help="Which sweep."
)
task_option = click.option("--task", metavar="TASK", help="Which task; may be left out where the sweep has one.")


class Amount(click.ParamType[int]):
    """A number of things, as 20M."""

    name = "number"

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            found = amount(value)
        except ValueError as error:
            self.fail(f"{value!r} {error}", param, ctx)
        assert isinstance(found, int), "a text becomes a whole number"
        return found if found > 0 else self.fail(f"{value!r} must be more than 0", param, ctx)


class Milliseconds(click.ParamType[float]):
    """A time, as 5, 5ms or 0.1s."""

    name = "milliseconds"

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value).strip()
        number, factor = (text[:-1], 1000.0) if text.endswith("s") and not text.endswith("ms") else (text, 1.0)
        try:
            found = float(number.removesuffix("ms")) * factor
        except ValueError:
            found = 0.0
        return found if 0 < found < float("inf") else self.fail(f"{value!r} is no time, as 5ms or 0.1s", param, ctx)


@click.command()
@storage_option
@sweep_option
@task_option
@click.option("--max-p50", type=Milliseconds(), metavar="TIME", help="Half of all answers take so long at most.")
@click.option("--max-p95", type=Milliseconds(), metavar="TIME", help="95 of 100 answers do, as 5ms.")
@click.option("--max-p99", type=Milliseconds(), metavar="TIME", help="99 of 100 answers do.")
@click.option("--max-params", type=Amount(), metavar="N", help="So many weights at most, as 20M.")
@click.option("--max-megabytes", type=click.FloatRange(0, min_open=True), metavar="MB", help="So large at most.")
@click.option("--form", type=click.Choice(get_args(Form)), help="How the student will be run.  [default: pytorch]")
@click.option("--batch", type=click.IntRange(1), metavar="N", help="Examples at a time.  [default: 1]")
@click.option("--length", type=click.IntRange(1), metavar="N", help="Tokens of each.  [default: training.max_length]")
@click.option("--device", type=click.Choice(get_args(Device)), help="Where.  [default: cpu]")
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Of the processor.  [default: 1]")
@click.option("--alias", default="champion", show_default=True, metavar="NAME", help="What the registry calls it.")
@click.option("--again", is_flag=True, help="Measure also what was measured before.")
@printed_option
@debug_option
def pick(
    storage: Path,
    sweep_id: str,
    task: str | None,
    max_p50: float | None,
    max_p95: float | None,
    max_p99: float | None,
    max_params: int | None,
    max_megabytes: float | None,
    form: Form | None,
    batch: int | None,
    length: int | None,
    device: Device | None,
    threads: int | None,
    alias: str,
    again: bool,
    printed: Printed | None,
) -> None:
    """Choose the best student under a budget, say why, and register it in MLflow.

    Limits and conditions that are not given are those of the sweep's `budget`. A change of mind costs nothing: students
    are measured once, and the registry's alias moves to the one that is picked now.

    \b
      stkd pick
      stkd pick --max-p95 5ms --max-params 20M
      stkd pick --max-p99 20ms --form onnx-int8 --batch 8 --threads 2
    """  # noqa: D301 - click's mark of lines that stay as they are
    from stkd.orchestrator.picks import Asked, run_pick

    asked = Asked(max_p50, max_p95, max_p99, max_params, max_megabytes, form, batch, length, device, threads)
    run_pick(storage, sweep_id, task, asked, alias, again, printed)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@storage_option
@sweep_option
@task_option
@click.option("--model", metavar="RUN", help="Another student than the picked one: a trial, or models:/NAME@ALIAS.")
@click.option(
    "--form",
    "forms",
    multiple=True,
    type=click.Choice(["pytorch", "onnx", "onnx-int8"]),
    help="Only this form beside PyTorch's; repeatable.  [default: all that can be had]",
)
@debug_option
def export(
    folder: Path, storage: Path, sweep_id: str, task: str | None, model: str | None, forms: tuple[Form, ...]
) -> None:
    """Write a student as a folder for transformers and onnxruntime, with a card.

    It is the student that was picked last, or the best one of the sweep where none was. Every form is run on the
    selection split before it leaves: the card tells its score, how far it answers from the student, and how fast.

    \b
      stkd export my-student
      stkd export my-student --model models:/stkd-quickstart-remarks@champion
      stkd export my-student --sweep SWEEP --model TRIAL --form onnx
    """  # noqa: D301 - click's mark of lines that stay as they are
    from stkd.orchestrator.handing_over import run_export

    run_export(folder, storage, sweep_id, task, model, forms)


@click.command()
@click.option("--model", required=True, metavar="MODEL", help="A folder of `stkd export`, or models:/NAME@ALIAS.")
@click.option(
    "--input", "source", required=True, type=click.Path(path_type=Path), metavar="FILE", help="What to score."
)
@click.option(
    "--output",
    "target",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A new file, in the format of its name.  [default: CSV to the screen]",
)
@click.option("--form", type=click.Choice(get_args(Form)), default="pytorch", show_default=True, help="How it is run.")
@click.option("--device", type=click.Choice(get_args(Device)), default="cpu", show_default=True, help="Where.")
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Of the processor.  [default: all]")
@click.option("--text", metavar="COLUMN", help="The column of the text.  [default: as in training]")
@click.option("--text-pair", metavar="COLUMN", help="That of the second text, where the student reads two.")
@click.option(
    "--format",
    "form_of_input",
    type=click.Choice(["csv", "tsv", "jsonl", "parquet"]),
    help="If the name does not tell.",
)
@click.option("--encoding", default="utf-8", show_default=True, metavar="NAME", help="Of CSV, TSV and JSON lines.")
@click.option("--delimiter", metavar="CHARACTER", help="What stands between two columns.")
@click.option("--quoting", type=bool, metavar="true|false", help="Whether quotes enclose fields.  [default: in CSV]")
@storage_option
@debug_option
def predict(
    model: str,
    source: Path,
    target: Path | None,
    form: Form,
    device: Device,
    threads: int | None,
    text: str | None,
    text_pair: str | None,
    form_of_input: str | None,
    encoding: str,
    delimiter: str | None,
    quoting: bool | None,
    storage: Path,
) -> None:
    """Score a file with a student: CSV, TSV, JSON lines or Parquet, of any length.

    Every row gets a line with its number, its label, and how likely each class is. Nothing is scored before the whole
    file was checked.

    \b
      stkd predict --model my-student --input reviews.csv --output scored.csv
      stkd predict --model models:/stkd-quickstart-remarks@champion --input reviews.jsonl --text body
      stkd predict --model my-student --form onnx-int8 --input reviews.parquet --output scored.parquet
    """  # noqa: D301 - click's mark of lines that stay as they are
    from stkd.orchestrator.predicting import Runner, run_predict
    from stkd.trainers.tables import Layout

    columns = {setting: name for setting, name in (("text", text), ("text_pair", text_pair)) if name is not None}
    layout = Layout(columns, form_of_input, encoding, delimiter, quoting, by_options=True)
    run_predict(model, source, target, layout, Runner(form, device, threads), storage)
