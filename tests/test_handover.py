"""From a budget to a served student: one real sweep, whose student is picked, registered, exported, used and served."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
from click.testing import CliRunner, Result
from sweeping import environment, stkd, write_space
from tiny import MULTILABEL, tiny_teacher
from user_tables import write_table

from stkd.orchestrator.cli import main
from stkd.orchestrator.evidence import chosen_trial
from stkd.orchestrator.layout import Storage, SweepFolder
from stkd.orchestrator.results import TaskResults, read_results
from stkd.search_spaces.reading import read_space
from stkd.trainers.costs import Cost
from stkd.trainers.models import load_classifier, load_tokenizer, save_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ..noload.. loader strategy is deprecated"),  # MLflow's use of SQLAlchemy
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType"),  # MLflow of its own code
]
NAME = "stkd-tiny-remarks"
CHAMPION = f"models:/{NAME}@champion"
TEXTS = ["a lovely room", "the staff was rude", "dull"]
SERVER_SECONDS = 120


@dataclass(frozen=True)
class Swept:
    """A finished sweep over students of one, two and three layers, of which three are over the budget."""

    space: Path
    screen: str
    storage: Storage
    sweep: SweepFolder

    @property
    def results(self) -> TaskResults:
        return read_results(self.sweep)["remarks"]


@pytest.fixture(scope="module")
def budgeted(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    folder = tmp_path_factory.mktemp("handover")
    space = write_space(
        folder,
        search={"student.layers": {"randint": [1, 3]}},
        trials={"count": 3, "searcher": "grid", "scheduler": None, "concurrent": 1},
        budget={"latency_ms": {"p95": 1000, "length": 16}, "parameters": "6.5k"},
        controls=False,
    )
    done = stkd("sweep", "--space", space)
    assert done.returncode == 0, done.stdout + done.stderr
    storage = Storage(folder / "runs")
    return Swept(space, done.stdout, storage, storage.find_sweep())


def run(budgeted: Swept, command: str, *words: str | Path) -> Result:
    return CliRunner().invoke(main, [command, "--storage", str(budgeted.storage.root), *map(str, words)])


def client(budgeted: Swept) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{budgeted.storage.root}/mlflow.db")


# --- the sweep


def test_students_over_the_budget_cost_no_trial(budgeted: Swept) -> None:
    assert "budget: the student of 2 layers keeps it: 5.75k parameters" in budgeted.screen
    assert "budget: the student of 3 layers does not: it has 7.97k parameters and may have 6.5k" in budgeted.screen
    assert "budget: the search goes without the student of 3 layers" in budgeted.screen
    assert read_space(budgeted.sweep.space).search["student.layers"].grid() == (1, 2)
    trials = budgeted.results.of_phase("search")
    assert [(trial.values["student.layers"], trial.status) for trial in trials] == [(1, "finished"), (2, "finished")]
    assert {stage.partition("-")[2] for stage in budgeted.results.stages if "-" in stage} == {"layers=1", "layers=2"}


def test_the_winner_is_measured_as_it_is(budgeted: Swept) -> None:
    chosen = chosen_trial(budgeted.results)
    assert chosen is not None
    ((student, measured),) = budgeted.results.costs.items()
    assert student == chosen.student
    assert not measured.over
    cost = Cost.model_validate(measured.cost)
    assert cost.parameters == chosen.metrics["parameters"]
    assert "the best student keeps the budget: " in budgeted.screen
    assert (
        f"latency {cost.p50:.3g} ms (p95 {cost.p95:.3g}, p99 {cost.p99:.3g}) for one example of 16" in budgeted.screen
    )
    experiment = client(budgeted).get_experiment_by_name("tiny")
    runs = client(budgeted).search_runs([experiment.experiment_id])
    (parent,) = (found for found in runs if found.data.tags["stkd.kind"] == "sweep")
    (best,) = (found for found in runs if found.data.tags.get("stkd.best") == "true")
    for found in (parent, best):
        assert found.data.metrics["latency_p95_ms"] == cost.p95
        assert found.data.tags["stkd.latency"].startswith("one example of 16 tokens on 1 thread of the processor")
    assert "the student of 3 layers does not" in parent.data.tags["stkd.budget"]
    assert parent.data.params["budget.parameters"] == "6500"


def test_a_search_without_any_student_in_budget_is_refused_at_once(budgeted: Swept) -> None:
    begun = sorted(path.name for path in budgeted.storage.sweeps.iterdir())
    done = stkd("sweep", "--space", budgeted.space, "--set", "budget.parameters=1k")
    assert done.returncode == 1
    assert done.stdout == ""
    nearest = "the nearest is the student of 1 layer: it has 3.52k parameters and may have 1k"
    assert done.stderr == f"stkd: no student keeps the budget; {nearest}\n"
    assert sorted(path.name for path in budgeted.storage.sweeps.iterdir()) == begun


# --- the student


def test_a_pick_is_registered_and_a_change_of_mind_moves_the_alias(budgeted: Swept) -> None:
    layers = {trial.values["student.layers"]: trial.trial for trial in budgeted.results.of_phase("search")}
    small = run(budgeted, "pick", "--max-params", "4k", "--alias", "small")
    assert small.exit_code == 0, small.output
    lines = [" ".join(line.split()) for line in small.stdout.splitlines()]
    assert "over the student of 2 layers: it has 5.75k parameters and may have 4k" in lines
    assert f"registered {NAME} version 1, alias small" in lines
    assert any(line.startswith("picked") and "1 layer" in line for line in lines)
    found = json.loads(run(budgeted, "pick", "--json").stdout)
    assert found["registered"]["uri"] == CHAMPION
    assert found["registered"]["before"] is None
    assert found["budget"]["parameters"] == 6500
    assert {option["kind"] for option in found["options"]} == {"the student of 1 layer", "the student of 2 layers"}
    first = found["registered"]["version"]
    moved = json.loads(run(budgeted, "pick", "--json", "--max-params", "4k").stdout)
    assert moved["picked"]["trial"] == layers[1]
    assert (moved["registered"]["version"], moved["registered"]["before"]) == ("1", first)
    version = client(budgeted).get_model_version_by_alias(NAME, "champion")
    assert version.version == 1
    assert version.tags["stkd.trial"] == layers[1]
    assert version.tags["stkd.budget"] == "at most 4k parameters"
    assert "3.52k parameters" in version.description
    assert len(client(budgeted).search_model_versions(f"name = '{NAME}'")) == len({found["picked"]["trial"], layers[1]})


def test_where_nothing_fits_one_line_names_the_nearest(budgeted: Swept) -> None:
    done = run(budgeted, "pick", "--max-params", "1k")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("stkd: no student of remarks keeps the budget; the nearest is the student of 1 layer")
    assert len(done.stderr.splitlines()) == 1


def test_what_was_picked_is_exported_and_scores_a_file(budgeted: Swept, tmp_path: Path) -> None:
    assert run(budgeted, "pick", "--max-params", "4k").exit_code == 0
    picked = json.loads(budgeted.sweep.task("remarks").pick.read_text())["trial"]
    for place, words in enumerate(([], ["--model", CHAMPION])):
        done = run(budgeted, "export", tmp_path / str(place), "--form", "pytorch", *words)
        assert done.exit_code == 0, done.output
        assert f"trial {picked} of {budgeted.sweep.sweep_id}" in done.stdout
    source = write_table(tmp_path / "in.csv", [{"text": text} for text in TEXTS])
    answers = [
        run(budgeted, "predict", "--model", model, "--input", source).stdout for model in (CHAMPION, tmp_path / "0")
    ]
    assert answers[0] == answers[1]
    assert len(answers[0].splitlines()) == 1 + len(TEXTS)


def test_mlflow_serves_the_registered_student(budgeted: Swept, tmp_path: Path) -> None:
    assert run(budgeted, "pick").exit_code == 0
    source = write_table(tmp_path / "in.csv", [{"text": text} for text in TEXTS])
    answers = run(budgeted, "predict", "--model", CHAMPION, "--input", source).stdout.splitlines()[1:]
    with served(CHAMPION, f"sqlite:///{budgeted.storage.root}/mlflow.db", tmp_path) as address:
        found = ask(f"{address}/invocations", {"inputs": TEXTS})["predictions"]
    assert [answer["label"] for answer in found] == [line.split(",")[1] for line in answers]
    scores = [max(map(float, line.split(",")[2:])) for line in answers]
    assert [answer["score"] for answer in found] == pytest.approx(scores, abs=1e-5)


def test_a_student_of_pairs_in_which_several_classes_may_apply_answers_with_all_of_them(tmp_path: Path) -> None:
    from mlflow import pyfunc
    from mlflow.models import Model

    from stkd.orchestrator.mlflow_models import save_student

    base = tiny_teacher(tmp_path / "base", outputs=3)
    save_model(load_classifier(base, MULTILABEL, seed=1), load_tokenizer(base), tmp_path / "student")
    (tmp_path / "served").mkdir()
    save_student(tmp_path / "student", tmp_path / "served", Model(), pairs=True)
    pairs = [{"text": "a lovely film", "text_pair": "dull"}, {"text": "good", "text_pair": "film " * 9}]
    answers = pyfunc.load_model(str(tmp_path / "served")).predict(pairs).to_dict("records")
    source = write_table(tmp_path / "in.csv", pairs)
    words = ["--model", tmp_path / "student", "--input", source, "--text-pair", "text_pair"]
    lines = CliRunner().invoke(main, ["predict", *map(str, words)]).stdout.splitlines()[1:]
    assert len(answers) == len(lines) == 2
    for answer, line in zip(answers, lines, strict=True):
        scores = dict(zip(MULTILABEL.class_names, map(float, line.split(",")[2:]), strict=True))
        assert {each["label"]: each["score"] for each in answer.values()} == pytest.approx(scores, abs=1e-5)


@contextmanager
def served(model: str, uri: str, folder: Path) -> Iterator[str]:
    """MLflow's own server of a model, as a user starts it, on loopback; its whole group is gone in the end."""
    (folder / "uvicorn").write_text(f'#!/bin/sh\nexec {sys.executable} -m uvicorn "$@"\n')
    (folder / "uvicorn").chmod(0o755)  # what `. .venv/bin/activate` puts on the path
    variables = {**environment(), "MLFLOW_TRACKING_URI": uri, "PATH": f"{folder}:{os.environ['PATH']}"}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", model, "--env-manager", "local"]
    with (folder / "serve.log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            env=variables,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(address, server, folder / "serve.log")
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + SERVER_SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            with urlopen(f"{address}/ping", timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(log.read_text()[-2000:])


def ask(address: str, question: object) -> Any:
    request = Request(address, json.dumps(question).encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=30) as answer:
        return json.load(answer)
