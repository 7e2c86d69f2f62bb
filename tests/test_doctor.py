"""`stkd doctor` on machines and clusters with real faults: each is found within a minute, with its fix."""

import json
import os
import socket
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Thread

import pytest
import requests
from hosts import Host, RayCluster, free_port
from postgres_server import Server, started
from sweeping import STKD, environment, write_space

slow = pytest.mark.slow
LONGEST = 60.0
FEWEST_FAULTS = 12
HEAD, WORKER, OPEN_HEAD = Host("127.0.0.41"), "127.0.0.42", Host("127.0.0.43")
NVME = "deepspeed={zero_optimization: {stage: 3, offload_param: {device: nvme, nvme_path: /tmp}}}"
PASSWORD = "a-password-of-the-test"


@dataclass(frozen=True)
class Fault:
    """Something that is wrong, in which run of the doctor it is met, and what that must say."""

    name: str
    run: str
    check: str
    says: str
    fix: str
    mark: str = "fail"
    needs_root: bool = False


FAULTS = [
    Fault(
        "too many GPUs for this machine", "machine", "room", "takes 64 GPU(s), but this machine shows", "to 0 or less"
    ),
    Fault(
        "a model folder is missing", "machine", "models", "no such folder as /nowhere/bert", "put it where all nodes"
    ),
    Fault(
        "no compiler where one is needed",
        "machine",
        "compiler",
        "async_io compiled, and there is no C++",
        "install g++",
    ),
    Fault(
        "MLflow refuses the host name",
        "machine",
        "mlflow",
        "does not accept the host name 127.0.0.1",
        "--allowed-hosts 127",
    ),
    Fault("a port is taken", "machine", "ports", "5000, where stkd ui would listen, is taken", "--port", mark="warn"),
    Fault("a folder that refuses writes", "machine", "storage", "storage /proc/stkd", "another folder with --storage"),
    Fault("MLflow wants a password", "full", "mlflow", "wants a user and a password", "set MLFLOW_TRACKING_USERNAME"),
    Fault("a full disk", "full", "storage", "No space left on device", "give another folder", needs_root=True),
    Fault("too little disk", "full", "disk", "has 0 MiB free", "make room in", needs_root=True),
    Fault("Ray's folder is full", "full", "temp", "where Ray has its files, has 0 MiB", "RAY_TMPDIR", needs_root=True),
    Fault("little shared memory", "full", "shm", "/dev/shm has 8 MiB free", "--shm-size", "warn", needs_root=True),
    Fault("the hub is away", "full", "models", "does not answer", "HF_ENDPOINT", "warn", needs_root=True),
    Fault(
        "storage is mounted read-only",
        "read-only",
        "storage",
        "Read-only file system",
        "another folder",
        needs_root=True,
    ),
    Fault("MLflow is away", "read-only", "mlflow", "nothing answers there", "start it, or give", needs_root=True),
    Fault("data is missing", "read-only", "data", "/nowhere/MRPC does not exist", "", needs_root=True),
    Fault("no token", "no token", "token", "wants a token, and none is here", "RAY_AUTH_TOKEN"),
    Fault("a wrong token", "wrong token", "token", "RAY_AUTH_TOKEN is not the cluster's", "take the one"),
    Fault("a cluster that asks for no token", "open", "token", "asks for none", "RAY_AUTH_MODE=token", mark="warn"),
    Fault("another Python", "open", "cluster", "the cluster runs Python 3.", "use the same on all"),
    Fault("no cluster there", "nothing", "cluster", "nothing listens there", "the head's GCS listens where"),
    Fault(
        "another package on a node", "cluster", "packages", "transformers is 4.0.0, and", "pip install 'transformers=="
    ),
    Fault("a DeepSpeed step that hangs", "cluster", "deepspeed", "hangs: not done within", "run it alone"),
    Fault(
        "storage that a node does not share",
        "cluster",
        "storage",
        "written here is not seen there",
        "NFS",
        needs_root=True,
    ),
    Fault("too many GPUs for the cluster", "cluster", "room", "never fits this cluster", "lower resources"),
    Fault("one machine's MLflow on several nodes", "cluster", "mlflow", "serves one machine", "MLFLOW_TRACKING_URI"),
]
"""Of those that need root, mounts are part."""


@dataclass(frozen=True)
class Examined:
    """What the doctor said, and for how long it looked."""

    findings: Sequence[Mapping[str, str]]
    code: int
    seconds: float


