"""What the doctor makes of what it is told: judgements without machines, and checks that hang."""

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from click.testing import CliRunner

from stkd.cluster.capacity import Machine
from stkd.cluster.each_node import Answer
from stkd.cluster.errors import ClusterError
from stkd.orchestrator import node_findings
from stkd.orchestrator.cli import main
from stkd.orchestrator.examination import Check, examined
from stkd.orchestrator.findings import Finding
from stkd.orchestrator.node_questions import NodeFacts, Room, look
from stkd.orchestrator.requirements import needed, unequal, unmet_here
from stkd.trainers.steps import StepError, Timed, time_steps

GIB = 1 << 30
NODE = NodeFacts(
    python="3.11.7",
    packages={"torch": "2.13.0", "rich": "14.0"},
    cpus=8,
    gpus=(("NVIDIA H100", 80 * GIB), ("NVIDIA H100", 80 * GIB)),
    memory=Room("memory", 64 * GIB, 128 * GIB),
    shared_memory=Room("/dev/shm", 32 * GIB, 64 * GIB),
    temporary=Room("/tmp", 100 * GIB, 200 * GIB),
    compiler="/usr/bin/c++",
)
TIMED = Timed(device="cpu", training=(0.1,), reading=0.1, tokens=8.0, megabytes=1.0)


def marks(findings: Iterator[Finding]) -> list[tuple[str, str]]:
    return [(finding.mark, finding.node) for finding in findings]


def test_nodes_that_are_alike_are_well() -> None:
    facts = {"a": NODE, "b": NODE}
    machines = dict.fromkeys(facts, Machine(8, 2))
    found = [
        *node_findings.python(NODE, facts),
        *node_findings.gpus(facts, machines),
        *node_findings.memory(facts),
        *node_findings.shared_memory(facts),
        *node_findings.temporary(facts),
        *node_findings.compiler(facts, {}),
        *node_findings.steps([Answer("a", replace_device("cuda")), Answer("b", replace_device("cuda"))], facts),
    ]
    assert [finding.mark for finding in found] == ["ok"] * 7
    assert found[1].says == "4: NVIDIA H100 of 80 GiB"


def replace_device(device: str) -> Timed:
    return TIMED.model_copy(update={"device": device})


def test_another_python_fails_unless_it_is_near() -> None:
    facts = {"a": replace(NODE, python="3.11.2"), "b": replace(NODE, python="3.12.1"), "c": NODE}
    assert marks(node_findings.python(NODE, facts)) == [("warn", "a"), ("FAIL", "b")]


def test_gpus_must_be_those_that_ray_knows() -> None:
    facts = {"more": NODE, "fewer": NODE, "small": replace(NODE, gpus=(("T1", 2 * GIB),))}
    machines = {"more": Machine(8, 1), "fewer": Machine(8, 4), "small": Machine(8, 1)}
    assert marks(node_findings.gpus(facts, machines)) == [("warn", "more"), ("FAIL", "fewer"), ("warn", "small")]
    (finding,) = node_findings.steps([Answer("more", TIMED)], facts)
    assert finding.says == "PyTorch does not see the GPUs"


@pytest.mark.parametrize(
    ("zero", "needs"),
    [
        ({"stage": 1}, False),
        ({"offload_optimizer": {"device": "cpu"}}, False),
        ({"offload_optimizer": {"device": "nvme"}}, True),
        ({"offload_optimizer": {"device": "cpu", "super_offload": True}}, True),
    ],
)
def test_a_compiler_is_missed_where_it_is_needed(zero: dict[str, object], needs: bool) -> None:
    found = marks(node_findings.compiler({"a": replace(NODE, compiler=None)}, {"zero_optimization": zero}))
    assert found == [("FAIL", "a") if needs else ("ok", "")]


def test_this_installation_has_what_stkd_needs() -> None:
    assert len(needed()) >= 20
    assert not list(unmet_here(look(list(needed())).packages))
    (finding,) = unmet_here({name: "999" for name in needed() if name != "rich"})
    assert finding.fix.startswith("pip install 'rich>=")


def test_packages_that_numbers_come_from_must_be_equal() -> None:
    here = {"torch": "2.13.0", "rich": "14.0", "click": "8.2"}
    found = list(unequal(here, {"torch": "2.12.0", "rich": "15.0"}, "a"))
    assert [(finding.mark, finding.says.split()[0]) for finding in found] == [
        ("FAIL", "torch"),
        ("warn", "rich"),
        ("FAIL", "click"),
    ]


def test_a_check_that_hangs_is_named_and_holds_nothing_up() -> None:
    def hang() -> list[Finding]:
        time.sleep(3)
        return []

    def fail() -> list[Finding]:
        raise ClusterError("it is away; start it")

    checks = [Check("slow", hang, 0.3, "look there"), Check("quick", lambda: [Finding("ok", "well")], 5, "")]
    start = time.monotonic()
    ended = {check.name: whole for check, whole in examined([*checks, Check("wrong", fail, 5, "")])}
    assert time.monotonic() - start < 2
    assert ended == {"slow": False, "quick": True, "wrong": True}
    (hanging,) = checks[0].found
    assert (hanging.mark, hanging.fix) == ("FAIL", "look there")
    assert "hangs" in hanging.says


def test_an_error_for_people_is_split_into_what_is_wrong_and_what_to_do() -> None:
    assert Finding.of_error(ClusterError("a is\nb; do c; or d"), "n") == Finding("FAIL", "a is b", "do c; or d", "n")
    record = Finding("ok", "http://me:secret@host answers").record("mlflow")
    assert record["says"] == "http://***@host answers"


@pytest.mark.parametrize("arguments", [["--only", "nonsense"], ["--set", "training.epochs=2"], ["--space", "nowhere"]])
def test_a_mistake_in_the_command_is_no_finding(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, ["doctor", *arguments])
    assert (result.exit_code, result.stdout) == (2, "")


def test_a_process_that_is_not_done_in_time_says_where_it_is() -> None:
    with pytest.raises(StepError, match=r"hangs: not done within 0 s, in .*, line \d+"):
        time_steps([], 0.3)
