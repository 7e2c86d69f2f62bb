"""What the scores of a teacher's units say: numbers by layer, tables, heat maps, and the command that shows them."""

import io
import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import matplotlib as mpl
import numpy as np
import psutil
import pytest
from rich.console import Console
from stored import scores_of
from sweeping import STKD, environment, stkd, write_space

from stkd.orchestrator.heat_maps import PictureError, draw_heat_maps
from stkd.orchestrator.layout import Storage
from stkd.orchestrator.score_report import ScoreReport
from stkd.orchestrator.score_tables import print_scores
from stkd.trainers.config import DistillationConfig
from stkd.trainers.ranking import Scores, UnitScores


def array(*rows: list[float]) -> Scores:
    return np.array(rows, dtype=np.float32)


SMALL = UnitScores(
    head_expressiveness=array([3, 4], [6, 8]),
    neuron_expressiveness=array([1, 2, 2], [2, 3, 6]),
    head_friendliness=array([4, 3], [3, 4]),
    neuron_friendliness=array([0, 0, 0], [0, 0, 0]),
    head_magnitude=array([4, 1], [2, 3]),
    neuron_magnitude=array([1, 2, 3], [6, 5, 4]),
)
"""Two layers of two heads and three neurons. At layer norm one, expressiveness of heads is (.6 .8), (.6 .8), and
friendliness (.8 .6), (.6 .8); of neurons, expressiveness is (1 2 2)/3 and (2 3 6)/7."""


# Numbers


def test_each_layers_share_of_the_whole() -> None:
    report = ScoreReport.of(SMALL, DistillationConfig(interpolation=0.5), seed=0)
    first, second = report.heads.layers
    assert (first.layer, second.layer) == (1, 2)
    assert (first.expressiveness, second.expressiveness) == (7 / 21, 14 / 21)
    assert (first.friendliness, second.friendliness) == (0.5, 0.5)
    assert first.knowledge == pytest.approx((0.7 + 0.7) / (0.7 + 0.7 + 0.6 + 0.8))
    assert report.heads.units == 2
    assert [layer.expressiveness for layer in report.neurons.layers] == [5 / 16, 11 / 16]
    assert [layer.friendliness for layer in report.neurons.layers] == [0, 0]
    assert report.neurons.layers[0].knowledge == pytest.approx((5 / 3) / (5 / 3 + 11 / 7))


def test_shares_are_those_of_numpy() -> None:
    scores = scores_of(4, 6, 20)
    report = ScoreReport.of(scores, DistillationConfig(interpolation=0.3), seed=0)
    expected = 0.3 * np.concatenate(
        [row / np.linalg.norm(row) for row in scores.neuron_expressiveness]
    ) + 0.7 * np.concatenate([row / np.linalg.norm(row) for row in scores.neuron_friendliness])
    by_layer = expected.reshape(4, 20).sum(axis=1) / expected.sum()
    np.testing.assert_allclose([layer.knowledge for layer in report.neurons.layers], by_layer, rtol=1e-4)
    for units in (report.heads, report.neurons):
        for share in ("expressiveness", "friendliness", "knowledge"):
            assert sum(vars(layer)[share] for layer in units.layers) == pytest.approx(1)


def test_units_go_as_in_trials() -> None:
    report = ScoreReport.of(SMALL, DistillationConfig(interpolation=1.0), seed=0)
    assert report.heads.sparsities == report.neurons.sparsities == (0.3, 0.5, 0.7)
    assert [layer.removed for layer in report.heads.layers] == [(1, 1, 2), (0, 1, 1)]  # .6 .6 .8 .8, ties by position
    assert [layer.removed for layer in report.neurons.layers] == [(1, 1, 2), (1, 2, 2)]  # .29 .33 .43 .67 .67 .86
    by_magnitude = ScoreReport.of(SMALL, DistillationConfig(scorer="magnitude"), seed=0)
    assert by_magnitude.scorer == "magnitude"
    assert [layer.removed for layer in by_magnitude.heads.layers] == [(1, 1, 1), (0, 1, 2)]


