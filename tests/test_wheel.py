"""The wheel that nodes are given: whole, the same for the same content, and made from a checkout or an installation."""

import tomllib
import zipfile
from pathlib import Path

import pytest

from stkd.cluster import wheel
from stkd.cluster.wheel import PACKAGES, build_wheel

ROOT = Path(__file__).parents[1]


def test_it_holds_every_module_of_the_product_and_every_space(tmp_path: Path) -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert settings["packages"] == [f"stkd.{package}" for package in PACKAGES]
    for package, endings in PACKAGES.items():
        data = settings["package-data"].get(f"stkd.{package}", [])
        assert sorted(endings) == sorted([".py", *(pattern.removeprefix("*") for pattern in data)])
    wanted = [path for package in PACKAGES for path in (ROOT / package).iterdir()]
    wanted = [path for path in wanted if path.suffix in PACKAGES[path.parent.name]]
    assert len(wanted) > 100
    with zipfile.ZipFile(build_wheel(tmp_path)) as archive:
        modules = {name for name in archive.namelist() if name.startswith("stkd/")}
        assert modules == {f"stkd/{path.relative_to(ROOT)}" for path in wanted}
        assert all(archive.read(f"stkd/{path.relative_to(ROOT)}") == path.read_bytes() for path in wanted)


def test_the_same_content_is_the_same_file_and_another_has_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first, second = build_wheel(tmp_path / "a"), build_wheel(tmp_path / "b")
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()
    monkeypatch.setattr(wheel, "PACKAGES", {"trainers": (".py",)})
    assert build_wheel(tmp_path).name != first.name


def test_it_names_no_requirements_and_lists_what_it_holds(tmp_path: Path) -> None:
    with zipfile.ZipFile(build_wheel(tmp_path)) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith("METADATA"))
        (record,) = (name for name in archive.namelist() if name.endswith("RECORD"))
        assert "Requires-Dist" not in archive.read(metadata).decode()
        listed = [line.split(",")[0] for line in archive.read(record).decode().splitlines()]
        assert sorted(listed) == sorted(archive.namelist())
