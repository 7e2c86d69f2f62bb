"""Whether a cluster can run a sweep at all: asked once, before anything is computed."""

from pathlib import Path
from urllib.parse import urlsplit

from stkd.cluster.cluster import Cluster
from stkd.cluster.errors import ClusterError
from stkd.orchestrator.hosting import trial_request
from stkd.search_spaces.schema import Space
from stkd.search_spaces.values import without_secrets


def admit(space: Space, cluster: Cluster, tracking: str | None = None) -> None:
    """Returns where the cluster can run the space's trials, and write to the MLflow at `tracking`, if there is any.

    Raises:
        ClusterError: it never can; the message says why, and what to do.

    """
    cluster.capacity().refuse_impossible(trial_request(space))
    if cluster.is_local:
        return
    if tracking is not None and cluster.may_have_several_nodes():
        _check_tracking(tracking)
    models = (space.teacher.model, space.student.model)
    cluster.check_shared(space.storage_folder, [model for model in models if model and Path(model).is_dir()])


def _check_tracking(uri: str) -> None:
    if urlsplit(uri).scheme not in ("http", "https"):
        raise ClusterError(
            f"tracking.uri is {without_secrets(uri)}: a sweep on several nodes needs an MLflow server; give its "
            "address by --set tracking.uri=http://HOST:5000, or by MLFLOW_TRACKING_URI"
        )