class Examining:
    """A doctor at work."""

    def __init__(
        self,
        stack: ExitStack,
        *arguments: str | Path,
        prefix: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        command = [*prefix, *STKD, "doctor", "--json", *map(str, arguments)]
        self._start = time.monotonic()
        self._process = subprocess.Popen(
            command,
            env=environment() if variables is None else variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        self._watching = Thread(target=self._watch)
        self._watching.start()
        stack.callback(self._watching.join)
        stack.callback(self._process.kill)

    def _watch(self) -> None:
        self._said = self._process.communicate()
        self._seconds = time.monotonic() - self._start

    def end(self) -> Examined:
        self._watching.join(2 * LONGEST)
        output, errors = self._said
        assert output, errors
        return Examined(json.loads(output), self._process.returncode, self._seconds)


def other_installation(folder: Path) -> str:
    """A Python with all that this one has, which what is put into its own packages hides; its path."""
    venv.create(folder, symlinks=True)
    own = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (own / "others.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    return str(folder / "bin" / "python")


def with_python(python: str, mount: str = "true") -> tuple[str, ...]:
    """What has a command of this Python run by another one, after a mount of its own."""
    namespace = ("unshare", "-m") if mount != "true" else ()
    return (*namespace, "sh", "-c", f'{mount} && shift && exec "$0" "$@"', python)


def packages_of(python: str) -> Path:
    return next((Path(python).parents[1] / "lib").glob("python*")) / "site-packages"


def spoilt_worker(folder: Path, hidden: Path) -> Host:
    """A node with another transformers, a DeepSpeed that hangs, and a `hidden` folder of its own if it may have one."""
    python = other_installation(folder)
    about = packages_of(python) / "transformers-4.0.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 4.0.0\n")
    hanging = packages_of(python) / "deepspeed"
    hanging.mkdir()
    (hanging / "__init__.py").write_text("import time\n\ntime.sleep(3600)\n")
    mount = f"mount -t tmpfs none {hidden}" if os.geteuid() == 0 else "true"
    return Host(WORKER, with_python(python, mount))


def other_python(folder: Path) -> Host:
    """A head that takes itself for another Python."""
    python = other_installation(folder)
    (packages_of(python) / "sitecustomize.py").write_text(
        "import collections, sys\n\n"
        "fields = ('major', 'minor', 'micro', 'releaselevel', 'serial')\n"
        "sys.version_info = collections.namedtuple('version_info', fields)(*sys.version_info[:2], 99, 'final', 0)\n"
    )
    return Host(OPEN_HEAD.address, with_python(python))


@dataclass(frozen=True)
class Seeded:
    """Runs of the doctor: each begins when it is first asked for, and is there for all who ask."""

    to_begin: Mapping[str, Callable[[], Examining]]
    ended: dict[str, Examined] = field(default_factory=dict)

    def __getitem__(self, run: str) -> Examined:
        if run not in self.ended:
            self.ended[run] = self.to_begin[run]().end()
        return self.ended[run]


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeded]:
    """A machine, an MLflow server and two clusters full of faults, and the doctors that look at them."""
    folder = tmp_path_factory.mktemp("faults")
    with ExitStack() as stack:
        server, port = stack.enter_context(refusing_mlflow(folder / "mlflow"))
        guarded = stack.enter_context(RayCluster())
        open_to_all = stack.enter_context(RayCluster(token=None))
        open_to_all.start_head(other_python(folder / "other"), "--num-cpus=1")
        runs = cluster_runs(stack, guarded, folder) | open_runs(stack, open_to_all) | mounted_runs(stack, folder, port)
        server.wait_until(lambda: status(port) == 401)
        yield Seeded({**runs, "machine": machine_run(stack, folder, port)})


@contextmanager
def refusing_mlflow(folder: Path) -> Iterator[tuple[Server, int]]:
    """A server that answers to `localhost` alone, and wants a password; and its port."""
    folder.mkdir()
    port = free_port("127.0.0.1")
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--app-name", "basic-auth", "--allowed-hosts", f"localhost:{port}"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    access = folder / "access.ini"
    access.write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/auth.db\nadmin_username = admin\n"
        f"admin_password = {PASSWORD}\nauthorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    settings = {"MLFLOW_AUTH_CONFIG_PATH": str(access), "MLFLOW_FLASK_SERVER_SECRET_KEY": PASSWORD}
    settings |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with started(command, folder, env=environment() | settings) as server:
        yield server, port


def status(port: int) -> int | None:
    try:
        return requests.get(f"http://localhost:{port}/api/2.0/mlflow/experiments/search", timeout=5).status_code
    except requests.RequestException:
        return None


def cluster_runs(stack: ExitStack, cluster: RayCluster, folder: Path) -> dict[str, Callable[[], Examining]]:
    """One that has begun, and takes longest, since a step hangs there; and those with other tokens."""
    hidden = folder / "hidden"
    hidden.mkdir()
    cluster.start_head(HEAD, "--num-cpus=2")
    cluster.start_worker(spoilt_worker(folder / "spoilt", hidden), "--num-cpus=2")
    space = write_space(folder / "space", resources={"gpus_per_rank": 64, "cpus_per_rank": 1})
    where = ("--address", cluster.address)
    begun = Examining(stack, *where, "--space", space, "--storage", hidden, variables=cluster.environment())
    no_token, wrong_token = cluster.environment(HOME=str(folder)), cluster.environment(RAY_AUTH_TOKEN=32 * "a")
    del no_token["RAY_AUTH_TOKEN"]
    return {
        "cluster": lambda: begun,
        "no token": partial(Examining, stack, *where, "--only", "cluster,token", variables=no_token),
        "wrong token": partial(Examining, stack, *where, "--only", "cluster,token", variables=wrong_token),
    }


def open_runs(stack: ExitStack, cluster: RayCluster) -> dict[str, Callable[[], Examining]]:
    nobody, asked = f"127.0.0.1:{free_port('127.0.0.1')}", ("--only", "cluster,token")
    return {
        "open": partial(Examining, stack, "--address", cluster.address, *asked, variables=cluster.environment()),
        "nothing": partial(Examining, stack, "--address", nobody, *asked),
    }


def machine_run(stack: ExitStack, folder: Path, mlflow: int) -> Callable[[], Examining]:
    taken = stack.enter_context(socket.socket())
    with suppress(OSError):  # somebody else has it
        taken.bind(("127.0.0.1", 5000))
        taken.listen()
    tracking = f"tracking.uri=http://127.0.0.1:{mlflow}"
    settings = ("resources.gpus_per_rank=64", "teacher.model=/nowhere/bert", NVME, tracking)
    options = [word for setting in settings for word in ("--set", setting)]
    checks = ("--only", "room,models,compiler,mlflow,ports,storage,python")
    without_compiler = environment() | {"PATH": str(folder), "CXX": ""}
    where = ("--space", "quickstart", "--storage", "/proc/stkd")
    return partial(Examining, stack, *where, *options, *checks, variables=without_compiler)


def mounted_runs(stack: ExitStack, folder: Path, mlflow: int) -> dict[str, Callable[[], Examining]]:
    """Runs in which storage, and more, are mounts that nobody else sees."""
    full, read_only = folder / "full", folder / "read-only"
    for place in (full, read_only):
        place.mkdir()
    mounts = f"mount -t tmpfs -o size=64k none {full} && cat /dev/zero > {full}/all 2> /dev/null; "
    mounts += "mount -t tmpfs -o size=8m none /dev/shm"
    away = environment() | {"HF_ENDPOINT": f"http://127.0.0.1:{free_port('127.0.0.1')}", "RAY_TMPDIR": str(full)}
    nowhere = f"http://127.0.0.1:{free_port('127.0.0.1')}"
    return {
        "full": partial(
            Examining,
            stack,
            *("--storage", full, "--only", "storage,disk,temp,shm,models,mlflow"),
            prefix=mounted(mounts),
            variables=away | {"MLFLOW_TRACKING_URI": f"http://localhost:{mlflow}"},
        ),
        "read-only": partial(
            Examining,
            stack,
            *("--space", "minilm_glue", "--tasks", "mrpc", "--set", "data={source: glue_dir, path: /nowhere}"),
            *("--storage", read_only, "--set", f"tracking.uri={nowhere}", "--only", "storage,mlflow,data"),
            prefix=mounted(f"mount -t tmpfs -o ro none {read_only}"),
        ),
    }


def mounted(mounts: str) -> tuple[str, ...]:
    return ("unshare", "-m", "sh", "-c", f'{mounts} && exec "$@"', "sh")


@slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_found_within_a_minute_with_its_fix(fault: Fault, seeded: Seeded) -> None:
    if fault.needs_root and os.geteuid() != 0:
        pytest.skip("mounts need root")
    run = seeded[fault.run]
    assert run.seconds < LONGEST
    found = [finding for finding in run.findings if finding["check"] == fault.check]
    told = [finding for finding in found if fault.says in finding["says"] and fault.fix in finding["fix"]]
    assert {finding["mark"] for finding in told} == {fault.mark}, found  # a busy machine is slow in the same words
    assert run.code == 1


@slow
def test_what_is_well_is_said_to_be(seeded: Seeded) -> None:
    marks = {finding["check"]: finding["mark"] for finding in seeded["cluster"].findings}
    assert {name for name, mark in marks.items() if mark == "ok"} >= {"cluster", "token", "nodes", "python", "compiler"}
    of_head = {finding["check"] for finding in seeded["cluster"].findings if finding["node"] == HEAD.address}
    assert of_head <= {"deepspeed"}  # whose imports may take all the time that a busy machine is given


def test_enough_faults_are_seeded() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert len([fault for fault in FAULTS if not fault.needs_root]) >= FEWEST_FAULTS