def test_the_settings_own_sparsity_is_shown_where_there_is_one() -> None:
    settings = DistillationConfig(sparsity=0.5, neuron_sparsity=0.0, scorer="random")
    scores = scores_of(3, 4, 8)
    report = ScoreReport.of(scores, settings, seed=5)
    assert (report.heads.sparsities, report.neurons.sparsities) == ((0.5,), (0.3, 0.5, 0.7))
    kept, _ = scores.kept(settings, 5)
    assert [layer.removed for layer in report.heads.layers] == [(gone,) for gone in (~kept).sum(axis=1)]


def test_rank_correlation_says_whether_lambda_matters() -> None:
    scores = scores_of(3, 4, 8)
    same = UnitScores(
        scores.head_expressiveness,
        scores.neuron_expressiveness,
        scores.head_expressiveness * array([1], [10], [100]),  # a layer's own scale is not what lambda mixes
        -scores.neuron_expressiveness,
        scores.head_magnitude,
        scores.neuron_magnitude,
    )
    report = ScoreReport.of(same, DistillationConfig(), seed=0)
    assert report.heads.correlation == pytest.approx(1)
    assert report.neurons.correlation == pytest.approx(-1)
    assert ScoreReport.of(SMALL, DistillationConfig(), seed=0).neurons.correlation == 0


# Tables


def shown(report: ScoreReport, width: int = 80) -> str:
    screen = io.StringIO()
    print_scores(Console(file=screen, width=width), "mrpc (layers=4)", report)
    return screen.getvalue()


def test_the_tables_show_the_numbers_in_eighty_columns() -> None:
    report = ScoreReport.of(scores_of(12, 12, 3072), DistillationConfig(), seed=0)
    text = shown(report)
    lines = text.splitlines()
    assert text.count("layer   expressiveness   friendliness   knowledge") == 2
    for units in (report.heads, report.neurons):
        for layer in units.layers:
            shares = (layer.expressiveness, layer.friendliness, layer.knowledge)
            cells = [str(layer.layer), *(f"{100 * share:.1f}" for share in shares)]
            assert [*cells, *(f"{gone:,}" for gone in layer.removed)] in [line.split() for line in lines]
    assert ["all", "43", "72", "101"] in [line.split() for line in lines]
    assert f"heads {report.heads.correlation:.2f}, neurons {report.neurons.correlation:.2f}" in text
    assert max(len(line) for line in lines if line.startswith("  ")) <= 80


# Pictures


def size(path: Path) -> tuple[int, int]:
    """Width and height in pixels, from the file's header."""
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    return width, height


def test_heat_maps_are_pictures_and_equal_for_equal_scores(tmp_path: Path) -> None:
    scores = scores_of(2, 3, 8)
    first = draw_heat_maps(scores, 0.5, "mrpc", tmp_path / "a" / "b")
    with mpl.rc_context({"font.size": 30, "image.cmap": "jet"}):
        second = draw_heat_maps(scores, 0.5, "mrpc", tmp_path / "c")
    assert {name: path.name for name, path in first.items()} == {"heads": "heads.png", "neurons": "neurons.png"}
    for name, path in first.items():
        assert path.read_bytes() == second[name].read_bytes()
        assert all(150 < side < 2000 for side in size(path))
    assert sorted(path.name for path in tmp_path.glob("c/*")) == ["heads.png", "neurons.png"]


def test_another_lambda_makes_another_picture(tmp_path: Path) -> None:
    scores = scores_of(2, 3, 8)
    one, other = (draw_heat_maps(scores, value, "mrpc", tmp_path / str(value))["heads"] for value in (0.0, 1.0))
    assert one.read_bytes() != other.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(12, 12, 3072), (24, 16, 4096), (48, 24, 6144), (1, 1, 1)], ids=str)
