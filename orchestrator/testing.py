"""The one look at the test split, when everything is trained and chosen."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from stkd.orchestrator.artifacts import ArtifactStore, write_json
from stkd.orchestrator.evidence import Answers, Contender, contenders, weigh
from stkd.orchestrator.results import Evidence, FinalScore, TaskResults, TrialResult
from stkd.orchestrator.stages import METRICS, CallGang, Shared, despite_losses, read_metrics
from stkd.search_spaces.schema import Space
from stkd.trainers.metrics import evaluate
from stkd.trainers.specs import LABELS, LOGITS
from stkd.trainers.tasks import Task


def to_be_tested(results: TaskResults) -> list[TrialResult]:
    """Whose students are measured: the confirmed ones, or else the best candidate and the best control of each role."""
    confirmed = [trial for contender in contenders(results.of_phase("confirm")) for trial in contender.trials.values()]
    if confirmed:
        return confirmed
    best_controls = {trial.role: trial for trial in reversed(results.ranked("control"))}
    return [*results.ranked()[:1], *best_controls.values()]


def tested_models(space: Space, results: TaskResults, shared: Shared, store: ArtifactStore) -> dict[Path, Path]:
    """The folders of the teacher and of the students to be tested, each with the splits in its own tokens."""
    models = {shared.teacher: shared.data}
    for trial in to_be_tested(results):
        models[store.root / trial.student] = shared.of(space.with_values(trial.values).student).data
    return models


def measure_on_test(
    models: Mapping[Path, Path],
    task: Task,
    store: ArtifactStore,
    host: Callable[[], CallGang],
    attempts: int,
    lost: Callable[[str, str], None],
) -> Iterator[FinalScore]:
    """Measure each model on the test split, unless an earlier sweep has done it.

    Where a process is lost, so many further `attempts` are made, of which `lost` hears the stage and why.
    """
    for model, data in models.items():
        inputs = {"data": data.name, "model": model.name}
        if store.find("test", inputs) is None:
            despite_losses("test", partial(_measure, model, data, inputs, task, store, host), attempts, lost)
        artifact = store.path("test", inputs)
        yield FinalScore(model.name, artifact.name, read_metrics(artifact))


def _measure(
    model: Path, data: Path, inputs: Mapping[str, str], task: Task, store: ArtifactStore, host: Callable[[], CallGang]
) -> None:
    with store.create("test", inputs, lambda: dict(host()("made_with"))) as folder:
        host()("save_test_logits", model, data, folder)
        write_json(folder / METRICS, _measured(task, folder))


def _measured(task: Task, folder: Path) -> dict[str, float]:
    answers = load_file(folder / LOGITS)
    return evaluate(task, answers["logits"], answers[LABELS])


def weigh_results(results: TaskResults, task: Task, store: ArtifactStore) -> Evidence | None:
    """What the confirmed trials say, once they are tested; None where there are none."""
    found = contenders(results.of_phase("confirm"))
    if not found:
        return None
    answers = {contender.name: _answers(contender, results, store) for contender in found}
    return weigh(found, answers, lambda logits, labels: evaluate(task, logits, labels)["score"])


def _answers(contender: Contender, results: TaskResults, store: ArtifactStore) -> Answers:
    logits, labels = {}, np.zeros(0, dtype=np.float32)
    for seed, trial in contender.trials.items():
        answers = load_file(store.root / results.tests[trial.student].artifact / LOGITS)
        logits[seed], labels = answers["logits"], answers[LABELS]
    return Answers(logits, labels)
