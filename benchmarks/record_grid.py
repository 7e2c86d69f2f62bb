"""Trains every student of a small grid once and writes how each one learns, for benchmarks of searchers.

    python benchmarks/record_grid.py --record    # some twenty minutes on one core

The teacher is the quick start's, and so is the task; students see few of its examples, so that they differ.
"""

import argparse
import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stkd.search_spaces.reading import read_space
from stkd.search_spaces.schema import Space
from stkd.trainers.config import DistillationConfig, TrainingConfig
from stkd.trainers.sources import load_task
from stkd.trainers.specs import Distillation, EpochReport, JobSpec
from stkd.trainers.worker import Worker

TABLE = Path(__file__).parent / "tables" / "remarks.json"
INTERPOLATIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
SPARSITIES = (0.0, 0.2, 0.4, 0.6, 0.8)
TEMPERATURES = (1.0, 2.0, 4.0)
EXAMPLES = 500
"""That the students learn from; the teacher has seen all 2,000."""
TRAINING = TrainingConfig(epochs=4, batch_size=16, learning_rate=2.0e-4, max_length=64)


class Grid:
    """One teacher, its scores, and a student for each point."""

    def __init__(self, space: Space, folder: Path) -> None:
        self._space, self._folder = space, folder
        self._worker = Worker(0, 1, "127.0.0.1", None, 1)
        self._task = load_task("remarks", space.data)

    def prepare(self) -> None:
        """Teacher, trial student and scores."""
        space, folder, worker = self._space, self._folder, self._worker
        assert space.teacher.finetune is not None, "the quick start fine-tunes its teacher"
        few = load_task("remarks", space.data.model_copy(update={"train_examples": EXAMPLES}))
        for name, data in (("all", self._task), ("few", few)):
            (folder / name).mkdir()
            worker.encode(data, space.teacher.model, TRAINING.max_length, folder / name)
        teacher = JobSpec(self._task.task, folder / "all", space.teacher.finetune, model=space.teacher.model)
        print("teacher", self._train(teacher, folder / "teacher"), flush=True)
        (folder / "dense").mkdir()
        worker.save_dense_logits(folder / "teacher", folder / "few", folder / "dense")
        print("trial student", self._train(self._distil("dense", 2.0), folder / "trial_student"), flush=True)
        (folder / "scores").mkdir()
        worker.save_scores(
            folder / "teacher",
            folder / "trial_student",
            self._task.task,
            folder / "few",
            folder / "few",
            space.scoring,
            TRAINING.seed,
            folder / "scores",
        )

    def students(self) -> Iterator[dict[str, Any]]:
        """Every point with its score after each epoch; points that come to the same are trained once."""
        known: dict[tuple[str, float], dict[str, Any]] = {}
        for interpolation, sparsity, temperature in product(INTERPOLATIONS, SPARSITIES, TEMPERATURES):
            settings = DistillationConfig(interpolation=interpolation, sparsity=sparsity)
            mask = self._worker.mask_fingerprint(self._folder / "scores", settings, TRAINING.seed)
            if (mask, temperature) not in known:
                self._save_logits(mask, settings)
                known[mask, temperature] = {"mask": mask, "scores": self._train(self._distil(mask, temperature))}
            values = {"interpolation": interpolation, "sparsity": sparsity, "temperature": temperature}
            yield {**values, **known[mask, temperature]}

    def _save_logits(self, mask: str, settings: DistillationConfig) -> None:
        folder = self._folder / mask
        if not folder.exists():
            folder.mkdir()
            teacher, scores, data = (self._folder / name for name in ("teacher", "scores", "few"))
            self._worker.save_sparse_logits(teacher, scores, settings, TRAINING.seed, data, folder)

    def _distil(self, logits: str, temperature: float) -> JobSpec:
        settings = DistillationConfig(temperature=temperature)
        student = Distillation(self._folder / "teacher", self._folder / logits, self._space.student, settings)
        return JobSpec(self._task.task, self._folder / "few", TRAINING, distillation=student)

    def _train(self, spec: JobSpec, folder: Path | None = None) -> list[float]:
        """Scores after each epoch; the best epoch's model goes into the folder."""
        self._worker.begin(spec)
        scores = []
        for _ in range(spec.training.epochs):
            report: EpochReport = self._worker.run_epoch()
            assert not report.failure, report.failure
            scores.append(round(report.measured["score"], 4))
            if folder is not None and report.improved:
                folder.mkdir(exist_ok=True)
                self._worker.save_model(folder)
        self._worker.end()
        return scores


def record() -> None:
    """Train the grid and write the table."""
    space = read_space(Path("quickstart"))
    with TemporaryDirectory() as folder:
        grid = Grid(space, Path(folder))
        grid.prepare()
        students = []
        for student in grid.students():
            students.append(student)
            print(*student.values(), flush=True)
    about = {"task": "remarks", "examples": EXAMPLES, "training": TRAINING.model_dump()}
    lines = ",\n  ".join(json.dumps(student) for student in students)
    TABLE.write_text(f'{{"about": {json.dumps(about)},\n "students": [\n  {lines}\n]}}\n')


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help=f"train, and write {TABLE.name} anew")
    if parser.parse_args().record:
        record()
    else:
        print(f"{TABLE} is there" if TABLE.exists() else f"{TABLE} is missing", "(--record trains it anew)")
