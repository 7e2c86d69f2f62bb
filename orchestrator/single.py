"""The space that trains one student alone: what to run where nothing but its folder is at hand."""

from collections.abc import Mapping
from pathlib import Path

from stkd.search_spaces.distributions import Value
from stkd.search_spaces.schema import Space
from stkd.search_spaces.sections import TrackingConfig, TrialsConfig
from stkd.trainers.config import DataConfig
from stkd.trainers.model_files import PACKAGE

HERE = "./stkd-runs"


def single_student(space: Space, task: str, values: Mapping[str, Value]) -> Space:
    """The space with a trial's values and nothing to search. Folders go by their own names, and no address is told."""
    data, teacher, student = space.data, space.teacher, space.with_values(values).student
    files = {split: tuple(map(_name, paths)) for split, paths in _files(data).items()}
    return space.with_values(values).model_copy(
        update={
            "tasks": (task,),
            "data": data.model_copy(update=files | {"path": data.path and _name(data.path)}),
            "teacher": teacher.model_copy(update={"model": _name(teacher.model)}),
            "student": student.model_copy(update={"model": student.model and _name(student.model)}),
            "search": {},
            "trials": TrialsConfig(count=1, searcher="random", scheduler=None),
            "controls": False,
            "confirm": None,
            "budget": None,
            "tracking": TrackingConfig(),
            "storage": HERE,
        }
    )


def local_settings(space: Space) -> list[str]:
    """The keys that name folders or files of the machine at hand."""
    named = {"data.path": space.data.path, "teacher.model": space.teacher.model, "student.model": space.student.model}
    files = [f"data.{split}" for split, paths in _files(space.data).items() if paths]
    return files + [key for key, name in named.items() if name and _is_local(name)]


def _files(data: DataConfig) -> dict[str, tuple[str, ...]]:
    return {"train": data.train, "validation": data.validation, "test": data.test}


def _is_local(name: str) -> bool:
    return not name.startswith(PACKAGE) and Path(name).expanduser().is_absolute()


def _name(path: str) -> str:
    return Path(path).name if _is_local(path) else path
