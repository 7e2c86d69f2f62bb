"""The heat maps of a teacher's scores, as files. Matplotlib is imported when they are drawn."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from stkd.trainers.ranking import UnitScores


class PictureError(ValueError):
    """A picture cannot be drawn, or not be written."""


def draw_heat_maps(scores: UnitScores, interpolation: float, title: str, folder: Path) -> dict[str, Path]:
    """Write `heads.png` and `neurons.png`: expressiveness, friendliness, and what the interpolation makes of them.

    Equal scores and titles give equal bytes. Raises PictureError.
    """
    names = ("expressiveness E", "friendliness F", f"knowledge K at lambda {interpolation:g}")
    mixed = [scores.knowledge(weight) for weight in (1.0, 0.0, interpolation)]
    heads = {name: found[0] for name, found in zip(names, mixed, strict=True)}
    neurons = {name: found[1] for name, found in zip(names, mixed, strict=True)}
    try:
        from stkd.orchestrator.pictures import heads_picture, neurons_picture

        folder.mkdir(parents=True, exist_ok=True)
        return {
            "heads": _written(folder / "heads.png", heads_picture(heads, f"{title}: attention heads")),
            "neurons": _written(folder / "neurons.png", neurons_picture(neurons, f"{title}: feed-forward neurons")),
        }
    except (ImportError, OSError, RuntimeError, ValueError) as error:  # matplotlib has no class of its own
        raise PictureError(f"heat maps in {folder}: cannot be drawn: {error}") from error


class Drawings:
    """Heat maps that are drawn in a thread of their own, so that nothing waits for matplotlib."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "heat-maps")
        self._asked: dict[str, Callable[[], dict[str, Path]]] = {}
        self._begun: dict[str, Future[dict[str, Path]]] = {}

    def ask(self, name: str, draw: Callable[[], dict[str, Path]]) -> None:
        """Pictures to be drawn, which are called `name`."""
        self._asked[name] = draw

    def begin(self) -> None:
        """Draw what was asked for: a second or two of a core."""
        self._begun |= {name: self._pool.submit(draw) for name, draw in self._asked.items()}
        self._asked = {}

    def ready(self) -> Iterator[tuple[str, dict[str, Path] | PictureError]]:
        """What has been drawn since the last time: files by name, or why there are none."""
        for name in [name for name, drawing in self._begun.items() if drawing.done()]:
            try:
                yield name, self._begun.pop(name).result()
            except PictureError as error:
                yield name, error

    def finish(self) -> None:
        """Wait until all is ready; nothing is drawn after that."""
        self.begin()
        self._pool.shutdown()


def _written(path: Path, content: bytes) -> Path:
    """The file as a whole: who reads it meanwhile has the old one or the new one."""
    aside = path.with_name(f".{path.name}")
    aside.write_bytes(content)
    return aside.replace(path)
