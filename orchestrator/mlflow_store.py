"""What an event of the journal becomes in MLflow. Importing MLflow takes seconds: import this module late.

Only `MlflowClient` with an explicit address is used, never the fluent functions: nothing global is set, and no run of
the caller's own is touched. Every event may be sent twice: a run is found by its key, a point by its time and step.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException, RestException
from mlflow.models import Model

from stkd.orchestrator.journal import (
    AwayError,
    Event,
    FileMade,
    Measured,
    RefusedError,
    RunEnded,
    RunStarted,
    StudentMade,
    Tagged,
)
from stkd.orchestrator.mlflow_models import save_student
from stkd.orchestrator.mlflow_view import EXPERIMENT_NOTE, NOTE, experiment_tags

KEY_TAG = "stkd.key"
MODEL_TAG = "stkd.model"
MODEL_NAME = "student"
BATCH, BATCH_OF_METRICS = 100, 800
"""Parameters or tags that MLflow takes in one request, and points beside them, of 1,000 in all."""
PERMANENT = {
    "ALREADY_EXISTS",
    "ENDPOINT_NOT_FOUND",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "MALFORMED_REQUEST",
    "NOT_FOUND",
    "NOT_IMPLEMENTED",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
}


class MlflowStore:
    """One experiment of one MLflow store, made if it is not there."""

    def __init__(self, uri: str, experiment: str, artifact_location: str | None) -> None:
        self._client = MlflowClient(tracking_uri=uri)
        found = self._client.get_experiment_by_name(experiment)
        if found is None:  # its description is the user's to change afterwards
            tags = experiment_tags() | {NOTE: EXPERIMENT_NOTE}
            self._experiment = self._client.create_experiment(experiment, artifact_location, tags)
            return
        self._experiment = found.experiment_id
        for name, value in experiment_tags().items():
            if found.tags.get(name) != value:
                self._client.set_experiment_tag(self._experiment, name, value)

    def send(self, events: Sequence[Event], run_ids: Mapping[str, str], may_be_known: bool) -> str:
        """Sends one event, or a run's start, points and tags; gives the id of the run.

        Args:
            events: what happened, in this order, to one run.
            run_ids: the runs that are known, by key.
            may_be_known: whether these events may have been sent before.

        Raises:
            RefusedError: they will never be taken, or one of them.
            AwayError: MLflow does not answer.
            Exception: anything else, such as an artifact store's own error; it may pass or not.

        """
        first = events[0]
        try:
            if isinstance(first, RunStarted):
                return self._start(first, events[1:], run_ids, may_be_known)
            if first.key not in run_ids:
                raise RefusedError(f"there is no run {first.key}: its start was refused, or never written down")
            self._record(events, run_ids[first.key])
        except MlflowException as error:
            raise _judged(error) from error
        except (ConnectionError, TimeoutError) as error:
            raise AwayError(str(error)) from error
        return run_ids[first.key]

    def _start(self, event: RunStarted, facts: Sequence[Event], run_ids: Mapping[str, str], may_be_known: bool) -> str:
        """Also for a run that was made just before a kill, and for one that had ended and goes on."""
        run = self._find(event.key) if may_be_known or event.key in run_ids else None
        wanted = {**event.tags, **_tags_of(facts)}
        if run is None:
            run = self._create(event, wanted, run_ids)
        elif run.info.status != "RUNNING":
            self._client.update_run(run.info.run_id, "RUNNING")
        # MLflow cannot change a parameter, and refuses the whole batch for one that differs.
        params = {name: value for name, value in event.params.items() if name not in run.data.params}
        tags = {name: value for name, value in wanted.items() if run.data.tags.get(name) != value}
        run_id: str = run.info.run_id
        self._log(run_id, facts, params, tags)
        return run_id

    def _create(self, event: RunStarted, wanted: Mapping[str, str], run_ids: Mapping[str, str]) -> Run:
        tags = {KEY_TAG: event.key, **wanted}
        if event.parent is not None and event.parent in run_ids:
            tags["mlflow.parentRunId"] = run_ids[event.parent]
        return self._client.create_run(self._experiment, start_time=event.at, tags=tags, run_name=event.name)

    def _find(self, key: str) -> Run | None:
        quote = '"' if "'" in key else "'"
        filter_string = f"tags.`{KEY_TAG}` = {quote}{key}{quote}"
        return next(iter(self._client.search_runs([self._experiment], filter_string, max_results=1)), None)

    def _record(self, events: Sequence[Event], run_id: str) -> None:
        match events[0]:
            case FileMade() as event:
                self._client.log_artifact(run_id, str(_present(event.path)), event.folder or None)
            case StudentMade() as event:
                self._log_student(event, run_id)
            case RunEnded() as event:
                self._client.set_terminated(run_id, event.status, end_time=event.at)
            case _:
                self._log(run_id, events, {}, _tags_of(events))

    def _log(self, run_id: str, events: Sequence[Event], params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        measured = [event for event in events if isinstance(event, Measured)]
        metrics = [Metric(*point, event.at, event.step) for event in measured for point in event.metrics.items()]
        batches = zip_longest(
            _batches(metrics, BATCH_OF_METRICS),
            _batches([Param(*item) for item in params.items()], BATCH),
            _batches([RunTag(*item) for item in tags.items()], BATCH),
            fillvalue=(),
        )
        for some_metrics, some_params, some_tags in batches:
            self._client.log_batch(run_id, some_metrics, some_params, some_tags)

    def _log_student(self, event: StudentMade, run_id: str) -> None:
        _present(event.path / "config.json")
        logged = self._logged_model(run_id)
        if logged.status == LoggedModelStatus.READY:
            return
        model = Model(logged.artifact_location, run_id=run_id, model_uuid=logged.model_id, model_id=logged.model_id)
        folder = _local_folder(logged.artifact_location)
        if folder is not None:
            save_student(event.path, folder, model, event.pairs)
        else:
            with TemporaryDirectory() as temporary:
                save_student(event.path, Path(temporary), model, event.pairs)
                self._client.log_model_artifacts(logged.model_id, temporary)
        if not self._client.get_run(run_id).outputs.model_outputs:  # which MLflow refuses to hear twice
            self._client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        self._client.log_batch(run_id, tags=[RunTag(MODEL_TAG, f"models:/{logged.model_id}")])
        self._client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)

    def _logged_model(self, run_id: str) -> LoggedModel:
        """The run's model: the one that an earlier attempt made, or a new one."""
        filter_string = f"source_run_id = '{run_id}' AND name = '{MODEL_NAME}'"
        found = self._client.search_logged_models([self._experiment], filter_string, max_results=1)
        if found:
            return found[0]
        return self._client.create_logged_model(self._experiment, MODEL_NAME, source_run_id=run_id)


def _judged(error: MlflowException) -> Exception:
    """What the failure of a request means for the event."""
    if error.error_code in PERMANENT:
        return RefusedError(str(error))
    # A bad request may be a database under too much load, and an answer that says "internal error" a bug that stays.
    answered = isinstance(error, RestException) and error.error_code == "INTERNAL_ERROR"
    doubtful: Exception = error
    return doubtful if answered or error.error_code == "BAD_REQUEST" else AwayError(str(error))


def _tags_of(events: Sequence[Event]) -> dict[str, str]:
    return {name: value for event in events if isinstance(event, Tagged) for name, value in event.tags.items()}


def _batches(items: list[Any], size: int) -> Iterable[list[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _present(path: Path) -> Path:
    if not path.exists():
        raise RefusedError(f"{path} is no longer there")
    return path


def _local_folder(location: str) -> Path | None:
    parts = urlparse(location)
    return Path(url2pathname(parts.path)) if parts.scheme in ("", "file") else None
