"""One job from its data to its report, its checkpoints, and the verbs that a rank is made of."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rank_processes import RankProcesses
from safetensors.torch import load_file
from tiny import (
    REGRESSION,
    TASK,
    Case,
    cpu_only,
    tiny_case,
    tiny_data,
    tiny_teacher,
    tiny_training,
    weights_of,
)
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertForSequenceClassification

from stkd.trainers.config import DistillationConfig, ScoringConfig, StudentConfig, TrainingConfig
from stkd.trainers.job import (
    Job,
    Progress,
    encode_task,
    evaluate_model,
    save_logits,
    score_teacher,
)
from stkd.trainers.loop import Training, predict
from stkd.trainers.ranking import UnitScores
from stkd.trainers.ranks import Ranks
from stkd.trainers.specs import LOGITS, SCORES, TRAIN, VALIDATION, Distillation, JobSpec
from stkd.trainers.tasks import Task
from stkd.trainers.units import UnitMask, masked
from stkd.trainers.worker import Worker

ONE = Ranks()
TRAINED = 49
VALIDATED = 32
TEACHER_LAYERS, STUDENT_LAYERS = 3, 2


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return tiny_case(tmp_path_factory.mktemp("job"), train=TRAINED, layers=TEACHER_LAYERS, dropout=0.1)


@pytest.fixture(scope="module")
def logits(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logits")
    save_logits(case.model, None, case.data, ONE, folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def two_ranks() -> Iterator[RankProcesses]:
    with RankProcesses(2) as processes:
        yield processes


def fine_tuning(case: Case, training: TrainingConfig, task: Task = TASK) -> JobSpec:
    return JobSpec(task, case.data, training, model=str(case.model))


def distilling(case: Case, logits: Path, training: TrainingConfig) -> JobSpec:
    student = StudentConfig(layers=STUDENT_LAYERS)
    return JobSpec(
        TASK, case.data, training, distillation=Distillation(case.model, logits, student, DistillationConfig())
    )


@contextmanager
def counted_forwards() -> Iterator[Counter[int]]:
    """Counts how often classifiers run, by their number of layers."""
    counts: Counter[int] = Counter()

    def count(module: nn.Module, *_: object) -> None:
        if isinstance(module, BertForSequenceClassification):
            counts[module.config.num_hidden_layers] += 1

    handle = register_module_forward_hook(count)
    try:
        yield counts
    finally:
        handle.remove()


# --- reports


def test_an_epochs_report(case: Case) -> None:
    job = Job(fine_tuning(case, tiny_training(epochs=2)), ONE)
    report = job.run_epoch()
    assert report.keys() == {
        "epoch",
        "loss",
        "accuracy",
        "score",
        "best_score",
        "parameters",
        "megabytes",
        "milliseconds_per_example",
    }
    assert {type(value) for value in report.values()} == {float}
    assert report["epoch"] == 1
    assert report["accuracy"] == report["score"] == report["best_score"]
    assert report["parameters"] == sum(weight.numel() for weight in case.load().parameters())
    assert report["megabytes"] == pytest.approx(report["parameters"] * 4 / 1e6)
    assert 0 < report["milliseconds_per_example"] < 1000
    assert {"data", "forward", "backward", "step", "evaluation"} <= job.seconds.keys()
    assert all(0 <= seconds < 60 for seconds in job.seconds.values())
    later = job.run_epoch()
    assert later["epoch"] == 2
    assert later["milliseconds_per_example"] == report["milliseconds_per_example"]
    job.close()


def test_a_regression_reports_its_own_metrics(tmp_path: Path) -> None:
    case = tiny_case(tmp_path, train=TRAINED, layers=1, task=REGRESSION)
    job = Job(fine_tuning(case, tiny_training(learning_rate=1e-2, epochs=8), REGRESSION), ONE)
    reports = [job.run_epoch() for _ in range(8)]
    assert {"pearson", "spearman"} <= reports[0].keys()
    assert reports[-1]["score"] == pytest.approx((reports[-1]["pearson"] + reports[-1]["spearman"]) / 2)
    assert reports[-1]["loss"] < reports[0]["loss"]
    job.close()


def test_a_distillation_never_runs_its_teacher(case: Case, logits: Path) -> None:
    with counted_forwards() as counts:
        job = Job(distilling(case, logits, tiny_training(epochs=2, accumulation=2)), ONE)
        job.run_epoch()
        job.run_epoch()
        job.close()
    # epochs x steps x micro-batches, one batch of validation an epoch, and the latency's 23 examples
    assert counts == {STUDENT_LAYERS: 2 * 4 * 2 + 2 + 23}


HALF = DistillationConfig(sparsity=0.5)


@pytest.mark.parametrize("sparse", [False, True])
def test_a_teacher_reads_every_example_once_for_its_logits(case: Case, tmp_path: Path, sparse: bool) -> None:
    mask = UnitMask.of(random_scores(), HALF) if sparse else None
    read: list[int] = []
    handle = register_module_forward_hook(
        lambda module, _, output: read.append(len(output.logits)) if hasattr(output, "logits") else None
    )
    try:
        assert save_logits(case.model, mask, case.data, ONE, tmp_path) == sum(read) == TRAINED
    finally:
        handle.remove()


def random_scores() -> UnitScores:
    generator = torch.Generator().manual_seed(0)
    shapes = ((TEACHER_LAYERS, 4), (TEACHER_LAYERS, 32)) * 3
    return UnitScores(*(torch.rand(shape, generator=generator).numpy() for shape in shapes))


def test_a_sparse_teachers_logits_are_those_of_the_masked_one(case: Case, tmp_path: Path) -> None:
    mask = UnitMask.of(random_scores(), HALF)
    save_logits(case.model, mask, case.data, ONE, tmp_path)
    teacher = case.load().to(ONE.device)
    with masked(teacher, mask):
        expected = predict(teacher, case.train, ONE)
    found = load_file(tmp_path / LOGITS)["logits"]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert (found - predict(teacher, case.train, ONE)).abs().max() > 1e-2


# --- the best epoch, and when to stop


@pytest.mark.parametrize(
    ("scores", "patience", "improved", "best"),
    [
        ([0.5, 0.6, 0.7], None, [True, True, True], 0.7),
        ([0.5, 0.4, 0.3], None, [True, False, False], 0.5),
        ([0.5, 0.5, 0.5], None, [True, False, False], 0.5),
        ([0.0, -0.1, 0.1], None, [True, False, True], 0.1),
        ([0.5, 0.4], 1, [True, False], 0.5),
        ([0.5, 0.4, 0.6], 2, [True, False, True], 0.6),
        ([-0.3, -0.4, -0.5], 3, [True, False, False], -0.3),
    ],
)
def test_the_best_score_and_the_end(
    case: Case,
    monkeypatch: pytest.MonkeyPatch,
    scores: list[float],
    patience: int | None,
    improved: list[bool],
    best: float,
) -> None:
    coming = iter(scores)
    monkeypatch.setattr("stkd.trainers.job.evaluate", lambda *_: {"score": next(coming)})
    monkeypatch.setattr(Training, "run_epoch", lambda _: [1.0])
    job = Job(fine_tuning(case, tiny_training(epochs=3, patience=patience)), ONE)
    assert job.progress == Progress()
    done = []
    for better in improved:
        report = job.run_epoch()
        assert job.improved is better
        done.append(job.progress.done)
    assert done == [False] * (len(scores) - 1) + [True]
    assert report["best_score"] == job.progress.best_score == best
    assert job.progress.best_epoch == scores.index(best) + 1
    job.close()


# --- checkpoints


@pytest.mark.parametrize("distil", [False, True], ids=["fine-tuning", "distillation"])
def test_a_resumed_job_ends_as_the_undisturbed_one(case: Case, logits: Path, tmp_path: Path, distil: bool) -> None:
    training = tiny_training(epochs=3, accumulation=2)
    spec = distilling(case, logits, training) if distil else fine_tuning(case, training)
    assert_resumes(ONE, spec, tmp_path)


def assert_resumes(ranks: Ranks, spec: JobSpec, folder: Path) -> None:
    undisturbed = Job(spec, ranks)
    undisturbed.run_epoch()
    undisturbed.save(folder)
    rate = learning_rate(undisturbed)
    expected = [undisturbed.run_epoch() for _ in range(2)]
    undisturbed.close()

    resumed = Job(spec, ranks)
    assert learning_rate(resumed) != rate
    resumed.load(folder)
    assert learning_rate(resumed) == rate
    assert resumed.progress.epoch == 1
    found = [resumed.run_epoch() for _ in range(2)]
    resumed.close()

    for name in ("epoch", "loss", "score", "best_score"):
        assert [report[name] for report in found] == [report[name] for report in expected]
    assert resumed.progress == undisturbed.progress
    assert resumed.progress.done
    weights = final_weights(undisturbed)
    assert all(np.array_equal(weight, weights[name]) for name, weight in final_weights(resumed).items())


def learning_rate(job: Job) -> float:
    return float(job._training.engine._engine.get_lr()[0])


def final_weights(job: Job) -> dict[str, NDArray[np.float32]]:
    return weights_of(job._training.engine.model)


# --- what a job leaves behind


def test_a_saved_model_scores_as_its_report_says(case: Case, logits: Path, tmp_path: Path) -> None:
    job = Job(distilling(case, logits, tiny_training(epochs=1)), ONE)
    report = job.run_epoch()
    job.save_model(tmp_path)
    job.close()
    assert evaluate_model(tmp_path, TASK, case.data, ONE) == {name: report[name] for name in ("accuracy", "score")}
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    inputs = AutoTokenizer.from_pretrained(tmp_path)(["a good film", "bad"], padding=True, return_tensors="pt")
    assert model(**inputs).logits.shape == (2, 2)
    assert model.config.num_hidden_layers == STUDENT_LAYERS


def test_a_task_is_tokenised_with_its_tokenizer_beside_it(tmp_path: Path) -> None:
    model = tiny_teacher(tmp_path / "model")
    encode_task(tiny_data(5, 3), model, 8, tmp_path)
    assert {TRAIN, VALIDATION, "tokenizer.json"} <= {path.name for path in tmp_path.iterdir()}
    assert max(load_file(tmp_path / TRAIN)["offsets"].diff()) == 8
    assert AutoTokenizer.from_pretrained(tmp_path).model_max_length == 8
    assert (
        AutoTokenizer.from_pretrained(tmp_path)("good")["input_ids"]
        == AutoTokenizer.from_pretrained(model)("good")["input_ids"]
    )


# --- scoring


def test_scores_come_from_a_seeded_sample_and_not_from_its_batches(case: Case, tmp_path: Path) -> None:
    student = Path(tiny_teacher(tmp_path / "student", layers=1))

    def score(seed: int, settings: ScoringConfig) -> NDArray[np.float32]:
        scores = score_teacher(case.model, student, TASK, case.data, None, settings, seed, ONE)
        return np.concatenate([part.flatten() for part in (*scores.knowledge(0.5), scores.head_expressiveness)])

    settings = ScoringConfig(examples=20, batch_size=8)
    scores = score(1, settings)
    assert np.array_equal(scores, score(1, settings))
    assert not np.allclose(scores, score(2, settings), rtol=1e-3)
    np.testing.assert_allclose(scores, score(1, ScoringConfig(examples=20, batch_size=3)), rtol=1e-4, atol=1e-6)
    whole = score(1, ScoringConfig(examples=None, batch_size=8))
    np.testing.assert_allclose(whole, score(2, ScoringConfig(examples=1000, batch_size=8)), rtol=1e-4, atol=1e-6)


# --- a rank's verbs


def test_a_rank_outlives_a_job_that_blew_up(case: Case) -> None:
    worker = Worker(0, 1, "127.0.0.1", None, threads=1)
    worker.begin(fine_tuning(case, tiny_training(learning_rate=1e30, warmup=0.0)))
    report = worker.run_epoch()
    assert report.failure.endswith("at step 2 of epoch 1")
    assert report.done
    assert not report.improved
    worker.begin(fine_tuning(case, tiny_training(epochs=1)))
    assert not worker.run_epoch().failure
    worker.end()
    worker.end()
    assert worker.port is None


def test_masks_are_named_by_what_they_remove(tmp_path: Path) -> None:
    random_scores().save(tmp_path / SCORES)
    worker = Worker(0, 1, "127.0.0.1", None, threads=1)
    sparsities = (DistillationConfig(sparsity=sparsity) for sparsity in (0.0, 0.001, 0.3, 0.3001, 0.6))
    names = [worker.mask_fingerprint(tmp_path, settings, 0) for settings in sparsities]
    assert names[:2] == ["dense", "dense"]
    assert names[2] == names[3]
    assert len(set(names)) == 3


def test_a_teacher_that_is_fine_tuned_already_is_adopted(case: Case, tmp_path: Path) -> None:
    measured = Worker(0, 1, "127.0.0.1", None, threads=1).adopt(str(case.model), TASK, case.data, tmp_path)
    assert measured == evaluate_model(tmp_path, TASK, case.data, ONE)
    left, right = weights_of(replace(case, model=tmp_path).load()), weights_of(case.load())
    assert all(np.array_equal(weight, right[name]) for name, weight in left.items())


# --- two ranks, last, when their processes have started


@cpu_only
def test_two_ranks_resume_too(case: Case, logits: Path, tmp_path: Path, two_ranks: RankProcesses) -> None:
    two_ranks.call(assert_resumes, distilling(case, logits, tiny_training(epochs=3)), tmp_path)


@cpu_only
def test_all_stages_run_on_two_ranks_without_ray_or_mlflow(tmp_path: Path, two_ranks: RankProcesses) -> None:
    model = tiny_teacher(tmp_path / "model")
    folders = {name: tmp_path / name for name in ("data", "teacher", "dense", "trial", "scores", "sparse", "student")}
    for folder in folders.values():
        folder.mkdir()
    first, second = two_ranks.call(run_all_stages, two_ranks.port, model, folders)
    assert first == second
    assert first["read"] == 2 * TRAINED
    assert first["missing"] == 2
    assert 0 < first["student"] < first["teacher"]
    assert load_file(folders["dense"] / LOGITS)["logits"].shape == (TRAINED, 2)
    assert UnitScores.load(folders["scores"] / SCORES).neuron_friendliness.shape == (TEACHER_LAYERS, 32)
    assert AutoModelForSequenceClassification.from_pretrained(folders["student"]).config.num_hidden_layers == 2


def run_all_stages(ranks: Ranks, port: int, model: str, folders: dict[str, Path]) -> dict[str, float]:
    worker = Worker(ranks.rank, ranks.size, "127.0.0.1", port, threads=1)
    worker.join()
    training, data = tiny_training(epochs=1), folders["data"]
    worker.encode(tiny_data(TRAINED, VALIDATED), model, 16, data)

    def train(spec: JobSpec, folder: Path) -> float:
        worker.begin(spec)
        report = worker.run_epoch()
        assert report.improved
        assert report.done
        worker.save_model(folder)
        worker.end()
        return report.measured["parameters"]

    def distil(logits: Path, folder: Path) -> float:
        settings = DistillationConfig(), StudentConfig(layers=STUDENT_LAYERS)
        distillation = Distillation(folders["teacher"], logits, settings[1], settings[0])
        return train(JobSpec(TASK, data, training, distillation=distillation), folder)

    teacher = train(JobSpec(TASK, data, training, model=model), folders["teacher"])
    read = worker.save_dense_logits(folders["teacher"], data, folders["dense"])
    distil(folders["dense"], folders["trial"])
    worker.save_scores(folders["teacher"], folders["trial"], TASK, data, data, ScoringConfig(), 0, folders["scores"])
    sparse = DistillationConfig(sparsity=0.4)
    read += worker.save_sparse_logits(folders["teacher"], folders["scores"], sparse, 0, data, folders["sparse"])
    student = distil(folders["sparse"], folders["student"])
    missing = sum(sys.modules[name] is None for name in ("ray", "mlflow"))
    return {"teacher": teacher, "student": student, "read": read, "missing": missing}
