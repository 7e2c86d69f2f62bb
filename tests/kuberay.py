"""What KubeRay takes: the fields of its resources that the launch files use or might, written down from its reference.

The reference is https://docs.ray.io/en/master/cluster/kubernetes/references/api.html for KubeRay 1.7. Pod templates
are left to the schema of Kubernetes itself.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Quantities = dict[str, str]
Template = dict[str, Any]
Count = Annotated[int, Field(ge=0)]


class Resource(BaseModel):
    """Refuses what the reference does not name, and does not turn numbers into texts or the other way round."""

    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


class AuthOptions(Resource):
    """Who may talk to the cluster; the secret has a key `auth_token`, and came with KubeRay 1.6."""

    mode: Literal["disabled", "token"] = "token"
    secret_name: str | None = None
    enable_k8s_token_auth: bool | None = None


class AutoscalerOptions(Resource):
    """How worker pods come and go."""

    idle_timeout_seconds: Count | None = None
    upscaling_mode: Literal["Default", "Aggressive", "Conservative"] | None = None
    version: Literal["v1", "v2"] | None = None
    resources: dict[str, Quantities] | None = None


class HeadGroup(Resource):
    """The head pod."""

    template: Template
    ray_start_params: dict[str, str] = {}
    resources: Quantities | None = None
    labels: dict[str, str] | None = None
    service_type: Literal["ClusterIP", "NodePort", "LoadBalancer"] | None = None


class WorkerGroup(Resource):
    """Worker pods of one kind."""

    group_name: str
    template: Template
    ray_start_params: dict[str, str] = {}
    replicas: Count = 0
    min_replicas: Count = 0
    max_replicas: Count
    num_of_hosts: Count = 1
    idle_timeout_seconds: Count | None = None
    priority: int = 0
    resources: Quantities | None = None
    labels: dict[str, str] | None = None


class ClusterSpec(Resource):
    """A cluster, by itself or within a job."""

    head_group_spec: HeadGroup
    worker_group_specs: list[WorkerGroup]
    ray_version: str
    auth_options: AuthOptions
    enable_in_tree_autoscaling: bool | None = None
    autoscaler_options: AutoscalerOptions | None = None
    suspend: bool | None = None


class JobSpec(Resource):
    """A job with a cluster of its own."""

    entrypoint: str
    ray_cluster_spec: ClusterSpec
    submission_mode: Literal["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"] = "K8sJobMode"
    backoff_limit: Count = 0
    active_deadline_seconds: Annotated[int, Field(ge=1)] | None = None
    pre_running_deadline_seconds: Annotated[int, Field(ge=1)] | None = None
    shutdown_after_job_finishes: bool = False
    ttl_seconds_after_finished: Count = 0
    job_id: str | None = None


class Metadata(Resource):
    """What the launch files say of a resource itself."""

    name: Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=47)]


class RayCluster(Resource):
    """A RayCluster."""

    api_version: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: Metadata
    spec: ClusterSpec


class RayJob(Resource):
    """A RayJob."""

    api_version: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: JobSpec


KINDS: dict[str, type[Resource]] = {"RayCluster": RayCluster, "RayJob": RayJob}
