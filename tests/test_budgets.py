"""Budgets: what they say, which students keep them, and what is chosen under them."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError
from stored import cost, store, trial
from tiny import TASK, tiny_teacher

from stkd.orchestrator import cost_book
from stkd.orchestrator.artifacts import ArtifactStore
from stkd.orchestrator.budgeting import nearest_miss, student_cost, within_budget
from stkd.orchestrator.cost_book import CostBook, in_words, interruptions
from stkd.orchestrator.evidence import chosen_trial
from stkd.orchestrator.results import StudentCost, read_results
from stkd.orchestrator.tables import size_line
from stkd.search_spaces.amounts import amount, with_unit
from stkd.search_spaces.budgets import Budget
from stkd.search_spaces.distributions import Distribution, among
from stkd.search_spaces.reading import read_space, space_text
from stkd.search_spaces.schema import Space
from stkd.trainers.costs import Conditions, Cost, Measurement, Untrained
from stkd.trainers.errors import NothingFitsError
from stkd.trainers.models import load_classifier, load_tokenizer, save_model

SEARCHED: TypeAdapter[Distribution] = TypeAdapter(Distribution)


class Prices(CostBook):
    """A book in which every layer, and every tenth of the units, costs a millisecond; it remembers what was asked."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    def costs(self, wanted: Sequence[Measurement], again: bool = False) -> list[Cost]:
        (measurement,) = wanted
        assert isinstance(measurement.subject, Untrained)
        student = measurement.subject.student
        size = 10 * (1 - student.sparsity) if student.init == "prune_units" else student.layers
        self.asked.append(round(size, 6))
        return [cost(size, round(1e6 * size))]


# --- what a budget says


def test_amounts_are_read_as_people_write_them() -> None:
    given = {"20M": 20_000_000, "1.5B": 1_500_000_000, "500k": 500_000, "60": 60, "0.1M": 100_000}
    assert {text: amount(text) for text in given} == given
    assert amount(17) == 17
    for wrong in ("20 M", "M", "-3M", "20m", "1e6", ""):
        with pytest.raises(ValueError, match=r"20M or 1\.5B"):
            amount(wrong)
    assert [with_unit(number) for number in (0.5, 999_999, 17_390_594, 1.5e9, 6500)] == [
        "0.5",
        "1M",
        "17.4M",
        "1.5B",
        "6.5k",
    ]
    with pytest.raises(ValidationError):
        Budget.model_validate({"parameters": "0"})


def test_a_budget_comes_back_from_the_file_that_it_is_written_to(tmp_path: Path) -> None:
    given = ["budget={latency_ms: {p95: 5, form: onnx-int8}, parameters: 20M}"]
    space = read_space(Path("quickstart"), given)
    (tmp_path / "space.yaml").write_text(space_text(space))
    again = read_space(tmp_path / "space.yaml")
    assert again.budget == space.budget
    assert again.budget is not None
    assert again.budget.parameters == 20_000_000
    assert again.budget.conditions(64) == Conditions(form="onnx-int8", length=64)
    assert read_space(Path("quickstart")).budget is None


def test_misses_are_told_the_worst_first() -> None:
    budget = Budget.model_validate({"latency_ms": {"p95": 4.0, "p50": 5}, "parameters": 5_000_000, "megabytes": 100})
    assert [str(miss) for miss in budget.misses(cost())] == [
        "it has 17.4M parameters and may have 5M",
        "its p95 is 4.8 ms and may be 4",
    ]
    assert budget.misses(cost(1.0, 100)) == []
    assert Budget().misses(cost()) == []
    assert Budget().conditions(64) == Conditions(length=64)
    (miss,) = Budget(megabytes=60).misses(cost())
    assert str(miss) == "it has 69.6 MB and may have 60"


@pytest.mark.parametrize(
    ("searched", "left", "narrower"),
    [
        ({"randint": [1, 5]}, (1, 2, 3), {"randint": (1, 3)}),
        ({"randint": [1, 5]}, (1,), {"choice": (1,)}),
        ({"quniform": [0.0, 0.9, 0.1]}, (0.7, 0.8, 0.9), {"quniform": (0.7, 0.9, 0.1)}),
        ({"choice": [4, 2, 3]}, (2, 3), {"choice": (2, 3)}),
    ],
)
def test_a_search_among_what_is_left(searched: object, left: tuple[float, ...], narrower: object) -> None:
    distribution = among(SEARCHED.validate_python(searched), left)
    assert distribution.model_dump() == narrower
    assert distribution.grid() == pytest.approx(left)


# --- before a sweep


def space_with(*changes: str) -> Space:
    return read_space(Path("quickstart"), changes)


