"""What is checked before anything starts, where a mistake alone does not show it."""

from pathlib import Path

import pytest
from tiny import tiny_teacher

from stkd.orchestrator.preflight import check, check_machine, check_models, check_storage, count_gpus
from stkd.search_spaces.reading import read_space
from stkd.trainers.errors import UserError


def test_the_quickstart_passes_and_its_data_is_handed_on(tmp_path: Path) -> None:
    data = check(read_space(Path("quickstart"), storage=str(tmp_path / "a" / "b")))
    assert len(data["remarks"].train) == 2000
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_real_data_passes(glue_folder: Path, tmp_path: Path) -> None:
    overrides = ["data.source=glue_dir", f"data.path={glue_folder}"]
    data = check(read_space(Path("minilm_glue"), overrides, ["mrpc", "rte", "stsb"], str(tmp_path)))
    assert {name: len(task.test) for name, task in data.items()} == {"mrpc": 408, "rte": 277, "stsb": 1500}
    assert {name: len(task.validation) for name, task in data.items()} == {"mrpc": 366, "rte": 249, "stsb": 574}


def test_own_files_are_handed_on_and_a_teacher_must_fit_their_classes(tmp_path: Path) -> None:
    for name in ("train", "validation"):
        rows = "".join(f"{label} {number},{label}\n" for label in "xyz" for number in range(2))
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{rows}")
    overrides = [f"data.{name}={tmp_path / name}.csv" for name in ("train", "validation")]
    overrides += [f"teacher.model={tiny_teacher(tmp_path / 'model', outputs=3)}", "training.max_length=32"]
    overrides += ["data.held_out_examples=3"]
    space = read_space(Path("files"), [*overrides, "teacher.finetune=null"], ["mine"], str(tmp_path / "runs"))
    data = check(space)
    assert (data["mine"].task.class_names, len(data["mine"].train)) == (("x", "y", "z"), 3)
    overrides[2] = f"teacher.model={tiny_teacher(tmp_path / 'other', outputs=2)}"
    space = read_space(Path("files"), [*overrides, "teacher.finetune=null"], ["mine"], str(tmp_path / "runs"))
    with pytest.raises(UserError, match="has 2 outputs where task mine needs 3; give teacher"):
        check(space)


def test_a_hub_id_is_left_to_its_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stkd.orchestrator.preflight.count_gpus", lambda: 1)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    assert check(read_space(Path("glue"), storage=str(tmp_path))) == {}


@pytest.mark.parametrize(
    ("present", "visible", "usable"),
    [
        (0, None, 0),
        (0, "0,1", 0),
        (4, None, 4),
        (4, "", 0),
        (4, "1, 3", 2),
        (4, "0,7,1", 1),
        (4, "-1", 0),
        (1, "MIG-a,MIG-b", 2),
        (4, "GPU-aa,junk,GPU-bb", 1),
    ],
)
def test_gpus_are_counted_as_cuda_does(
    present: int, visible: str | None, usable: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stkd.orchestrator.preflight._present_gpus", lambda: present)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert count_gpus() == usable


@pytest.mark.gpu
def test_gpus_are_counted_as_torch_does() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    assert count_gpus() == torch.cuda.device_count()


def test_a_trial_may_take_the_whole_machine_but_not_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stkd.orchestrator.preflight.count_gpus", lambda: 2)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    fitting = ["resources={ranks: 2, gpus_per_rank: 1, cpus_per_rank: 4}"]
    check_machine(read_space(Path("quickstart"), fitting))
    with pytest.raises(UserError, match=r"set resources.gpus_per_rank to 1 or less"):
        check_machine(read_space(Path("quickstart"), [*fitting, "resources.gpus_per_rank=2"]))
    with pytest.raises(UserError, match=r"takes 10 CPUs, but this machine has 8"):
        check_machine(read_space(Path("quickstart"), [*fitting, "resources.cpus_per_rank=5"]))


def test_a_cluster_may_have_what_this_machine_lacks(tmp_path: Path) -> None:
    resources = ["resources={gpus_per_rank: 64, cpus_per_rank: 4096}"]
    space = read_space(Path("quickstart"), resources, storage=str(tmp_path))
    assert set(check(space, elsewhere=True)) == {"remarks"}
    with pytest.raises(UserError, match=r"resources.gpus_per_rank is 64"):
        check(space)


def test_the_storage_folder_is_made(tmp_path: Path) -> None:
    check_storage(tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder").is_dir()


def test_a_tokenizer_of_pieces_needs_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "deberta-v2", "num_hidden_layers": 12}')
    for name in ("model.safetensors", "spm.model"):
        (tmp_path / name).write_bytes(b"\0" * 8)
    space = read_space(Path("quickstart"), [f"teacher.model={tmp_path}"])
    monkeypatch.setattr("stkd.orchestrator.preflight.find_spec", lambda name: name)
    check_models(space)
    monkeypatch.setattr("stkd.orchestrator.preflight.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"tokenizer spm\.model needs a package: pip install 'stkd\[sentencepiece\]'"):
        check_models(space)
