"""How MLflow's pages show a sweep: its columns, its tags, and what runs say of themselves.

The pages keep no defaults on the server; a view that somebody shares is a tag of the experiment, and that is what is
written here. Seen in MLflow 3.17, tried in a browser by `tests/test_mlflow_pages.py`.
"""

import json
from collections.abc import Mapping
from shlex import join

from stkd.orchestrator.results import TrialResult

NOTE = "mlflow.note.content"
"""The tag that holds what pages show as the description, in Markdown."""
VIEW_TAG = "mlflow.sharedViewState.stkd"
"""The tag of an experiment with the state of its table of runs, named `stkd` in addresses."""
VIEW_QUERY = f"viewStateShareKey={VIEW_TAG.rpartition('.')[2]}&workflowType=machine_learning"
"""What an address asks for that view with; MLflow shows its pages for prompts and traces unless it is told."""
MODELS = "attributes.`Models`"
COLUMNS = {
    "attributes.`Run Name`": 340,
    "metrics.`score`": 90,
    "metrics.`test_score`": 100,
    "tags.`stkd.best`": 110,
    "tags.`stkd.role`": 130,
    "tags.`stkd.status`": 110,
    MODELS: 110,
    "metrics.`parameters`": 110,
    "metrics.`megabytes`": 100,
    "metrics.`milliseconds_per_example`": 120,
    "metrics.`latency_p95_ms`": 120,
    "runDateAndNestInfo": 150,
    "duration": 90,
}
"""Columns of the table of runs in their order, with their widths in pixels; the name and the last two always show."""
EXPERIMENT_NOTE = """\
Small students of one teacher, searched by `stkd sweep`. Each line is a sweep on one task: unfold it for its stages and
trials, and open its page for the answer and the report. Trials are named by what was searched: lambda (interpolation),
s (sparsity), T (temperature). `score` is what students are chosen by, `test_score` is from examples that nothing was
chosen by; both are in 0..1.

| tag | says |
|---|---|
| `stkd.best` | the student to take |
| `stkd.finalist` | trained over fresh seeds, to tell skill from luck |
| `stkd.control` | what the best must beat: `stkd.role` says which |
| `stkd.status` | `finished`, `stopped` early, or `failed`, for the reason in `stkd.failure` |
"""
STAGE_NOTES = {
    "data": "The data, tokenised once for all.",
    "student_data": "The data, tokenised for the student.",
    "teacher": "The teacher: the model to compress, fine-tuned on the task.",
    "logits": "The dense teacher's answers to the training data.",
    "trial_student": "The trial student, of the dense teacher. It says what a student can follow.",
    "importance": "What the teacher's own loss needs of its heads and neurons; the student is cut by it.",
    "scores": "Expressiveness and friendliness of the teacher's heads and neurons. Pictures are under *Artifacts*.",
    "packing": "How many trials one device serves best side by side.",
}
CONTROL_NOTES = {
    "no teacher": "Control: the student that learns from the labels alone.",
    "dense teacher": "Control: the student of the whole teacher.",
    "random teacher": "Control: the student of a teacher that lost as many units by chance.",
}


def experiment_tags() -> dict[str, str]:
    """What pages read of an experiment: that it has models and no prompts, and the state of its table of runs.

    The state is as pages write it when a view is shared. Sorted by anything but time, the table would not be folded.
    """
    chosen = [column for column in COLUMNS if column.startswith(("metrics.", "tags.")) or column == MODELS]
    table = {"selectedColumns": chosen, "columnOrder": ["0", *COLUMNS], "columnWidths": COLUMNS}
    return {
        "mlflow.experimentKind": "custom_model_development",
        VIEW_TAG: json.dumps({**table, "orderByKey": "attributes.start_time", "orderByAsc": False}),
    }


def sweep_note(answer: str, sure: str, sweep: str, task: str, storage: str) -> str:
    """What a finished sweep has found on a task, and how to go on."""
    options = join(["--sweep", sweep, "--task", task, "--storage", storage])
    commands = "\n".join(f"    {command} {options}" for command in ("stkd pick", "stkd export my-student"))
    return f"**{answer}** {sure}\n\nThe report is under *Artifacts*: `report.html`. To go on:\n\n{commands}"


def stage_note(stage: str) -> str:
    """What a stage makes, and for which students where there are several: `scores-layers=4`."""
    name, _, student = stage.partition("-")
    return f"{STAGE_NOTES[name]} For students with {student}." if student else STAGE_NOTES[name]


def trial_note(trial: TrialResult) -> str:
    """What a trial is for."""
    control = CONTROL_NOTES.get(trial.role)
    if trial.phase == "confirm":
        return f"{control or 'Finalist.'} At a fresh seed: only these are compared."
    return control or "A trial of the search: the student of a sparse teacher."


def trial_tags(trial: TrialResult) -> Mapping[str, str]:
    """What a trial is found by."""
    tags = {"stkd.phase": trial.phase, "stkd.role": trial.role, NOTE: trial_note(trial)}
    if trial.role != "candidate":
        tags["stkd.control"] = "true"
    elif trial.phase == "confirm":
        tags["stkd.finalist"] = "true"
    return tags
