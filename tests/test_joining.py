"""Joining a cluster that runs, and every way in which that fails: said in one line, and soon."""

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from hosts import Host, RayCluster, free_port
from ray._private.utils import compute_version_info

from stkd.cluster import joining
from stkd.cluster.cluster import Cluster
from stkd.cluster.errors import ClusterError
from stkd.cluster.joining import ready_to_join

slow = pytest.mark.slow
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # Ray's sockets and subprocesses
HEAD = Host("127.0.0.9")


def refusal(address: str) -> str:
    """What is said of the address, within 20 seconds and in one line."""
    start = time.monotonic()
    with pytest.raises(ClusterError) as raised, ready_to_join(address):
        pass
    assert time.monotonic() - start < 20
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith(f"--address {address}: ")
    return str(raised.value)


@pytest.fixture
def no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user without any token."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ray://10.0.0.1:10001", "stkd submit --address http://HEAD:8265"),
        ("http://10.0.0.1:8265", "is for stkd submit"),
        ("auto", "must be HOST:PORT"),
        ("10.0.0.1", "must be HOST:PORT"),
        ("10.0.0.1:70000", "must be HOST:PORT"),
        ("nowhere.invalid:6379", "there is no host nowhere.invalid"),
    ],
)
def test_what_is_no_address_of_a_cluster_is_refused(address: str, said: str) -> None:
    assert said in refusal(address)


def test_where_nothing_listens_it_is_said() -> None:
    assert "nothing listens there" in refusal(f"127.0.0.1:{free_port('127.0.0.1')}")


def test_another_server_is_told_from_ray(no_token: None) -> None:
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        assert "no Ray GCS" in refusal(f"127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()


def test_a_server_that_never_answers_is_not_waited_for(no_token: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "ANSWER_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "no Ray GCS (DEADLINE_EXCEEDED)" in refusal(f"127.0.0.1:{silent.getsockname()[1]}")


@pytest.fixture(scope="module")
def guarded() -> Iterator[RayCluster]:
    """A cluster that asks for a token."""
    with RayCluster() as cluster:
        cluster.start_head(HEAD, "--num-cpus=2")
        yield cluster


@slow
@pytest.mark.parametrize("mode", [None, "token"])
def test_the_right_token_joins(
    guarded: RayCluster, no_token: None, mode: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    monkeypatch.setenv("RAY_AUTH_TOKEN", str(guarded.token))
    with Cluster(guarded.address) as cluster:
        assert str(cluster.capacity()) == "a node with 2 CPUs"
        assert not cluster.is_local


@slow
def test_a_missing_token_is_said(guarded: RayCluster, no_token: None) -> None:
    assert "wants a token, and none is here" in refusal(guarded.address)


@slow
def test_a_wrong_token_is_said_with_where_it_comes_from(
    guarded: RayCluster, no_token: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0123456789abcdef")
    assert "the token in ~/.ray/auth_token is not the cluster's" in refusal(guarded.address)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "nothing"))
    assert f"{tmp_path}/nothing (RAY_AUTH_TOKEN_PATH) cannot be read" in refusal(guarded.address)
    (tmp_path / "nothing").write_text("fedcba9876543210")
    assert f"the token in {tmp_path}/nothing (RAY_AUTH_TOKEN_PATH) is not" in refusal(guarded.address)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "00112233445566778899")
    said = refusal(guarded.address)
    assert "the token in RAY_AUTH_TOKEN is not" in said
    assert "0011" not in said


@slow
def test_other_versions_are_said(guarded: RayCluster, no_token: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", str(guarded.token))
    ray, python = compute_version_info()
    used = "stkd.cluster.joining.compute_version_info"
    monkeypatch.setattr(used, lambda: ("2.1.0", python))
    assert f"the cluster runs Ray {ray}, and this is Ray 2.1.0" in refusal(guarded.address)
    monkeypatch.setattr(used, lambda: (ray, "3.9.1"))
    assert f"the cluster runs Python {python}, and this is Python 3.9.1" in refusal(guarded.address)


@slow
def test_a_cluster_without_tokens_is_joined_whatever_tokens_are_here(
    no_token: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "00112233445566778899")
    with RayCluster(token=None) as open_to_all:
        open_to_all.start_head(HEAD, "--num-cpus=1")
        with Cluster(open_to_all.address) as cluster:
            assert str(cluster.capacity()) == "a node with 1 CPU"
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        assert "RAY_AUTH_MODE is token here, but the cluster wants none" in refusal(open_to_all.address)
