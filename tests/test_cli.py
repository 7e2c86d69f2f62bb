"""The command line: what it passes on, and how it ends."""

import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
from click.testing import CliRunner

from stkd.orchestrator.cli import guarded, main
from stkd.orchestrator.options import Settings
from stkd.search_spaces.reading import read_space, space_text
from stkd.search_spaces.schema import Space
from stkd.trainers.errors import UserError
from stkd.trainers.tables import Layout


class PlacementError(ValueError):
    """Stands for an error class that another package of ours made for people."""

    __module__ = "stkd.cluster.cluster"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Any, ...]]:
    """Calls of what the commands pass their work to; nothing of it runs."""
    made: list[tuple[Any, ...]] = []

    def recorder(name: str, answer: object) -> Any:
        def record(*arguments: Any) -> object:
            if name in ("Asked", "Runner"):
                return arguments
            made.append((name, *arguments))
            return answer

        return record

    fakes: dict[str, Mapping[str, object]] = {
        "sweep": {"run_sweep": 0, "resume_sweep": 0},
        "scoring": {"run_score": 0},
        "ui": {"serve_ui": 0},
        "picks": {"run_pick": None, "Asked": None},
        "handing_over": {"run_export": None},
        "predicting": {"run_predict": None, "Runner": None},
    }
    for module, functions in fakes.items():
        fake = ModuleType(module)
        vars(fake).update({name: recorder(name, answer) for name, answer in functions.items()})
        monkeypatch.setitem(sys.modules, f"stkd.orchestrator.{module}", fake)
    monkeypatch.chdir(tmp_path)
    return made


def run(*arguments: str) -> str:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_sweep_gets_the_whole_space_and_its_data(calls: list[tuple[Any, ...]]) -> None:
    run("sweep", "--space", "quickstart", "--set", "trials.count=3", "--storage", "here", "--set", "training.epochs=2")
    ((name, space, prepared, address, screen, sweep_id),) = calls
    assert not screen.console.quiet
    assert screen.lines is None
    assert (name, address, sweep_id) == ("run_sweep", None, None)
    assert isinstance(space, Space)
    assert (space.trials.count, space.training.epochs) == (3, 2)
    assert space.storage_folder == Path.cwd() / "here"
    assert space.storage_folder.is_dir()
    assert set(prepared) == {"remarks"}


def test_tasks_are_split_at_commas_and_the_hub_is_left_alone(calls: list[tuple[Any, ...]]) -> None:
    run("sweep", "--space", "minilm_glue", "--tasks", "rte, mrpc,")
    ((_, space, prepared, *_),) = calls
    assert space.tasks == ("rte", "mrpc")
    assert prepared == {}


@pytest.mark.parametrize("asked", [[], ["latest"], ["quickstart-20250101-000000"]])
def test_a_sweep_is_resumed_as_it_was(asked: list[str], calls: list[tuple[Any, ...]]) -> None:
    folder = Path("moved/sweeps/quickstart-20250101-000000")
    folder.mkdir(parents=True)
    space = read_space(Path("quickstart"), ["trials.count=5"])
    (folder / "space.yaml").write_text(space_text(space), encoding="utf-8")
    run("sweep", "--resume", *asked, "--storage", "moved", "--address", "10.0.0.1:6379")
    ((name, resumed, prepared, address, _, sweep),) = calls
    assert (name, sweep, set(prepared)) == ("resume_sweep", "quickstart-20250101-000000", {"remarks"})
    assert address == "10.0.0.1:6379"
    assert resumed == space.model_copy(update={"storage": "moved"})


def test_the_exit_code_of_a_sweep_is_that_of_the_process(
    calls: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["stkd.orchestrator.sweep"], "run_sweep", lambda *_: 130)
    assert CliRunner().invoke(main, ["sweep", "--space", "quickstart"]).exit_code == 130


def test_scores_are_shown_with_the_command_that_goes_on(calls: list[tuple[Any, ...]]) -> None:
    run("score", "--space", "quickstart", "--set", "training.epochs=2", "--storage", "my runs", "--out", "maps")
    secret = "tracking.uri=http://me:secret@host"
    run("score", "--space", "minilm_glue", "--tasks", "rte", "--set", secret, "--address", "head:6379", "--json")
    (name, space, prepared, _, out, then, form), (_, _, _, address, default, masked, other_form) = calls
    assert (name, space.training.epochs, set(prepared)) == ("run_score", 2, {"remarks"})
    assert (out, form, default, other_form) == (Path("maps"), None, Path("stkd-scores"), "json")
    assert out.is_dir()
    assert then == "stkd sweep --space quickstart --set training.epochs=2 --storage 'my runs'"
    masked_options = "--set 'tracking.uri=http://***@host' --tasks rte --address head:6379"
    assert (masked, address) == (f"stkd sweep --space minilm_glue {masked_options}", "head:6379")


