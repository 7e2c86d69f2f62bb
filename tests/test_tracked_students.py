"""Students in MLflow: each lies on the disk once, and loads from there."""

from pathlib import Path

import pytest
from mlflow_places import Place, failing

from stkd.orchestrator import sender

# Both come with the import of MLflow 3.17: it configures its tables in a way that SQLAlchemy 2.1 deprecates, and warns
# of its own type hints.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType"),
]


def tiny_student(folder: Path) -> Path:
    """A BERT of one layer, and a tokenizer of a few words."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "bad", "film"]
    tokenizer = BertTokenizerFast(vocab={word: number for number, word in enumerate(words)}, model_max_length=16)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    names = {0: "bad", 1: "good"}
    config = BertConfig(
        vocab_size=len(words),
        max_position_embeddings=16,
        id2label=names,
        label2id={name: number for number, name in names.items()},
        **shape,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_student_lies_on_the_disk_once(place: Place, tmp_path: Path) -> None:
    student = tmp_path / "student"
    student.mkdir()
    (student / "config.json").write_text("{}")
    (student / "model.safetensors").write_bytes(b"weights")
    for _ in range(2):  # the second time as after a kill
        with place.tracker() as tracker:
            tracker.start_run("s/t", "t", None, {}, {})
            tracker.log_student("s/t", student)
            assert tracker.close(5), tracker.problem
        assert place.refused() == []
        place.journal.with_suffix(".state.json").unlink()
    run = place.runs()["t"]
    [model] = place.client.search_logged_models([run.info.experiment_id])
    assert (model.name, model.status.name, model.source_run_id) == ("student", "READY", run.info.run_id)
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    assert run.data.tags["stkd.model"] == f"models:/{model.model_id}"
    folder = Path(model.artifact_location.removeprefix("file://"))
    assert (folder / "model" / "model.safetensors").samefile(student / "model.safetensors")
    assert not (folder / "components" / "tokenizer" / "model.safetensors").exists()
    assert (folder / "requirements.txt").read_text().split("==")[0] == "mlflow"


@pytest.mark.parametrize("step", ["log_outputs", "log_batch", "finalize_logged_model"])
def test_a_student_that_was_half_logged(
    place: Place, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    student = tmp_path / "student"
    student.mkdir()
    (student / "config.json").write_text("{}")
    monkeypatch.setattr(MlflowClient, step, failing(2, ConnectionError("away"), vars(MlflowClient)[step]))
    monkeypatch.setattr(sender, "FIRST_DELAY", 0.001)
    with place.tracker() as tracker:
        tracker.start_run("s/t", "t", None, {}, {})
        tracker.log_student("s/t", student)
    run = place.runs()["t"]
    [model] = place.client.search_logged_models([run.info.experiment_id])
    assert model.status.name == "READY"
    assert len(run.outputs.model_outputs) == 1


@pytest.mark.slow
@pytest.mark.parametrize("pairs", [False, True])
def test_a_student_loads_from_mlflow(
    any_place: Place, tmp_path: Path, pairs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import artifacts, pyfunc, transformers

    monkeypatch.setenv("MLFLOW_TRACKING_URI", any_place.uri)
    with any_place.tracker() as tracker:
        tracker.start_run("s/t", "t", None, {}, {})
        tracker.log_student("s/t", tiny_student(tmp_path / "student"), pairs)
    assert any_place.refused() == []
    uri = any_place.runs()["t"].data.tags["stkd.model"]
    folder = artifacts.download_artifacts(uri)
    texts = ["a good film", "film " * 30]
    inputs = [{"text": text, "text_pair": text} for text in texts] if pairs else texts
    predicted = pyfunc.load_model(folder).predict(inputs)
    assert list(predicted.columns) == ["label", "score"]
    assert set(predicted["label"]) <= {"good", "bad"}
    assert len(predicted) == 2
    assert transformers.load_model(folder)("a good film")[0]["label"] in {"good", "bad"}
