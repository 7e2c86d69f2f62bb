"""A sweep over many nodes: raylets of this machine with one CPU each, trials that compute nothing, everything recorded.

    python benchmarks/many_nodes.py                             # 8, 16, 32 nodes, 2,000 trials each; 32 need over 24 GB
    python benchmarks/many_nodes.py --nodes 3 --trials 24 --out DIR   # shows that it runs

The nodes share this machine's cores: how many trials they do a minute says little, how that changes with nodes and
trials says what grows. A result waits from when its trial has it until the sweep has noted it.
"""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from secrets import token_hex
from socket import socket
from time import monotonic, perf_counter, process_time, sleep, time
from typing import Any

import numpy as np
from measuring import ON_CPU, RESULTS, Settings, environment, file_table, print_table
from mlflow import MlflowClient
from no_ops import NoOp, recorded
from places import workplace
from prepared import Prepared, Watch, prepared_task
from typing_extensions import override

from stkd.orchestrator.tracking import default_uri

HEADINGS = (
    "nodes",
    "trials",
    "a minute",
    "driver, CPU ms a trial",
    "driver, MB",
    "a result waits, median ms",
    "95 of 100",
    "longest",
    "MLflow reads all runs, s",
)
LOOPBACK = "127.0.0.1"
START_SECONDS, END_SECONDS = 120.0, 60.0
PARTS = 4
"""Each sweep's trials are told of in so many parts, as they came."""


class Noted(NoOp):
    """Says when it has its result."""

    def step(self) -> dict[str, Any]:
        """Report."""
        return {**super().step(), "had": time()}


class Waits(Watch):
    """Also keeps, result by result, when it was noted, how long it had waited, and the CPU that the driver had used."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.noted: list[tuple[float, float, float]] = [(time(), 0.0, process_time())]

    @override
    def on_trial_result(self, *arguments: Any, **info: Any) -> None:
        super().on_trial_result(*arguments, **info)
        now = time()
        self.noted.append((now, now - info["result"]["had"], process_time()))


@contextmanager
def cluster_of(nodes: int, folder: Path) -> Iterator[str]:
    """A head without CPUs and so many nodes with one each, all on loopback and with a token; yields its address."""
    with socket() as probe:
        probe.bind((LOOPBACK, 0))
        address = f"{LOOPBACK}:{probe.getsockname()[1]}"
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token_hex(16)}
    head = ["--head", f"--port={address.rpartition(':')[2]}", "--num-cpus=0", "--include-dashboard=false"]
    with ExitStack() as stack:
        stack.enter_context(_node(folder / "n", head))
        for number in range(nodes):
            stack.enter_context(_node(folder / f"n{number}", [f"--address={address}", "--num-cpus=1"]))
        yield address


@contextmanager
def _node(folder: Path, options: Sequence[str]) -> Iterator[None]:
    folder.mkdir()
    log = folder / "log"
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", f"--node-ip-address={LOOPBACK}"]
    command += [f"--temp-dir={folder}", "--dashboard-agent-listen-port=0", "--object-store-memory=100000000"]
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603
            [*command, "--disable-usage-stats", *options], stdout=output, stderr=output, start_new_session=True
        )
    try:
        deadline = monotonic() + START_SECONDS
        while "Ray runtime started" not in log.read_text():
            if process.poll() is not None or monotonic() > deadline:
                raise RuntimeError(f"a node does not start: {log.read_text()}")
            sleep(0.1)
        yield
    finally:
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def measured(nodes: int, prepared: Prepared) -> list[list[str]]:
    """The rows of one sweep."""
    watch = recorded(prepared, Waits, Noted)
    start = perf_counter()
    uri, experiment = default_uri(prepared.storage.root), prepared.space.experiment
    runs = _all_runs(MlflowClient(uri), experiment)
    read = perf_counter() - start
    if runs <= len(watch.reports):
        raise RuntimeError(f"MLflow has {runs} runs of {len(watch.reports)} trials")
    noted, count = np.array(watch.noted), len(watch.reports)
    rows = []
    for part in range(PARTS):
        first, last = part * count // PARTS, (part + 1) * count // PARTS
        seconds, _, used = noted[last] - noted[first]
        waits = 1e3 * np.quantile(noted[first + 1 : last + 1, 1], (0.5, 0.95, 1.0))
        figures = [60 * (last - first) / seconds, 1e3 * used / (last - first), watch.driver_megabytes[last - 1], *waits]
        end = f"{read:.1f}" if last == count else ""
        rows.append([str(nodes), f"{first + 1} to {last}", *(f"{figure:,.0f}" for figure in figures), end])
    return rows


def _all_runs(client: MlflowClient, experiment: str) -> int:
    """How many there are, read page by page as the user interface does."""
    found = client.get_experiment_by_name(experiment)
    if found is None:
        raise RuntimeError(f"MLflow knows no experiment {experiment}")
    count, token = 0, None
    while count == 0 or token:
        page = client.search_runs([found.experiment_id], page_token=token)
        count, token = count + len(page), page.token
    return count


def main() -> None:
    """Read the command line, and run one sweep for each number of nodes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=(8, 16, 32))
    parser.add_argument("--trials", type=int, default=2_000)
    parser.add_argument("--searcher", choices=("optuna", "random"), default="optuna")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the table is filed")
    asked = parser.parse_args()
    os.environ.update(ON_CPU)
    around, rows = environment(), []
    changes = (f"trials.count={asked.trials}", f"trials.searcher={asked.searcher}", "data.train_examples=64")
    tiny = Settings(quick=True)  # nothing is computed: any teacher will do
    for nodes in asked.nodes:
        with (
            workplace() as folder,
            cluster_of(nodes, folder) as address,
            prepared_task(tiny, folder, *changes, address=address) as task,
        ):
            rows += measured(nodes, task)
        file_table(asked.out, "many-nodes", HEADINGS, rows, {"environment": around, "rows": rows})
        print_table(HEADINGS, rows)


if __name__ == "__main__":
    main()
