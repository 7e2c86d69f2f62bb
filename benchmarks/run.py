"""Runs the benches and shows one table: what was measured against what, what it came to, and what is to be reached.

    python benchmarks/run.py                  # all that need no GPU; hours on two cores
    python benchmarks/run.py steps scores     # some
    python benchmarks/run.py --quick          # tiny: shows that they run, says nothing about speed

Each bench is a page beside this one and runs in a process of its own. The table and every number behind it are filed
under benchmarks/results/, with versions and machine; of a quick run only where --out says so.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any

from measuring import HEADINGS, ON_CPU, RESULTS, Row, Settings, environment, file_table, print_table

BENCHES = (
    "steps",
    "scores",
    "evaluation",
    "side_by_side",
    "first_step",
    "no_ops",
    "trial_memory",
    "scale",
    "second_sweep",
    "commands",
    "whole_sweep",
    "engineered_sweep",
    "equality",
)
"""Modules beside this one, each with `rows(settings)`, in the order in which they run."""


def measure(bench: str, settings: Settings) -> list[Row]:
    """The rows of one bench."""
    rows: list[Row] = list(import_module(bench).rows(settings))
    return rows


def measure_apart(bench: str, settings: Settings) -> list[Row]:
    """The same, in a new process: what one bench leaves in memory slows no other."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(measure, bench, settings).result()


def run(benches: Sequence[str], settings: Settings, folder: Path | None) -> None:
    """Run the benches, print the table, and file it after each, so that a failure loses one bench only."""
    around: Mapping[str, Any] = environment()
    rows: list[Row] = []
    for bench in benches:
        print(f"{bench} ...", flush=True)
        start = perf_counter()
        rows += measure_apart(bench, settings)
        print(f"{bench}: {perf_counter() - start:.0f} s", flush=True)
        if folder is not None:
            content = {"environment": around, "quick": settings.quick, "rows": [row.record() for row in rows]}
            file_table(folder, "bench", HEADINGS, [row.cells for row in rows], content)
    print_table(HEADINGS, [row.cells for row in rows])
    if settings.quick:
        print("a quick run: it shows that the benches run; its numbers say nothing")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", nargs="*", help=f"which: {', '.join(BENCHES)}; all where none is named")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, each side measured once")
    parser.add_argument("--repeats", type=int, help="how often each side is measured, instead of each bench's own")
    parser.add_argument("--out", type=Path, help=f"where the table is filed; {RESULTS}, or for --quick nowhere")
    arguments = parser.parse_args()
    unknown = [bench for bench in arguments.bench if bench not in BENCHES]
    if unknown:
        parser.error(f"no such bench: {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    os.environ.update(ON_CPU)
    folder = arguments.out or (None if arguments.quick else RESULTS)
    run(arguments.bench or BENCHES, Settings(arguments.quick, arguments.repeats), folder)


if __name__ == "__main__":
    main()
