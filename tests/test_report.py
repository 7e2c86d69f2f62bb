"""The report: one page that stands by itself, says what is known and no more, and can be read by everybody."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from stored import SPACE, cost, scores_of, store, trial
from typing_extensions import override

from stkd.orchestrator.cli import main
from stkd.orchestrator.contest_panels import front
from stkd.orchestrator.importance import FEWEST, importances
from stkd.orchestrator.layout import Storage
from stkd.orchestrator.results import (
    Confirmed,
    Evidence,
    FinalScore,
    Interval,
    Result,
    ResultsFile,
    Session,
    StageResult,
    StudentCost,
    TrialResult,
)
from stkd.orchestrator.search_panels import band_of, bands
from stkd.search_spaces.reading import read_space
from stkd.trainers.specs import SCORES

LARGEST_PAGE = 2_000_000


@dataclass
class Page(HTMLParser):
    """What a page holds, by what one looks for."""

    text: str
    tags: Counter[str] = field(default_factory=Counter)
    ids: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.text)

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name in ("href", "src", "xlink:href"):
                self.links.append(value or "")
            elif name == "aria-labelledby":
                self.labels.append(value or "")

    @override
    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def prose(self) -> str:
        return " ".join(" ".join(self.words).split())


METRICS = {"epoch": 3.0, "score": 0.9, "parameters": 22.7e6, "megabytes": 91.0, "milliseconds_per_example": 6.5}


def found(seed: int = 0, teacher: Mapping[str, float] = METRICS) -> Iterator[Result]:
    """A teacher, ten students of which some were stopped, controls, and tests."""
    yield StageResult("teacher", "teacher-1", 9.0, False, teacher)
    yield StageResult("scores", "scores-1", 3.0, False)
    rng = np.random.default_rng(seed)
    for number in range(10):
        values = {"interpolation": float(rng.random()), "sparsity": number % 4 / 5, "temperature": 1 + number / 2}
        status = "stopped" if number % 3 == 0 else "finished"
        yield trial(f"t{number}", 0.7 + 0.01 * number, status, values=values)  # type: ignore[arg-type]
    dense = {"distillation.sparsity": 0.0, "distillation.temperature": 2.0}
    yield trial("c1", 0.75, phase="control", role="dense teacher", values=dense)
    yield trial("c2", 0.74, phase="control", role="no teacher", values={"distillation.hard_weight": 1.0})
    yield FinalScore("teacher-1", "test-1", {"score": 0.88})
    yield FinalScore("student-t8", "test-2", {"score": 0.77})
    yield FinalScore("student-c1", "test-3", {"score": 0.76})


def confirmed() -> Iterator[Result]:
    """The best student and a control over three seeds."""
    for seed in (777, 778, 779):
        values = {"distillation.sparsity": 0.2, "training.seed": seed}
        yield trial(f"f{seed}", 0.79, phase="confirm", values=values)
        yield FinalScore(f"student-f{seed}", f"test-{seed}", {"score": 0.78})
    yield StudentCost("student-f777", "cost-1", "batch 1, 128 tokens, 1 thread, cpu", "a processor", dict(cost(4.0)))
    test = Interval(0.781, 0.76, 0.802)
    chosen = Confirmed("s=0.2", "candidate", 3, Interval(0.79, 0.78, 0.8), test, 0.01)
    control = Confirmed("no teacher", "no teacher", 3, Interval(0.75, 0.7, 0.8), Interval(0.74, 0.71, 0.77), 0.01)
    yield Evidence([chosen, control], Interval(0.02, 0.004, 0.036), "the sparse teacher's student is better")


def epoch_of(result: TrialResult, epoch: int) -> dict[str, float]:
    return {"epoch": epoch, "score": result.score - 0.05 / epoch, "best_score": result.score, "loss": 0.5}


def stored_sweep(root: Path, *results: Result, tasks: tuple[str, ...] = ("mrpc",), space: str = SPACE) -> Storage:
    """A sweep with these results for each task, a journal with curves and sizes, an account, and scores."""
    storage = store(root, *results, space=space.replace("[mrpc]", f"[{', '.join(tasks)}]"))
    sweep = storage.find_sweep()
    artifact = storage.artifacts / "scores-1"
    artifact.mkdir(parents=True)
    scores_of(4, 6, 40).save(artifact / SCORES)
    trials = [result for result in results if isinstance(result, TrialResult)]
    lines: list[dict[str, object]] = []
    for task in tasks:
        file = ResultsFile(sweep.task(task).results)
        for result in results if task != "mrpc" else ():
            file.append(result)
        held = {"teacher": 60.0, "idle": 10.0} | {f"t{number}": 20.0 for number in range(10)}
        file.keep_session(Session("2026-01-01T00:00:00+00:00", "core", 2, 2, 1, 135.0, held))
        sizes = {"train": "1000", "validation": "100", "test": "200", "validation_in_train": "0", "test_in_train": "7"}
        params = {f"examples.{name}": size for name, size in sizes.items()} | {"task.kind": "classification"}
        key = f"{sweep.sweep_id}/{task}"
        lines.append({"key": key, "kind": "run_started", "params": params})
        lines += [
            {"key": f"{key}/{result.trial}", "kind": "measured", "metrics": epoch_of(result, epoch), "step": epoch}
            for result in trials
            for epoch in range(1, result.epochs + 1)
        ]
    sweep.journal.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    return storage


def page_of(storage: Storage) -> Page:
    out = storage.root / "page.html"
    done = CliRunner().invoke(main, ["report", "--storage", str(storage.root), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert done.stdout == f"written to {out}\n"
    return Page(out.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Of one task that was confirmed over seeds."""
    return page_of(stored_sweep(tmp_path_factory.mktemp("report"), *found(), *confirmed()))


