"""Memory of one process that runs trial after trial."""

from collections.abc import Iterator, Sequence

from measuring import Goal, Row, Settings
from places import workplace
from prepared import Prepared, prepared_task, run_grid

WARM = 5
"""After so many trials everything has been loaded that ever is."""
CHANGES = ("training.epochs=1", "trials.concurrent=1", "data.train_examples=64")


def rows(settings: Settings) -> Iterator[Row]:
    """One row: real trials, half of which compute the logits of a sparse teacher of their own."""
    sparsities = [number / 100 for number in range(settings.size(50, WARM - 1))]
    with workplace() as folder, prepared_task(settings, folder, *CHANGES) as prepared:
        measured = [_memory(prepared, sparsities, number) for number in range(settings.times(1))]
    what = f"most memory of a trial process over {len(measured[0])} trials"
    most, warm = ([max(megabytes[WARM:]) for megabytes in measured], [megabytes[WARM - 1] for megabytes in measured])
    yield Row("trial_memory", what, f"after its trial {WARM}", "MB", most, warm, [Goal("costs", 1.03)])


def _memory(prepared: Prepared, sparsities: Sequence[float], repeat: int) -> list[float]:
    """MB of the process at the end of each trial, no two of them with equal settings."""
    watch = run_grid(prepared, {"temperature": [1.0 + repeat, 1.5 + repeat], "sparsity": sparsities})
    processes = {report["pid"] for report in watch.reports}
    if len(processes) != 1:
        raise RuntimeError(f"{len(watch.reports)} trials took {len(processes)} processes: none was reused throughout")
    return list(watch.process_megabytes.values())
