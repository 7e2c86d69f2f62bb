"""Commands that compute: a sweep, and the scores alone."""

from itertools import chain
from pathlib import Path
from shlex import join

import click

from stkd.orchestrator.options import DEFAULT_STORAGE, debug_option, names, printed_option, set_option, tasks_option
from stkd.orchestrator.records import Printed
from stkd.search_spaces.values import without_secrets


@click.command()
@click.option("--space", type=click.Path(path_type=Path), metavar="FILE", help="A search-space file, or `quickstart`.")
@set_option
@tasks_option
@click.option(
    "--resume",
    is_flag=False,
    flag_value="latest",
    metavar="[SWEEP]",
    help="Continue a sweep that was stopped: this one, or the latest.",
)
@click.option(
    "--storage",
    metavar="DIR",
    help=f"Where results go, instead of the file's storage; with --resume, where they are ({DEFAULT_STORAGE}).",
)
@debug_option
def sweep(space: Path | None, overrides: tuple[str, ...], tasks: str, resume: str | None, storage: str | None) -> int:
    """Search for the best student.

    \b
      stkd sweep --space quickstart
      stkd sweep --space minilm_glue --tasks mrpc,rte --set trials.count=20
      stkd sweep --resume
    """  # noqa: D301 - click's mark of lines that stay as they are
    if resume is not None:
        if space or overrides or tasks:
            raise click.UsageError("--resume continues a sweep as it was begun; leave out --space, --set and --tasks")
        return _resume(resume, storage)
    if space is None:
        raise click.UsageError("give a search space, as in stkd sweep --space quickstart, or --resume")
    from stkd.orchestrator.preflight import check
    from stkd.search_spaces.reading import read_space

    chosen = read_space(space, overrides, names(tasks), storage)
    prepared = check(chosen)
    from stkd.orchestrator.sweep import run_sweep  # loads Ray and torch

    return run_sweep(chosen, prepared)


def _resume(sweep_id: str, storage: str | None) -> int:
    from stkd.orchestrator.layout import Storage
    from stkd.orchestrator.preflight import check
    from stkd.search_spaces.reading import read_space

    root = storage or DEFAULT_STORAGE
    folder = Storage(Path(root)).find_sweep(sweep_id)
    space = read_space(folder.space, storage=root)
    prepared = check(space)
    from stkd.orchestrator.sweep import resume_sweep

    return resume_sweep(space, prepared, folder.sweep_id)


@click.command()
@click.option(
    "--space",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="A search-space file, or `quickstart`.",
)
@set_option
@tasks_option
@click.option("--storage", metavar="DIR", help="Where finished stages are kept, instead of the file's storage.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="./stkd-scores",
    show_default=True,
    metavar="DIR",
    help="Where pictures go, in a folder for each task.",
)
@printed_option
@debug_option
def score(
    space: Path, overrides: tuple[str, ...], tasks: str, storage: str | None, out: Path, printed: Printed | None
) -> int:
    """Show which of the teacher's heads and neurons matter, without a search.

    Runs a sweep's stages up to the scores. What is finished is kept: a sweep with the same settings takes it over.

    \b
      stkd score --space quickstart
      stkd score --space minilm_glue --tasks mrpc --set distillation.interpolation=0.2
    """  # noqa: D301 - click's mark of lines that stay as they are
    from stkd.orchestrator.preflight import check, check_storage
    from stkd.search_spaces.reading import read_space

    chosen = read_space(space, overrides, names(tasks), storage)
    prepared = check(chosen)
    check_storage(out, "--out")
    from stkd.orchestrator.scoring import run_score  # loads Ray and torch

    options = [("--space", str(space)), *(("--set", without_secrets(override)) for override in overrides)]
    options += [(option, value) for option, value in (("--tasks", tasks), ("--storage", storage)) if value]
    return run_score(chosen, prepared, out, join(["stkd", "sweep", *chain.from_iterable(options)]), printed)
