"""How the product is laid out: who may import whom, what is packaged, and that the documents tell the truth."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path

import click
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from stkd.orchestrator.cli import main

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "cluster": {"cluster"},
    "orchestrator": {"cluster", "orchestrator", "search_spaces", "trainers"},
    "search_spaces": {"search_spaces", "trainers"},
    "trainers": {"trainers"},
}
IMPORTERS = {
    "deepspeed": {"trainers/checkpoints.py", "trainers/engine.py", "trainers/ranks.py"},
    "matplotlib": {"orchestrator/charts.py", "orchestrator/drawing.py", "orchestrator/pictures.py"},
    "mlflow": {"orchestrator/mlflow_models.py", "orchestrator/mlflow_store.py", "orchestrator/registry.py"},
    "onnx_ir": {"trainers/onnx_models.py"},
    "onnxruntime": {"trainers/onnx_models.py"},
    "optuna": {"orchestrator/importance.py", "orchestrator/sampling.py", "orchestrator/study.py"},
    "ray.tune": {
        "orchestrator/callback.py",
        "orchestrator/searching.py",
        "orchestrator/trial.py",
        "orchestrator/tune_actors.py",
        "orchestrator/tuning.py",
    },
}
"""The only modules that may know these libraries."""
FEWEST_MODULES = 50
FEWEST_FUNCTIONS = 400
LONGEST_FILE = 399
LONGEST_FUNCTION = 60
LARGEST_FILE = 500_000


@cache
def product() -> dict[str, ast.Module]:
    """The syntax of every module of the product, by its path from the root."""
    paths = sorted(path for package in MAY_IMPORT for path in (ROOT / package).glob("*.py"))
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in paths}


def imports(module: ast.Module) -> set[str]:
    """Everything that is imported, wherever it stands; `from ray import tune` is `ray` and `ray.tune`."""
    found: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def reaches(imported: set[str], library: str) -> bool:
    return any(name == library or name.startswith(f"{library}.") for name in imported)


def run(*command: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


# Packages


def test_the_packages_are_the_folders() -> None:
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert folders == set(MAY_IMPORT)
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert settings["packages"] == [f"stkd.{folder}" for folder in sorted(folders)]
    assert settings["package-dir"] == {f"stkd.{folder}": folder for folder in sorted(folders)}
    assert not (ROOT / "__init__.py").exists()


def test_the_packages_are_flat() -> None:
    assert not [path for folder in MAY_IMPORT for path in (ROOT / folder).glob("*/**/*.py")]


def test_constraints_pin_what_is_asked_for() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert not [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", line)]
    pins = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        Requirement(text) for text in chain(settings["dependencies"], *settings["optional-dependencies"].values())
    ]
    assert len(wanted) >= 20
    assert not [str(need) for need in wanted if pins.get(canonicalize_name(need.name), "") not in need.specifier]


# Imports


def test_every_package_imports_only_what_it_may() -> None:
    seen = product()
    assert len(seen) >= FEWEST_MODULES
    wrong = []
    for path, module in seen.items():
        package = path.partition("/")[0]
        ours = {name.split(".")[1] for name in imports(module) if name.startswith("stkd.")}
        wrong += [f"{path} imports stkd.{other}" for other in sorted(ours - MAY_IMPORT[package])]
    assert not wrong


def test_trainers_know_neither_ray_nor_mlflow() -> None:
    modules = {path: module for path, module in product().items() if path.startswith("trainers/")}
    assert len(modules) >= 20
    assert not [
        path for path, module in modules.items() for name in ("ray", "mlflow") if reaches(imports(module), name)
    ]


def test_our_packages_are_imported_by_their_full_names() -> None:
    tests = {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in (ROOT / "tests").glob("*.py")}
    assert len(tests) >= 15
    modules = product() | tests
    assert not [path for path, module in modules.items() for name in MAY_IMPORT if reaches(imports(module), name)]
    relative = [
        path
        for path, module in modules.items()
        if any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(module))
    ]
    assert not relative


@pytest.mark.parametrize("library", IMPORTERS)
def test_few_modules_know_a_library(library: str) -> None:
    assert {path for path, module in product().items() if reaches(imports(module), library)} == IMPORTERS[library]


@pytest.mark.slow
def test_trainers_work_where_ray_and_mlflow_are_missing() -> None:
    names = [f"stkd.trainers.{Path(path).stem}" for path in product() if path.startswith("trainers/")]
    code = (
        "import sys, importlib\n"
        "sys.modules['ray'] = sys.modules['mlflow'] = None\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "print(importlib.import_module('stkd.trainers.worker').Worker(0, 1, '127.0.0.1', None, 1).port)"
    )
    assert run(sys.executable, "-c", code).splitlines()[-1] == "None"


@pytest.mark.slow
def test_the_driver_of_a_sweep_loads_no_mlflow() -> None:
    code = (
        "import sys, stkd.orchestrator.tuning\n"
        "from ray.air._internal.usage import _count_callbacks\n"
        "print(dict(_count_callbacks([])), [name for name in ('mlflow', 'torch') if name in sys.modules])"
    )
    assert run(sys.executable, "-c", code).splitlines()[-1] == "{} []"


@pytest.mark.slow
def test_the_process_of_a_trial_loads_no_torch_before_its_ranks_start() -> None:
    code = "import sys, stkd.orchestrator.trial; print([name for name in ('mlflow', 'torch') if name in sys.modules])"
    assert run(sys.executable, "-c", code).splitlines()[-1] == "[]"


# Sizes


def functions(module: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_files_and_functions_are_short() -> None:
    lengths = {path: len((ROOT / path).read_text().splitlines()) for path in product()}
    assert not {path: length for path, length in lengths.items() if length > LONGEST_FILE}
    spans = {
        f"{path}:{function.lineno}": (function.end_lineno or 0) - function.lineno + 1
        for path, module in product().items()
        for function in functions(module)
    }
    assert len(spans) >= FEWEST_FUNCTIONS
    assert not {place: span for place, span in spans.items() if span > LONGEST_FUNCTION}


def test_no_large_file_is_kept_in_git() -> None:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a checkout of git")
    files = [ROOT / name for name in run("git", "ls-files", "-z").split("\0") if name]
    assert len(files) >= FEWEST_MODULES
    assert not [str(path) for path in files if path.is_file() and path.stat().st_size > LARGEST_FILE]


# Documents


def test_make_help_lists_every_target() -> None:
    if shutil.which("make") is None:
        pytest.skip("there is no make")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    listed = re.findall(r"^make ([a-z-]+) +\S", run("make", "--no-print-directory", "help"), re.MULTILINE)
    assert len(listed) >= 8
    assert sorted(listed) == sorted(phony.split())


def documents() -> list[Path]:
    folders = (*MAY_IMPORT, "docs", "tests")
    return [*ROOT.glob("*.md"), *(path for folder in folders for path in (ROOT / folder).glob("*.md"))]


def test_links_in_documents_lead_somewhere() -> None:
    assert len(documents()) >= 3
    links = [
        (path, link)
        for path in documents()
        for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text())
        if not re.match(r"[a-z]+:|#", link)
    ]
    assert len(links) >= 3
    assert not [(path.name, link) for path, link in links if not (path.parent / link.partition("#")[0]).exists()]


def test_the_readme_knows_every_command_and_no_other() -> None:
    readme = (ROOT / "README.md").read_text()
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", readme, re.DOTALL))
    assert set(re.findall(r"\bstkd ([a-z]+)\b", code)) == set(main.commands)
    options = {
        option
        for command in main.commands.values()
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
    }
    ours = re.sub(r"(?m)^mlflow .*$", "", code)
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", ours))
    assert len(named) >= 5
    assert named <= options | {"--help"}


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="tests do not run side by side")
@pytest.mark.xdist_group("together")
def test_what_belongs_together_is_tested_in_one_process(request: pytest.FixtureRequest) -> None:
    """Else clusters of one address meet, and what is made once for several tests is made several times."""
    assert request.node.nodeid.endswith("@together")
