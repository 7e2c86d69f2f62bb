"""Commands that compute: a sweep, and the scores alone."""

from itertools import chain
from pathlib import Path
from shlex import join

import click

from stkd.orchestrator.json_lines import JsonLines, end_of, json_lines
from stkd.orchestrator.options import (
    DEFAULT_STORAGE,
    address_option,
    debug_option,
    names,
    one_of_space_and_resume,
    printed_option,
    set_option,
    speech_options,
    sweep_options,
    tasks_option,
)
from stkd.orchestrator.records import Printed
from stkd.search_spaces.values import without_secrets


@click.command()
@sweep_options
@click.option("--dry-run", is_flag=True, help="Only say what would run, on what and for how long; writes nothing.")
@click.option("--probe", is_flag=True, help="With --dry-run: estimate by a few steps of the real models, some 30 s.")
@click.option("--sweep-id", hidden=True, help="What the new sweep is called; a job says so.")
@address_option
@speech_options
@debug_option
def sweep(
    space: Path | None,
    overrides: tuple[str, ...],
    tasks: str,
    resume: str | None,
    storage: str | None,
    dry_run: bool,
    probe: bool,
    sweep_id: str | None,
    address: str | None,
    quiet: bool,
    as_lines: bool,
) -> int:
    """Search for the best student.

    \b
      stkd sweep --space quickstart
      stkd sweep --space minilm_glue --tasks mrpc,rte --set trials.count=20
      stkd sweep --space quickstart --dry-run --probe
      stkd sweep --resume
      stkd sweep --space glue --storage /shared/stkd --address 10.0.0.1:6379

    Ctrl-C lets running trials finish their epoch, so that --resume loses nothing; twice, it stops at once.
    """  # noqa: D301 - click's mark of lines that stay as they are
    with json_lines(as_lines) as lines:
        file = one_of_space_and_resume(space, overrides, tasks, resume)
        _check_dry(dry_run, probe, resume)
        if resume is not None:
            return end_of(lines, _resume(resume, storage, address, quiet, lines))
        from stkd.orchestrator.preflight import check
        from stkd.search_spaces.reading import read_space

        chosen = read_space(file, overrides, names(tasks), storage)
        prepared = check(chosen, elsewhere=address is not None, dry=dry_run)
        if dry_run:
            from stkd.orchestrator.dry_run import run_dry

            return end_of(lines, run_dry(chosen, prepared, address, probe))
        from stkd.orchestrator.screen import Screen
        from stkd.orchestrator.sweep import run_sweep  # loads Ray and torch

        return end_of(lines, run_sweep(chosen, prepared, address, Screen.of(quiet, lines), sweep_id))


def _check_dry(dry_run: bool, probe: bool, resume: str | None) -> None:
    if probe and not dry_run:
        raise click.UsageError("--probe says how long a sweep would take; give it with --dry-run")
    if resume is not None and dry_run:
        raise click.UsageError("--dry-run is for a new sweep; `stkd list` shows what one that stopped has left to do")


def _resume(sweep_id: str, storage: str | None, address: str | None, quiet: bool, lines: JsonLines | None) -> int:
    from stkd.orchestrator.layout import Storage
    from stkd.orchestrator.preflight import check
    from stkd.search_spaces.reading import read_space

    root = storage or DEFAULT_STORAGE
    folder = Storage(Path(root)).find_sweep(sweep_id)
    space = read_space(folder.space, storage=root)
    prepared = check(space, elsewhere=address is not None)
    from stkd.orchestrator.screen import Screen
    from stkd.orchestrator.sweep import resume_sweep

    return resume_sweep(space, prepared, address, Screen.of(quiet, lines), folder.sweep_id)


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
@address_option
@debug_option
def score(
    space: Path,
    overrides: tuple[str, ...],
    tasks: str,
    storage: str | None,
    out: Path,
    printed: Printed | None,
    address: str | None,
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
    prepared = check(chosen, elsewhere=address is not None)
    check_storage(out, "--out")
    from stkd.orchestrator.scoring import run_score  # loads Ray and torch

    options = [("--space", str(space)), *(("--set", without_secrets(override)) for override in overrides)]
    others = (("--tasks", tasks), ("--storage", storage), ("--address", address))
    options += [(option, value) for option, value in others if value]
    then = join(["stkd", "sweep", *chain.from_iterable(options)])
    return run_score(chosen, prepared, address, out, then, printed)
