from dataclasses import replace

import pytest

from stkd.trainers import generated
from stkd.trainers.errors import UserError
from stkd.trainers.metrics import METRICS
from stkd.trainers.tasks import DEFAULT_METRICS, FITTING_METRICS, TASKS, Task, did_you_mean, find_task

# Official metrics, class counts and hub splits, from the GLUE paper and the data set card of nyu-mll/glue.
OFFICIAL = {
    "cola": (("matthews",), 2, "validation"),
    "sst2": (("accuracy",), 2, "validation"),
    "mrpc": (("accuracy", "f1"), 2, "validation"),
    "stsb": (("pearson", "spearman"), 1, "validation"),
    "qqp": (("accuracy", "f1"), 2, "validation"),
    "mnli": (("accuracy",), 3, "validation_matched"),
    "mnli_mm": (("accuracy",), 3, "validation_mismatched"),
    "qnli": (("accuracy",), 2, "validation"),
    "rte": (("accuracy",), 2, "validation"),
    "wnli": (("accuracy",), 2, "validation"),
}


def test_all_of_glue_and_the_generated_task_are_known() -> None:
    assert list(TASKS) == [*OFFICIAL, generated.NAME]


@pytest.mark.parametrize("name", OFFICIAL)
def test_metrics_outputs_and_splits_are_official(name: str) -> None:
    task = TASKS[name]
    assert task.hub is not None
    assert (task.metrics, task.outputs, task.hub.validation) == OFFICIAL[name]


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_every_task_fits_together(task: Task) -> None:
    assert set(task.metrics) <= set(FITTING_METRICS[task.kind])
    assert (task.kind == "regression") == (task.class_names == ()) == (task.bounds is not None)
    if task.tsv is not None and task.hub is not None:
        assert len(task.tsv.labels) == len(task.class_names)
        assert len(task.tsv.texts) == len(task.hub.texts) in (1, 2)


def test_every_metric_fits_some_kind_of_task() -> None:
    assert len(METRICS) == 8
    assert {metric for metrics in FITTING_METRICS.values() for metric in metrics} == set(METRICS)
    assert all(set(DEFAULT_METRICS[kind]) <= set(metrics) for kind, metrics in FITTING_METRICS.items())


def test_mismatched_mnli_differs_in_its_validation_alone() -> None:
    matched, mismatched = TASKS["mnli"], TASKS["mnli_mm"]
    assert (matched.class_names, matched.metrics) == (mismatched.class_names, mismatched.metrics)
    assert matched.tsv is not None
    assert mismatched.tsv == replace(matched.tsv, validation="dev_mismatched.tsv")
    assert matched.hub is not None
    assert mismatched.hub == replace(matched.hub, validation="validation_mismatched")


def test_entailment_has_the_class_order_of_the_hub() -> None:
    assert TASKS["rte"].class_names == TASKS["qnli"].class_names == ("entailment", "not_entailment")
    assert TASKS["wnli"].class_names == ("not_entailment", "entailment")
    assert TASKS["mnli"].class_names == ("entailment", "neutral", "contradiction")


@pytest.mark.parametrize(("name", "near"), [("mrcp", "mrpc"), ("MRPC", "mrpc"), ("STS-B", "stsb"), ("sst-2", "sst2")])
def test_an_unknown_task_names_the_nearest_and_all(name: str, near: str) -> None:
    with pytest.raises(UserError) as caught:
        find_task(name)
    message = str(caught.value)
    assert f"unknown task {name!r}, did you mean {near!r}?" in message
    assert all(known in message for known in TASKS)
    assert "\n" not in message


def test_nothing_is_suggested_where_nothing_is_near() -> None:
    assert did_you_mean("weather", ["mrpc", "rte"]) == ""
    assert did_you_mean("GLEU", ["glue"]) == ", did you mean 'glue'?"
