"""Names of spaces, tasks and sweeps cannot lead out of the storage folder, whoever gives them."""

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from stkd.orchestrator.cli import main
from stkd.orchestrator.layout import Storage
from stkd.search_spaces.reading import read_space, space_text
from stkd.trainers.errors import UserError

OUTSIDE = ["../outside", "..", "/outside", "a/../../outside", "outside/x", ".outside", ""]


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A storage with one sweep, and beside it what nobody may touch."""
    monkeypatch.chdir(tmp_path)
    sweep = tmp_path / "runs" / "sweeps" / "quickstart-20250101-000000"
    for folder in (sweep, tmp_path / "outside"):
        folder.mkdir(parents=True)
        (folder / "space.yaml").write_text(space_text(read_space(Path("quickstart"))))
    return tmp_path / "runs"


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2, result.output
    return result.output


@pytest.mark.parametrize("name", OUTSIDE)
def test_neither_space_nor_task_can_name_a_folder_elsewhere(name: str, storage: Path) -> None:
    values = yaml.safe_load(space_text(read_space(Path("quickstart"))))
    space = storage.parent / "space.yaml"
    for changes in (
        {"name": name},
        {"tasks": [name]},
        {"tasks": [name], "data": {"source": "files", "train": "x.csv"}},
    ):
        space.write_text(yaml.safe_dump({**values, **changes, "storage": str(storage)}))
        assert "space.yaml" in refused("sweep", "--space", str(space))
    assert sorted(path.name for path in storage.rglob("*")) == ["quickstart-20250101-000000", "space.yaml", "sweeps"]


@pytest.mark.parametrize("name", [*OUTSIDE[:-1], "../../outside"])
@pytest.mark.parametrize("command", [("sweep", "--resume"), ("pick", "--sweep"), ("export", "there", "--sweep")])
def test_no_command_takes_a_sweep_from_elsewhere(command: tuple[str, ...], name: str, storage: Path) -> None:
    assert "no sweep" in refused(*command, name, "--storage", str(storage))


@pytest.mark.parametrize("name", OUTSIDE[:-1])
def test_no_sweep_is_made_elsewhere(name: str, storage: Path) -> None:
    with pytest.raises(UserError, match="must be letters, digits"):
        Storage(storage).new_sweep("quickstart", name)
    assert len(list((storage / "sweeps").iterdir())) == 1
