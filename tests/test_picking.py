"""Picking under a budget: which student, why, and what another size would gain or cost."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import click
import pytest
from rich.console import Console
from stored import cost, store, trial

from stkd.orchestrator import cost_book
from stkd.orchestrator.artifacts import ArtifactStore
from stkd.orchestrator.cost_book import CostBook
from stkd.orchestrator.finding import find_task
from stkd.orchestrator.handover_commands import Amount, Milliseconds
from stkd.orchestrator.pick_tables import limits, pick_table, reasons
from stkd.orchestrator.picking import Pick, pick
from stkd.orchestrator.picks import Asked, model_name
from stkd.orchestrator.results import Confirmed, Evidence, FinalScore, Interval, Result, StageResult
from stkd.orchestrator.runs import FoundTask
from stkd.orchestrator.tables import print_whole
from stkd.search_spaces.budgets import Budget
from stkd.search_spaces.reading import read_space, space_text
from stkd.trainers.costs import Conditions, Cost, Measurement, Saved
from stkd.trainers.errors import NothingFitsError, UserError
from stkd.trainers.form_names import Form

LAYERS, SEED = "student.layers", "training.seed"
SEARCHED = ["search.student.layers={choice: [1, 2, 3]}"]
TEACHER = (
    StageResult("teacher", "teacher-6", 1.0, False, {"score": 0.95}),
    FinalScore("teacher-6", "t", {"score": 0.93}),
)
SINGLE = (
    *TEACHER,
    trial("a", 0.88, values={"sparsity": 0.3, LAYERS: 3}),
    trial("b", 0.86, values={"sparsity": 0.5, LAYERS: 2}, status="stopped"),
    trial("c", 0.87, values={"sparsity": 0.1, LAYERS: 2}),
    trial("d", 0.8, values={"sparsity": 0.0, LAYERS: 1}),
    trial("e", 0.99, values={"sparsity": 0.9, LAYERS: 1}, status="running"),
    FinalScore("student-a", "t", {"score": 0.85}),
)


@pytest.fixture(autouse=True)
def priced(monkeypatch: pytest.MonkeyPatch) -> list[Measurement]:
    """Every layer costs a millisecond and a million weights; nothing is measured. Gives what was asked for."""
    asked: list[Measurement] = []

    def prices(wanted: Sequence[Measurement]) -> list[Cost]:
        asked.extend(wanted)
        assert all(isinstance(measurement.subject, Saved) for measurement in wanted)
        folders = [measurement.subject.folder for measurement in wanted if isinstance(measurement.subject, Saved)]
        layers = [json.loads((folder / "config.json").read_text())["num_hidden_layers"] for folder in folders]
        return [cost(count, 1_000_000 * count) for count in layers]

    monkeypatch.setattr(cost_book, "measure_afresh", prices)
    return asked


def finished(folder: Path, *results: Result, changes: Sequence[str] = ()) -> FoundTask:
    """A sweep with these results, of the quick start's space with changes, and the students' folders."""
    space = space_text(read_space(Path("quickstart"), [*SEARCHED, *changes]))
    storage = store(folder, *results, task="remarks", space=space)
    found = find_task(storage.root, "latest", None)
    folders = {t.student: found.space.with_values(t.values).student.layers for t in found.results.trials.values()}
    for name, layers in {**folders, "teacher-6": 6}.items():
        (storage.artifacts / name).mkdir(parents=True)
        (storage.artifacts / name / "config.json").write_text(json.dumps({"num_hidden_layers": layers}))
    return found


def picked(found: FoundTask, again: bool = False, form: Form = "pytorch", **budget: object) -> Pick:
    book = CostBook(ArtifactStore(found.storage.artifacts))
    return pick(found, Budget.model_validate(budget), Conditions(length=64, form=form), book, again)


def shown(found: FoundTask, chosen: Pick) -> str:
    screen = io.StringIO()
    print_whole(Console(file=screen, width=200), pick_table(chosen, "students", (0.95, 0.93)))
    return screen.getvalue() + "\n".join(f"{name:<11} {text}" for name, text in reasons(chosen, found.space))


def test_the_budget_decides_and_a_change_of_mind_measures_nothing(tmp_path: Path, priced: list[Measurement]) -> None:
    found = finished(tmp_path, *SINGLE)
    assert picked(found).chosen.trial.trial == "a"
    assert len(priced) == 4
    assert picked(found, latency_ms={"p95": 2.5}).chosen.trial.trial == "c"
    assert picked(found, parameters="2M").chosen.trial.trial == "c"
    assert picked(found, megabytes=4).chosen.trial.trial == "d"
    assert len(priced) == 4
    picked(found, again=True)
    assert len(priced) == 8


def test_what_is_compared_is_measured_together(tmp_path: Path, priced: list[Measurement]) -> None:
    found = finished(tmp_path, *SINGLE)
    subject = Saved(folder=found.storage.artifacts / "student-a")
    CostBook(ArtifactStore(found.storage.artifacts)).costs(
        [Measurement(subject=subject, conditions=Conditions(length=64))]
    )
    assert len(priced) == 1
    picked(found)
    assert len(priced) == 1 + 4


def test_where_nothing_fits_the_nearest_is_named(tmp_path: Path) -> None:
    message = (
        r"no student of remarks keeps the budget; the nearest is the student of 1 layer \(s=0 student.layers=1\): "
    )
    with pytest.raises(NothingFitsError, match=message + r"its p95 is 1.2 ms and may be 1"):
        picked(finished(tmp_path, *SINGLE), latency_ms={"p95": 1.0}, parameters="2M")


def test_of_equally_good_students_the_smallest_is_picked(tmp_path: Path) -> None:
    even = (
        trial("a", 0.8, values={LAYERS: 3}),
        trial("b", 0.8, values={LAYERS: 2}),
        trial("c", 0.7, values={LAYERS: 1}),
    )
    assert picked(finished(tmp_path, *TEACHER, *even)).chosen.trial.trial == "b"


def confirmed(name: str, score: float, layers: int, seed: int) -> Result:
    values = {"distillation.sparsity": 0.3, LAYERS: layers, SEED: seed}
    return trial(name, score, phase="confirm", values=values)


def test_confirmed_students_come_first_by_what_they_surely_reach(tmp_path: Path) -> None:
    sure = [confirmed(f"s{seed}", score, 2, seed) for seed, score in enumerate((0.84, 0.85, 0.84))]
    unsure = [confirmed(f"u{seed}", score, 3, seed) for seed, score in enumerate((0.80, 0.99, 0.85))]
    tested = Confirmed(f"s=0.3 {LAYERS}=2", "candidate", 3, Interval(0, 0, 0), Interval(0.83, 0.8, 0.86), 0.01)
    found = finished(tmp_path, *SINGLE, *sure, *unsure, Evidence([tested], None, "nothing"))
    chosen = picked(found)
    assert (chosen.chosen.trial.trial, chosen.chosen.seeds, chosen.chosen.test) == ("s1", 3, 0.83)
    assert chosen.chosen.as_dict()["interval"]["low"] == pytest.approx(0.829, abs=0.001)
    assert [option.trial.trial for option in chosen.options] == ["u1", "s1", "d"]
    text = shown(found, chosen)
    assert "its mean over 3 seeds is most surely high: 82.9 at least" in text
    assert "82.9 to 85.8" in text
    single = picked(found, parameters="1M")
    assert single.chosen.trial.trial == "d"
    assert single.chosen.as_dict()["interval"] is None
    assert "one training each says little" in shown(found, single)


def test_the_table_tells_what_each_step_would_cost(tmp_path: Path) -> None:
    found = finished(tmp_path, *SINGLE)
    text = shown(found, picked(found, latency_ms={"p95": 3}))
    rows = {line.split()[0]: " ".join(line.split()) for line in text.splitlines() if line.strip()}
    assert rows["(the"] == "(the teacher) 95.0 93.0 7.2 6M 24 +8.0 points, +4.8 ms, +4M"
    assert rows["picked"] == "picked c, trial c" or "picked" in rows
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "over s=0.3 3 layers 88.0 85.0 3.6 3M 12 +1.0 points, +1.2 ms, +1M" in lines
    assert "picked s=0.1 2 layers 87.0 2.4 2M 8" in lines
    assert "s=0 1 layer 80.0 1.2 1M 4 -7.0 points, -1.2 ms, -1M" in lines
    assert "over the student of 3 layers: its p95 is 3.6 ms and may be 3" in lines
    assert "budget at most p95 of 3 ms; 2 of 3 sizes keep it" in lines
    assert "latency p50 2 ms, p95 2.4 ms, p99 3 ms of 300 warm runs" in lines


def test_a_sweep_of_one_size_says_how_to_have_others(tmp_path: Path) -> None:
    found = finished(tmp_path, *TEACHER, trial("a", 0.8, values={}), changes=["search.student.layers=null"])
    text = shown(found, picked(found))
    assert "the sweep has students of one size; search student.layers to see what another would cost" in text
    assert "budget      no limits; 1 of 1 sizes keep it" in text
    assert "in fp32; `stkd export` tells" not in text
    assert "in fp32; `stkd export` tells" in shown(found, picked(found, form="onnx-int8"))


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no student for task remarks yet"):
        picked(finished(tmp_path / "none", *TEACHER))
    found = finished(tmp_path / "gone", *SINGLE)
    (found.storage.artifacts / "student-c" / "config.json").unlink()
    (found.storage.artifacts / "student-c").rmdir()
    with pytest.raises(UserError, match="student-c is gone from the artifacts"):
        picked(found)


# --- what was asked for


def test_options_replace_the_limits_of_the_space_but_not_its_conditions(tmp_path: Path) -> None:
    space = read_space(Path("quickstart"), ["budget={latency_ms: {p95: 5, batch: 2, form: onnx}, parameters: 20M}"])
    plain = Asked()
    assert plain.conditions(space) == Conditions(form="onnx", batch=2, length=64)
    assert plain.budget(space, plain.conditions(space)) == space.budget
    asked = Asked(p99=7.0, form="onnx-int8", length=32)
    conditions = asked.conditions(space)
    assert conditions == Conditions(form="onnx-int8", batch=2, length=32)
    assert limits(asked.budget(space, conditions)) == "at most p99 of 7 ms"
    assert (
        limits(Asked(parameters=5_000_000, megabytes=9.5).budget(space, conditions)) == "at most 5M parameters, 9.5 MB"
    )
    unlimited = read_space(Path("quickstart"))
    assert limits(plain.budget(unlimited, conditions)) == "no limits"
    assert plain.conditions(unlimited) == Conditions(length=64)
    with pytest.raises(UserError, match="--device: cuda, but form onnx is run by onnxruntime on the processor"):
        Asked(device="cuda").conditions(space)
    with pytest.raises(UserError, match="--threads: 999, but this machine has"):
        Asked(threads=999).conditions(space)


def test_times_and_amounts_are_read_as_people_write_them() -> None:
    times = {"5": 5.0, "5ms": 5.0, "0.1s": 100.0, "2.5 ms": 2.5}
    assert {text: Milliseconds().convert(text, None, None) for text in times} == times
    for wrong in ("5m", "-1", "0", "fast", "inf", "nan", ""):
        with pytest.raises(click.BadParameter, match=r"is no time, as 5ms or 0.1s"):
            Milliseconds().convert(wrong, None, None)
    assert Amount().convert("20M", None, None) == 20_000_000
    for wrong in ("20X", "0"):
        with pytest.raises(click.BadParameter):
            Amount().convert(wrong, None, None)


def test_names_in_the_registry_are_such_that_addresses_can_hold_them() -> None:
    assert model_name("quickstart", "remarks") == "stkd-quickstart-remarks"
    assert model_name("my team/Größe: 1", "mrpc") == "stkd-my-team-Gr-e-1-mrpc"