def test_heat_maps_of_any_teacher_are_small_files(shape: tuple[int, int, int], tmp_path: Path) -> None:
    for path in draw_heat_maps(scores_of(*shape), 0.5, "mrpc", tmp_path).values():
        assert path.stat().st_size < 300_000
        assert all(150 < side < 2000 for side in size(path))


def test_scores_of_nothing_can_be_drawn(tmp_path: Path) -> None:
    nothing = UnitScores(*(np.zeros((2, 3), dtype=np.float32) for _ in range(6)))
    assert len(draw_heat_maps(nothing, 0.5, "mrpc", tmp_path)) == 2


def test_a_picture_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PictureError, match=r"heat maps in .*file: cannot be drawn: "):
        draw_heat_maps(SMALL, 0.5, "mrpc", tmp_path / "file")


def test_matplotlib_is_imported_only_to_draw() -> None:
    code = "import sys, stkd.orchestrator.recording; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# The command


@pytest.mark.slow
def test_scores_and_sweeps_take_each_others_stages_over(tmp_path: Path) -> None:
    search = {"student.layers": {"choice": [1, 2]}, "sparsity": {"choice": [0.5]}}
    trials = {"count": 2, "searcher": "grid", "scheduler": None, "concurrent": 1}
    training = {"epochs": 1, "max_length": 32, "learning_rate": 1.0e-3}
    space = write_space(tmp_path, search=search, trials=trials, training=training, controls=False)

    done = stkd("score", "--space", space, "--out", tmp_path / "maps", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["next"] == f"stkd sweep --space {space}"
    assert [(found["task"], found["student"]) for found in told["scores"]] == [
        ("remarks", "layers=1"),
        ("remarks", "layers=2"),
    ]
    for found in told["scores"]:
        scores = UnitScores.load(Path(found["artifact"]) / "scores.safetensors")
        total = scores.head_expressiveness.sum()
        layers = [layer["expressiveness"] for layer in found["heads"]["layers"]]
        np.testing.assert_allclose(layers, scores.head_expressiveness.sum(axis=1) / total, rtol=1e-5)
        for name, path in found["pictures"].items():
            assert path == str(tmp_path / "maps" / "remarks" / found["student"] / f"{name}.png")
            assert size(Path(path))
    storage = Storage(tmp_path / "runs")
    assert sorted(path.name for path in storage.root.iterdir()) == ["artifacts"]

    done = stkd("sweep", "--space", space)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("taken over from an earlier sweep") == 7
    maps = storage.find_sweep().task("remarks").heat_maps("scores-layers=1")
    assert sorted(path.name for path in maps.iterdir()) == ["heads.png", "neurons.png"]
    assert len(list(storage.root.glob("mlflow-artifacts/*/artifacts/heat-maps/*.png"))) == 4

    done = stkd("score", "--space", space, "--out", tmp_path / "maps")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("taken over from an earlier sweep") == 7
    assert done.stdout.count("heads go\n") == done.stdout.count("neurons go\n") == 2
    assert f"stkd sweep --space {space}" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished(tmp_path: Path) -> None:
    finetune = {"epochs": 500, "max_length": 32}
    space = write_space(tmp_path, teacher={"model": str(tmp_path / "base"), "finetune": finetune})
    command = [*STKD, "score", "--space", str(space), "--out", str(tmp_path / "maps")]
    process = subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        artifacts = Storage(tmp_path / "runs").artifacts
        deadline = time.monotonic() + 200
        while not list(artifacts.glob("data-*/artifact.json")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) > 3
        os.killpg(process.pid, signal.SIGINT)
        screen, _ = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, screen
    assert "the same command goes on from there" in screen
    assert "Traceback" not in screen
    _, alive = psutil.wait_procs(family, timeout=20)
    assert [left.name() for left in alive] == []