def test_students_over_the_budget_leave_the_search(tmp_path: Path) -> None:
    book, lines = Prices(), list[str]()
    given = space_with("search.student.layers={choice: [6, 1, 2, 3, 4, 5]}", "budget.latency_ms={p95: 4.9, length: 32}")
    space = within_budget(given, 2, book, lines.append)
    assert space.search["student.layers"].grid() == (1, 2, 3, 4)
    assert set(space.search) == set(given.search)
    assert [line.removeprefix("budget: ") for line in lines[1:]] == [
        "the student of 4 layers keeps it: 4M parameters, 16 MB, latency 4 ms (p95 4.8, p99 6)",
        "the student of 5 layers does not: its p95 is 6 ms and may be 4.9",
        "the search goes without the student of 5 layers, the student of 6 layers",
    ]
    assert lines[0].startswith("budget: measured as one example of 32 tokens on 1 thread of the processor, PyTorch")
    assert len(book.asked) == len(set(book.asked)) <= 3


def test_pruned_students_are_judged_from_the_sparsest_on() -> None:
    changes = ("student={init: prune_units}", "search.student.sparsity={quniform: [0.1, 0.9, 0.1]}")
    space = within_budget(space_with(*changes, "budget.parameters=4M"), 2, Prices(), lambda line: None)
    assert space.search["student.sparsity"].grid() == (0.6, 0.7, 0.8, 0.9)


def test_a_search_within_its_budget_stays_as_it_is() -> None:
    lines: list[str] = []
    given = space_with("budget.parameters=20M")
    assert within_budget(given, 2, Prices(), lines.append) == given
    assert len(lines) == 2
    assert within_budget(space_with(), 2, Prices(), lines.append) == space_with()
    assert len(lines) == 2


def test_a_search_without_any_student_in_budget_is_refused_with_the_nearest() -> None:
    given = space_with("search.student.layers={randint: [2, 6]}", "budget={parameters: 1M, latency_ms: {p99: 1}}")
    message = "no student keeps the budget; the nearest is the student of 2 layers: its p99 is 3 ms and may be 1 and it"
    with pytest.raises(NothingFitsError, match=message):
        within_budget(given, 2, Prices(), lambda line: None)


# --- after it


def measured(name: str, *over: str, ratio: float = 1.0) -> StudentCost:
    return StudentCost(f"student-{name}", "cost-1", "one example", "a processor", cost().model_dump(), over, ratio)


def test_what_is_over_the_budget_is_not_chosen(tmp_path: Path) -> None:
    confirmed = trial("c", 0.4, phase="confirm", values={"distillation.sparsity": 0.3, "training.seed": 777})
    storage = store(tmp_path, trial("a", 0.9), trial("b", 0.8), confirmed, measured("c", "too slow", ratio=1.5))
    results = read_results(storage.find_sweep())["mrpc"]
    assert results.costs["student-c"].over == ["too slow"]
    chosen = chosen_trial(results)
    assert chosen is not None
    assert chosen.trial == "a"
    assert nearest_miss(results) is None
    results.costs |= {found.student: found for found in (measured("a", "too large", ratio=1.1), measured("b", "huge"))}
    results.costs["student-b"] = measured("b", "huge", ratio=3.0)
    assert chosen_trial(results) is None
    assert (
        nearest_miss(results) == f"no student of mrpc keeps the budget; the nearest is {trial('a', 0).name}: too large"
    )


def test_the_screen_tells_what_was_measured(tmp_path: Path) -> None:
    storage = store(tmp_path, trial("a", 0.9), measured("a"))
    line = size_line(read_results(storage.find_sweep())["mrpc"])
    assert line == "student: 17.4M parameters, 69.6 MB, latency 4 ms (p95 4.8, p99 6) for one example"


def test_costs_are_told_with_what_does_not_count() -> None:
    assert interruptions(cost(interrupted=None)) == interruptions(cost(interrupted=0.05)) == ""
    said = "; the time that other work on the machine took from 26 % of the runs is not counted"
    assert interruptions(cost(interrupted=0.26)) == said
    assert in_words(cost(0.5, 3519)) == "3.52k parameters, 0.0141 MB, latency 0.5 ms (p95 0.6, p99 0.75)"


def test_students_of_one_kind_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measurements: list[Measurement] = []

    def count(wanted: Sequence[Measurement]) -> list[Cost]:
        measurements.extend(wanted)
        return [cost(len(measurements)) for _ in wanted]

    monkeypatch.setattr(cost_book, "measure_afresh", count)
    base = tiny_teacher(tmp_path / "base")
    for seed in (1, 2):
        save_model(load_classifier(base, TASK, seed), load_tokenizer(base), tmp_path / str(seed))
    other = tiny_teacher(tmp_path / "other", layers=2)
    book, budget = CostBook(ArtifactStore(tmp_path / "artifacts")), Budget.model_validate({"latency_ms": {"p50": 1.5}})
    first, same = (student_cost(tmp_path / name, Conditions(), budget, book) for name in "12")
    assert (first.student, same.student, first.artifact) == ("1", "2", same.artifact)
    assert first.cost == same.cost
    assert not first.over
    assert len(measurements) == 1
    assert student_cost(Path(other), Conditions(), budget, book).over == ["its p50 is 2 ms and may be 1.5"]
    student_cost(tmp_path / "1", Conditions(batch=2), budget, book)
    assert len(measurements) == 3
    subject = measurements[0]
    assert book.costs([subject, subject], again=True) == [cost(4)] * 2
    assert book.costs([subject]) == [cost(4)]
