"""MLflow's model registry: a version for each student that was ever picked, and an alias for the one that is.

Importing MLflow takes seconds: import this module late.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient, set_tracking_uri
from mlflow.artifacts import download_artifacts
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.environment_variables import MLFLOW_TRACKING_URI
from mlflow.exceptions import MlflowException

from stkd.orchestrator.mlflow_store import KEY_TAG, MODEL_TAG
from stkd.search_spaces.values import without_secrets
from stkd.trainers.errors import UserError


@dataclass(frozen=True)
class Registered:
    """A student in the registry."""

    name: str
    version: str
    alias: str
    before: str | None
    """The version that had the alias; None where there was none."""

    @property
    def uri(self) -> str:
        """What `mlflow models serve` and `stkd predict` take."""
        return f"models:/{self.name}@{self.alias}"


class Registry:
    """The registry of one MLflow store. What it cannot do is raised as UserError."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        with self._asked():
            self._client = MlflowClient(tracking_uri=uri)

    def register(
        self, experiment: str, key: str, name: str, alias: str, description: str, tags: Mapping[str, str]
    ) -> Registered:
        """Give the alias to the student of the run with this key; it is registered unless it was before."""
        with self._asked():
            run = self._run(experiment, key)
            known = self._versions(name)
            version = next((version for version in known if version.run_id == run.info.run_id), None)
            if version is None:
                model: str = run.data.tags[MODEL_TAG]
                version = self._client.create_model_version(name, model, run_id=run.info.run_id)
            self._client.update_model_version(name, version.version, description)
            for tag, value in tags.items():
                self._client.set_model_version_tag(name, version.version, tag, value)
            before = self._client.get_registered_model(name).aliases.get(alias)
            self._client.set_registered_model_alias(name, alias, version.version)
        return Registered(name, str(version.version), alias, None if before is None else str(before))

    def run_of(self, model: str) -> Mapping[str, str]:
        """The tags of the run that made a model, as `models:/NAME@ALIAS`."""
        with self._asked():
            run_id = self._version(model).run_id
            tags: Mapping[str, str] = self._client.get_run(run_id).data.tags
        return tags

    def fetch(self, model: str, folder: Path) -> Path:
        """Copy a student, as `models:/NAME@ALIAS`, into a folder, and give where `transformers` finds it."""
        with self._asked():
            fetched = Path(download_artifacts(artifact_uri=model, dst_path=str(folder)))
        return fetched / "model" if (fetched / "model").is_dir() else fetched

    def _run(self, experiment: str, key: str) -> Run:
        found = self._client.get_experiment_by_name(experiment)
        quote = '"' if "'" in key else "'"
        filter_string = f"tags.`{KEY_TAG}` = {quote}{key}{quote}"
        runs = self._client.search_runs([found.experiment_id], filter_string, max_results=1) if found else []
        if not runs or MODEL_TAG not in runs[0].data.tags:
            sweep = key.partition("/")[0]
            raise UserError(
                f"MLflow at {without_secrets(self.uri)} does not have the student of {key}; "
                f"`stkd sweep --resume {sweep}` sends what is missing there"
            )
        return runs[0]

    def _versions(self, name: str) -> list[ModelVersion]:
        try:
            self._client.get_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            self._client.create_registered_model(name)
        return list(self._client.search_model_versions(f"name = '{name}'"))

    def _version(self, model: str) -> ModelVersion:
        by_alias = re.fullmatch(r"models:/([^/@]+)@(.+)", model)
        if by_alias:
            return self._client.get_model_version_by_alias(*by_alias.groups())
        by_number = re.fullmatch(r"models:/([^/@]+)/(\d+)", model)
        if by_number:
            return self._client.get_model_version(*by_number.groups())
        raise UserError(f"{model}: give a registered model as models:/NAME@ALIAS or models:/NAME/VERSION")

    @contextmanager
    def _asked(self) -> Iterator[None]:
        """MLflow as told of this store and no other, for as long as the context lasts; its errors are for people."""
        before = MLFLOW_TRACKING_URI.get()
        try:
            set_tracking_uri(self.uri)  # a store in a file looks up there what is registered
            yield
        except (MlflowException, OSError) as error:
            raise UserError(f"MLflow at {without_secrets(self.uri)}: {str(error).splitlines()[0]}") from error
        finally:
            set_tracking_uri(None)
            if before is not None:
                MLFLOW_TRACKING_URI.set(before)