def test_ui_serves_a_storage_folder(calls: list[tuple[Any, ...]]) -> None:
    run("ui")
    run("ui", "--storage", "there", "--port", "5001")
    assert calls == [("serve_ui", Path("./stkd-runs"), None), ("serve_ui", Path("there"), 5001)]


def test_pick_passes_on_what_is_asked_for(calls: list[tuple[Any, ...]]) -> None:
    run("pick")
    words = (
        "--max-p95",
        "5ms",
        "--max-params",
        "20M",
        "--form",
        "onnx-int8",
        "--threads",
        "2",
        "--max-megabytes",
        "60",
    )
    run("pick", *words, "--sweep", "a", "--task", "mrpc", "--alias", "small", "--again", "--json", "--storage", "s")
    (name, storage, sweep, task, plain, *rest), (_, *others, asked, alias, again, printed) = calls
    assert (name, storage, sweep, task, plain, rest) == (
        *("run_pick", Path("./stkd-runs"), "latest", None),
        *((None,) * 10, ["champion", False, None]),
    )
    assert others == [Path("s"), "a", "mrpc"]
    assert asked == (None, 5.0, None, 20_000_000, 60.0, "onnx-int8", None, None, None, 2)
    assert (alias, again, printed) == ("small", True, "json")


def test_export_passes_on_what_is_meant(calls: list[tuple[Any, ...]]) -> None:
    run("export", "out")
    run("export", "out", "--storage", "s", "--sweep", "a", "--task", "mrpc", "--model", "b", "--form", "onnx")
    assert calls == [
        ("run_export", Path("out"), Path("./stkd-runs"), "latest", None, None, ()),
        ("run_export", Path("out"), Path("s"), "a", "mrpc", "b", ("onnx",)),
    ]


def test_predict_passes_on_files_and_how_they_are_read(calls: list[tuple[Any, ...]]) -> None:
    run("predict", "--model", "m", "--input", "in.csv")
    table = ("--text", "body", "--text-pair", "other", "--format", "tsv", "--encoding", "cp1252", "--delimiter", ";")
    runner = ("--form", "onnx", "--threads", "2", "--storage", "s", "--quoting", "true")
    run("predict", "--model", "m", "--input", "in.csv", "--output", "out.csv", *table, *runner)
    assert calls == [
        (
            *("run_predict", "m", Path("in.csv"), None, Layout({}, by_options=True)),
            *(("pytorch", "cpu", None), Path("./stkd-runs")),
        ),
        (
            *("run_predict", "m", Path("in.csv"), Path("out.csv")),
            Layout({"text": "body", "text_pair": "other"}, "tsv", "cp1252", ";", True, by_options=True),
            *(("onnx", "cpu", 2), Path("s")),
        ),
    ]


def test_help_and_version_are_no_failures() -> None:
    assert "Usage:" in run()
    assert run("--help") == run("-h")
    assert "version" in run("--version")
    for name, command in main.commands.items():
        assert command.help, name
        assert "Usage:" in run(name, "--help")
    assert "\n    stkd score --space quickstart\n" in run("score", "--help")


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (UserError("the key is wrong"), 2, "stkd: the key is wrong"),
        (UserError("two\nlines  and spaces"), 2, "stkd: two lines and spaces"),
        (UserError("http://me:secret@host is away"), 2, "stkd: http://***@host is away"),
        (PlacementError("no room"), 2, "stkd: no room"),
        (click.UsageError("no such option"), 2, "stkd: no such option"),
        (
            ValueError("oh"),
            1,
            "stkd: internal error: ValueError: oh; run again with --debug for the traceback",
        ),
        (
            KeyError("x"),
            1,
            "stkd: internal error: KeyError: 'x'; run again with --debug for the traceback",
        ),
    ],
)
def test_an_exception_becomes_a_line_and_an_exit_code(
    raised: Exception, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded(raising(raised), Settings()) == code
    assert capsys.readouterr() == ("", f"{message}\n")


def test_ctrl_c_has_its_own_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(raising(KeyboardInterrupt()), Settings()) == 130
    assert guarded(raising(click.Abort()), Settings()) == 130
    assert capsys.readouterr() == ("", "")


def test_success_is_zero() -> None:
    assert guarded(lambda: None, Settings()) == 0
    assert guarded(lambda: 3, Settings()) == 3


@pytest.mark.parametrize("arguments", [["--debug", "sweep"], ["sweep", "--debug"]])
def test_debug_shows_the_traceback_wherever_it_stands(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, [*arguments, "--space", "nowhere.yaml"])
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("stkd: --space nowhere.yaml")


def raising(error: BaseException) -> Any:
    def command() -> None:
        raise error

    return command
