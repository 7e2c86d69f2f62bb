"""One rank's hands: the verbs that stages and trials are made of, each called on every rank at the same time."""

import ctypes
import gc
import os
from dataclasses import replace
from pathlib import Path
from platform import libc_ver

import torch

from stkd.trainers import ranks as process_group
from stkd.trainers.config import DistillationConfig, ScoringConfig
from stkd.trainers.errors import NonFiniteLossError
from stkd.trainers.job import Job, encode_task, evaluate_model, save_logits, save_test_logits, score_teacher
from stkd.trainers.models import load_fine_tuned, load_tokenizer, save_model
from stkd.trainers.patience import PATIENCE, patiently
from stkd.trainers.provenance import Provenance, provenance
from stkd.trainers.pulse import PULSE
from stkd.trainers.ranking import UnitScores, mask_name
from stkd.trainers.ranks import Ranks
from stkd.trainers.sources import TaskData
from stkd.trainers.specs import SCORES, EpochReport, JobSpec
from stkd.trainers.tasks import Task
from stkd.trainers.units import UnitMask


class Worker:
    """A rank that lives as long as its process: imports, process group and threads stay warm from job to job."""

    def __init__(self, rank: int, size: int, host: str, port: int | None, threads: int) -> None:
        torch.set_num_threads(threads)
        os.environ.setdefault("HF_DEACTIVATE_ASYNC_LOAD", "1")  # saved weights are mapped: threads would read nothing
        gc.freeze()  # what is imported stays: collecting need not look at it
        self._ranks = Ranks(rank, size)
        self._job: Job | None = None
        self._spec: JobSpec | None = None
        self._saved: Path | None = None
        self._store: torch.distributed.TCPStore | None = None
        if size > 1:
            self._store = process_group.open_port(host) if port is None else process_group.connect(host, port)

    @property
    def port(self) -> int | None:
        """Where the other ranks find this one; None for a rank that is alone."""
        return None if self._store is None else self._store.port

    def join(self) -> None:
        """Form the process group with the other ranks."""
        process_group.join(self._ranks, self._store)

    def abandon(self) -> None:
        """Leave the process group after a failure, so that the other ranks fail at once instead of waiting."""
        process_group.leave()

    def progress(self) -> tuple[int, str]:
        """How many steps of whatever kind were done here, and which storage is waited for; asked by another thread."""
        return PULSE.steps, PATIENCE.problem

    def made_with(self) -> Provenance:
        """What everything is computed with here."""
        return provenance(self._ranks.size)

    def encode(self, data: TaskData, model: str, max_length: int, folder: Path) -> None:
        """Tokenise a task's data into a folder."""
        if self._ranks.is_first:
            encode_task(data, model, max_length, folder)
        self._ranks.barrier()

    def begin(self, spec: JobSpec) -> None:
        """Make the job that the following calls are about; a job before it is closed."""
        self.end()
        self._spec, self._saved = spec, None
        self._job = Job(spec, self._ranks)

    def run_epoch(self) -> EpochReport:
        """Train an epoch and evaluate. A loss that is no longer finite ends the job, but not the rank.

        A rank that is alone and runs out of memory goes on from its last checkpoint, or from the start, with
        micro-batches of half the size. Several ranks would have to agree: there, it is an error.
        """
        try:
            measured = self.job.run_epoch()
        except NonFiniteLossError as error:
            return EpochReport({}, improved=False, done=True, failure=str(error))
        except torch.OutOfMemoryError:
            if self._ranks.size > 1 or not self._can_halve():
                raise
        else:
            return EpochReport(measured, self.job.improved, self.job.progress.done, self.job.seconds)
        note = self._halve_micro_batches()  # outside `except`, whose traceback would hold what filled the memory
        report = self.run_epoch()
        return replace(report, note=report.note or note)

    def _can_halve(self) -> bool:
        assert self._spec is not None, "no job was begun"
        return 2 * self._spec.training.accumulation <= self._spec.training.batch_size

    def _halve_micro_batches(self) -> str:
        assert self._spec is not None, "no job was begun"
        training, saved = self._spec.training, self._saved
        smaller = training.model_copy(update={"accumulation": 2 * training.accumulation})
        spec = replace(self._spec, training=smaller)
        self.end()
        torch.cuda.empty_cache()
        self.begin(spec)
        if saved is not None:
            self.load(saved)
        return f"out of memory: goes on with micro-batches of {training.batch_size // smaller.accumulation}"

    def time_steps(self, count: int) -> float:
        """Train so many steps; returns the examples per second. The job is of no use afterwards."""
        return self.job.time_steps(count)

    def save_model(self, folder: Path) -> None:
        """Write the job's model as a `transformers` folder."""
        self.job.save_model(folder)
        self._ranks.barrier()

    def save(self, folder: Path) -> None:
        """Write a checkpoint of the job."""
        self.job.save(folder)
        self._saved = folder

    def load(self, folder: Path) -> None:
        """Go on from a checkpoint of the job."""
        self.job.load(folder)
        self._saved = folder

    def end(self) -> None:
        """Close the job, if there is one."""
        if self._job is not None:
            self._job.close()
            self._job = None
            gc.collect()  # engines hold themselves: left to chance, they pile up to gigabytes

    def adopt(self, model: str, task: Task, data: Path, folder: Path) -> dict[str, float]:
        """Take a teacher that is fine-tuned already: write it to the folder and measure it."""
        if self._ranks.is_first:
            adopted, tokenizer = load_fine_tuned(model, task), load_tokenizer(model)
            patiently(lambda: save_model(adopted, tokenizer, folder), folder)
        self._ranks.barrier()
        return evaluate_model(folder, task, data, self._ranks)

    def mask_fingerprint(self, scores: Path, settings: DistillationConfig, seed: int) -> str:
        """What names the sparse teacher of these settings: equal for settings that remove the same units."""
        return mask_name(*UnitScores.load(scores / SCORES).kept(settings, seed))

    def save_dense_logits(self, teacher: Path, data: Path, folder: Path) -> int:
        """Write the dense teacher's logits on the training split; returns how many examples the teacher read."""
        return save_logits(teacher, None, data, self._ranks, folder)

    def save_sparse_logits(
        self, teacher: Path, scores: Path, settings: DistillationConfig, seed: int, data: Path, folder: Path
    ) -> int:
        """Write a sparse teacher's logits on the training split; returns how many examples the teacher read."""
        mask = UnitMask.of(UnitScores.load(scores / SCORES), settings, seed)
        read = save_logits(teacher, mask, data, self._ranks, folder)
        _give_memory_back()
        return read

    def save_test_logits(self, model: Path, data: Path, folder: Path) -> None:
        """Write a model's logits on the test split, and the labels beside them."""
        save_test_logits(model, data, self._ranks, folder)

    def save_scores(
        self,
        teacher: Path,
        trial_student: Path | None,
        task: Task,
        data: Path,
        student_data: Path | None,
        settings: ScoringConfig,
        seed: int,
        folder: Path,
    ) -> None:
        """Score the teacher's units and write the scores; the first rank does it alone."""
        if self._ranks.is_first:
            alone = Ranks()
            scores = score_teacher(teacher, trial_student, task, data, student_data, settings, seed, alone)
            patiently(lambda: scores.save(folder / SCORES), folder)
        self._ranks.barrier()

    @property
    def job(self) -> Job:
        """The job that is under way."""
        assert self._job is not None, "no job was begun"
        return self._job


def _give_memory_back() -> None:
    """Return to the system what a teacher took: no two sparse ones have tensors of the same sizes.

    The C library keeps what lies free between pieces in use, where the next sizes do not fit: megabytes more each time.
    """
    gc.collect()
    if libc_ver()[0] == "glibc":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