def test_the_answer_comes_first_with_how_sure_it_is(page: Page) -> None:
    answer = (
        "The best student of mrpc scores 78.1 on the test split as the mean of 3 seeds, 9.9 points below its teacher's"
    )
    assert f"{answer} 88.0, with 76 % of the weights." in page.prose
    assert "over 3 seeds, have a 95 % interval of 76.0 to 80.2. The best control (no teacher) has 74.0." in page.prose
    assert "has 74.0. The sparse teacher's student is better." in page.prose
    assert page.prose.index(answer) < page.prose.index("Is it the best there is?")
    assert "89 %" in page.prose  # of the teacher's score
    assert "4 ms half of all answers; p95 4.8 ms, p99 6 ms: batch 1, 128 tokens, 1 thread, cpu" in page.prose


def test_the_page_needs_no_network_and_no_file(page: Page) -> None:
    assert len(page.text.encode()) < LARGEST_PAGE
    assert page.tags["script"] == page.tags["link"] == page.tags["iframe"] == page.tags["img"] == 0
    outside = [link for link in page.links if not link.startswith(("#", "data:image/png;base64,"))]
    assert outside == []
    assert set(re.findall(r"https?://[^\s\"<]+", page.text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert not re.search(r"url\((?!#)|@import", page.text)


def test_every_chart_has_a_title_and_its_numbers(page: Page) -> None:
    charts = page.tags["figure"]
    assert charts == 10
    assert page.text.count('<svg role="img"') == page.tags["svg"] == charts
    assert page.text.count("<summary>The numbers</summary>") == charts
    assert [label for label in page.labels if label not in page.ids] == []
    titles = (
        *("Against the controls", "Score and speed", "Score and size", "Interpolation and sparsity"),
        *("Score over each setting", "What each setting mattered", "Learning curves", "Heads", "Neurons"),
        "What devices were held for",
    )
    assert [title for title in titles if f"<h3>{title}</h3>" not in page.text] == []


def test_links_lead_to_what_is_there_once(page: Page) -> None:
    assert [name for name, count in Counter(page.ids).items() if count > 1] == []
    within = [link.removeprefix("#") for link in page.links if link.startswith("#")]
    assert len(within) > 20
    assert [name for name in within if name not in page.ids] == []
    used = set(re.findall(r"url\(#([^)]+)\)", page.text))
    assert used
    assert used <= set(page.ids)


def test_colours_are_the_pages_own(page: Page) -> None:
    drawn = re.findall(r"<svg role.*?</svg>", page.text, re.DOTALL)
    assert sum(chart.count("var(--ink)") for chart in drawn) > 50
    assert "prefers-color-scheme: dark" in page.text
    assert set(re.findall(r"var\(--(\w+)\)", page.text)) == {
        "ink",
        "muted",
        "grid",
        "paper",
        "card",
        "accent",
        "second",
    }


def test_data_that_is_in_two_splits_is_told(page: Page) -> None:
    assert "mrpc: 7 test examples are in the training data, word for word." in page.prose
    assert "mrpc classification 1,000 100 200 0 7" in page.prose


def test_the_page_says_how_to_have_it_again(page: Page) -> None:
    assert re.search(r"stkd reproduce tiny-[\d-]+/mrpc/f777 --storage ", page.prose)
    assert re.search(r"stkd sweep --space \S+/space.yaml", page.prose)
    assert "quniform:" in page.prose


def test_one_training_is_not_made_more_of_and_texts_are_only_texts(tmp_path: Path) -> None:
    space = SPACE.replace("some/teacher", "'<script>alert(1)</script>&\"$x^2$'")
    space += "tracking: {uri: 'http://me:secret@host'}\n"
    page = page_of(stored_sweep(tmp_path, *found(teacher={"score": 0.9}), space=space))  # one that was not trained here
    assert page.tags["script"] == 0
    assert "secret" not in page.text
    prose = page.prose
    assert "uri: http://***@host" in prose
    assert 'small students of <script>alert(1)</script>&"$x^2$' in prose
    assert "It is one training, the best of 10 on the selection split: no interval is known" in prose
    assert "The best control (dense teacher) has 76.0." in prose
    assert "95 % interval" not in prose
    assert "This sweep has crashed: the page tells what is known so far." in prose


def test_several_tasks_have_a_table_and_a_mean(tmp_path: Path) -> None:
    page = page_of(stored_sweep(tmp_path, *found(), *confirmed(), tasks=("mrpc", "rte")))
    assert "The best students of 2 tasks average 78.1 on the test splits, 89 % of their teachers' 88.0." in page.prose
    assert "Of 2 tasks that were confirmed over seeds, the sparse teacher's student is better in 2, worse" in page.prose
    assert "rte 88.0 78.1 76.0 to 80.2 89 % 74.0 76.0 +2.0 (+0.4 to +3.6) 69 3.1" in page.prose
    assert "mean 88.0 78.1 89 % 74.0 76.0" in page.prose
    assert [name for name, count in Counter(page.ids).items() if count > 1] == []
    assert page.tags["figure"] == 2 * 10
    assert len(page.text.encode()) < LARGEST_PAGE


def test_a_sweep_without_a_student_has_no_report(tmp_path: Path) -> None:
    storage = store(tmp_path, StageResult("teacher", "teacher-1", 9.0, False, METRICS), space=SPACE)
    done = CliRunner().invoke(main, ["report", "--storage", str(storage.root)])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "has no student yet, so there is nothing to report" in done.stderr


def test_a_page_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    storage = stored_sweep(tmp_path, *found())
    done = CliRunner().invoke(
        main, ["report", "--storage", str(storage.root), "--out", str(tmp_path / "no" / "x.html")]
    )
    assert done.exit_code == 2
    assert "x.html: cannot be written: No such file or directory" in done.stderr


# What the charts are of


def test_the_front_is_what_nothing_beats() -> None:
    points = np.array([(3.0, 70.0), (1.0, 60.0), (2.0, 60.0), (2.0, 71.0), (4.0, 80.0), (1.0, 50.0)])
    assert front(points).tolist() == [[1.0, 60.0], [2.0, 71.0], [4.0, 80.0]]


def test_few_values_stand_for_themselves_and_many_in_bands() -> None:
    assert bands([0.5, 0.0, 0.5], 3) == [(0.0, 0.0), (0.5, 0.5)]
    shares = bands([0.1, 0.2, 0.3, 0.94], 2)
    assert shares == [(0.0, 0.5), (0.5, 1.0)]
    assert [band_of(value, shares) for value in (0.0, 0.5, 0.51, 1.0)] == [0, 0, 1, 1]
    assert bands([1.0, 2.0, 3.0, 9.0], 2) == [(1.0, 5.0), (5.0, 9.0)]


def test_what_decides_the_score_matters(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    search = read_space(tmp_path / "space.yaml").search
    rng = np.random.default_rng(0)
    trials, curves = [], {}
    for number in range(40):
        values = {
            "interpolation": float(rng.random()),
            "sparsity": number % 10 / 10,
            "temperature": float(rng.uniform(1, 8)),
        }
        status = "finished" if number % 2 else "stopped"
        trials.append(trial(f"t{number}", 0.5 + 0.4 * values["sparsity"], status, values=values))  # type: ignore[arg-type]
        curves[f"t{number}"] = {1: {"best_score": 0.5 + 0.1 * values["interpolation"]}}
    end, first = importances(tmp_path / "none.jsonl", search, trials, curves)
    assert (end.trials, first.trials) == (20, 40)
    assert max(end.shares, key=lambda key: end.shares[key]) == "sparsity"
    assert max(first.shares, key=lambda key: first.shares[key]) == "interpolation"
    assert end.shares["sparsity"] > 0.8
    assert sum(end.shares.values()) == pytest.approx(1)
    assert importances(tmp_path / "none.jsonl", search, trials[: FEWEST - 1], {}) == []
