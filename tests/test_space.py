"""The search space: its files, its distributions, and what a trial's values do to it."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from stkd.search_spaces.distributions import Choice, LogUniform, QUniform, RandInt, Uniform
from stkd.search_spaces.documents import parse_document, parse_value
from stkd.search_spaces.reading import PACKAGED, read_space, space_text
from stkd.search_spaces.schema import Space
from stkd.trainers.config import KNOWN_FAMILIES
from stkd.trainers.errors import UserError

QUICKSTART = Path("quickstart")
GLUE = {"cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"}


def test_every_packaged_space_reads_and_survives_being_written(tmp_path: Path) -> None:
    names = sorted(file.stem for file in PACKAGED.glob("*.yaml"))
    assert names == ["files", "glue", "minilm_glue", "quickstart"]
    for name in names:
        space = read_space(Path(name))
        assert space.name == name
        copy = tmp_path / f"{name}.yaml"
        copy.write_text(space_text(space), encoding="utf-8")
        assert read_space(copy) == space


def test_packaged_spaces_say_what_the_documentation_promises() -> None:
    quickstart, small, paper = (read_space(Path(name)) for name in ("quickstart", "minilm_glue", "glue"))
    assert set(quickstart.search) == {"interpolation", "sparsity", "temperature"}
    assert quickstart.trials.count >= 8
    assert quickstart.trials.scheduler is not None
    assert set(small.tasks) == {"mrpc", "rte", "stsb", "sst2", "cola"}
    assert (small.trials.count, small.training.epochs, small.training.learning_rate) == (12, 3, 5e-5)
    assert set(paper.tasks) == GLUE
    assert (paper.student.layers, paper.training.precision) == (4, "bf16")


@pytest.mark.parametrize("name", ["quickstart", "quickstart.yaml", "search_spaces/quickstart.yaml"])
def test_a_packaged_space_is_found_by_name_from_any_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_space(Path(name)).name == "quickstart"


def test_a_file_of_the_user_comes_before_the_packaged_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = space_text(read_space(QUICKSTART, ["name=mine"]))
    Path("quickstart.yaml").write_text(own, encoding="utf-8")
    assert read_space(Path("quickstart.yaml")).name == "mine"


def test_overrides_apply_in_order_and_make_sections() -> None:
    space = read_space(
        QUICKSTART,
        [
            "training.epochs=5",
            "training.epochs=7",
            "training.learning_rate=3e-5",
            "deepspeed.zero_optimization.stage=2",
            "search.training.batch_size={choice: [16, 32]}",
            "search.temperature=null",
            "search.sparsity.quniform=[0.0, 0.6, 0.2]",
            "trials.scheduler=none",
            "name=other",
        ],
        storage="~/12",
    )
    assert (space.training.epochs, space.training.learning_rate, space.name) == (7, 3e-5, "other")
    assert space.deepspeed == {"zero_optimization": {"stage": 2}}
    assert space.search == {
        "interpolation": Uniform(uniform=(0.0, 1.0)),
        "sparsity": QUniform(quniform=(0.0, 0.6, 0.2)),
        "training.batch_size": Choice(choice=(16, 32)),
    }
    assert space.trials.scheduler is None
    assert space.storage_folder == Path.home() / "12"


def test_tasks_are_replaced() -> None:
    assert read_space(Path("minilm_glue"), tasks=["qnli", "mrpc"]).tasks == ("qnli", "mrpc")


def test_yaml_is_read_as_version_1_2() -> None:
    read = parse_value("[3e-5, 1e3, 1.5, .5, 12, -3, no, on, 010, 1:30, 2024-01-01, ~, true, 0x10]", "here")
    assert read == [3e-5, 1e3, 1.5, 0.5, 12, -3, "no", "on", "010", "1:30", "2024-01-01", None, True, "0x10"]


def test_a_document_knows_the_line_of_every_key() -> None:
    document = parse_document("a: 1\nb:\n  c: [x,\n      y]\n", "f.yaml")
    assert document.place(("b", "c", 1)) == "f.yaml, line 4"
    assert document.place(("b", "c", "unknown")) == "f.yaml, line 3"
    document.put(("b", "c"), 3, "--set b.c=3")
    assert document.place(("b", "c", 1)) == "--set b.c=3"


def test_values_of_a_trial_go_where_their_keys_say() -> None:
    space = read_space(QUICKSTART, ["search.training.learning_rate={loguniform: [1e-5, 1e-4]}"])
    trial = space.with_values({"sparsity": 0.3, "temperature": 3.7, "training.learning_rate": 2e-5})
    assert trial.distillation == space.distillation.model_copy(update={"sparsity": 0.3, "temperature": 3.7})
    assert trial.training == space.training.model_copy(update={"learning_rate": 2e-5})
    assert trial.model_copy(update={"training": space.training, "distillation": space.distillation}) == space
    assert space.with_values({}) == space


def test_quantised_values_are_clean_decimals_of_the_right_type() -> None:
    tenths = QUniform(quniform=(0.0, 0.9, 0.1))
    assert tenths.grid() == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    assert [tenths.clean(0.1 * step) for step in range(10)] == list(tenths.grid())
    sizes = QUniform(quniform=(16, 64, 16))
    assert sizes.grid() == (16, 32, 48, 64)
    assert isinstance(sizes.clean(48.0), int)


def test_values_outside_a_range_are_brought_inside() -> None:
    assert Uniform(uniform=(0.0, 1.0)).clean(1.0000000000000002) == 1.0
    assert LogUniform(loguniform=(1.0, 8.0)).clean(0.9999999) == 1.0
    assert RandInt(randint=(1, 3)).clean(2.0) == 2
    assert RandInt(randint=(1, 3)).grid() == (1, 2, 3)
    assert Uniform(uniform=(0.0, 1.0)).grid() is None


def test_the_longest_training_counts_searched_epochs() -> None:
    assert read_space(QUICKSTART, ["training.epochs=3"]).longest_training == 3
    assert read_space(QUICKSTART, ["search.training.epochs={randint: [2, 9]}"]).longest_training == 9


def test_a_given_value_need_not_be_searched_but_must_be_a_setting() -> None:
    space = read_space(QUICKSTART)
    given = space.with_values({"distillation.hard_weight": 1.0, "training.seed": 3, "student.layers": 2})
    assert (given.distillation.hard_weight, given.training.seed, given.student.layers) == (1.0, 3, 2)
    with pytest.raises(ValidationError, match="sparsty"):
        space.with_values({"sparsty": 0.5})


def test_students_are_all_that_a_trial_can_be_given() -> None:
    space = read_space(QUICKSTART)
    assert space.students() == [space.student]
    searched = read_space(QUICKSTART, ["search.student.layers={randint: [2, 4]}"])
    assert [student.layers for student in searched.students()] == [2, 3, 4]
    pruned = ["student={init: prune_units}", "search.student.sparsity={quniform: [0.5, 0.7, 0.1]}"]
    assert [student.sparsity for student in read_space(QUICKSTART, pruned).students()] == [0.5, 0.6, 0.7]


def test_a_space_made_in_code_is_checked_too() -> None:
    whole = read_space(QUICKSTART).model_dump()
    assert Space.model_validate(whole) == read_space(QUICKSTART)
    with pytest.raises(ValidationError, match="shared evenly"):
        Space.model_validate({**whole, "resources": {"ranks": 3}})


@pytest.mark.parametrize("written", ["http://me:secret@host", "[http://me:secret@host]", "{a: http://me:secret@host}"])
@pytest.mark.parametrize("key", ["tracking.uri", "tracking.uir", "trackin.uri", "storage", "tracking"])
def test_a_password_is_never_shown(key: str, written: str, tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(space_text(read_space(QUICKSTART)) + f"deepspeed: {written}\n", encoding="utf-8")
    broken = space_text(read_space(QUICKSTART)).replace("uri: null", f"uri: [{written}]")
    nested = tmp_path / "nested.yaml"
    nested.write_text(broken, encoding="utf-8")
    messages = [_refusal(file), _refusal(nested)]
    if (key, written) != ("tracking.uri", "http://me:secret@host"):
        messages.append(_refusal(QUICKSTART, f"{key}={written}"))
    assert not any("secret" in message for message in messages)


def _refusal(path: Path, *overrides: str) -> str:
    """The message and everything that a traceback would show with it."""
    with pytest.raises(UserError) as caught:
        read_space(path, overrides)
    return f"{caught.value} {caught.value.__cause__}"


def test_a_tracking_password_is_not_in_the_repr() -> None:
    space = read_space(QUICKSTART, ["tracking.uri=http://me:secret@host"])
    assert space.tracking.uri == "http://me:secret@host"
    assert "secret" not in repr(space)


def test_known_families_are_those_that_are_declared() -> None:
    from stkd.trainers.families import FAMILIES

    assert set(KNOWN_FAMILIES) == set(FAMILIES)
