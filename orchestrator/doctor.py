"""`stkd doctor`: whether a sweep can run here or on a cluster, check by check, and what to do where it cannot."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from stkd.orchestrator import node_findings, service_findings
from stkd.orchestrator.examination import Check, examined
from stkd.orchestrator.findings import Finding, show
from stkd.orchestrator.hosting import trial_request
from stkd.orchestrator.node_findings import GIB, Facts
from stkd.orchestrator.node_questions import ask_hub, find_models, make_steps
from stkd.orchestrator.options import DEFAULT_STORAGE
from stkd.orchestrator.preflight import check_budget, check_machine
from stkd.orchestrator.records import Printed, machine_text
from stkd.orchestrator.site import Site
from stkd.orchestrator.tracking import tracking_uri
from stkd.search_spaces.schema import Space
from stkd.trainers.config import TrainingConfig
from stkd.trainers.errors import UserError
from stkd.trainers.sources import load_task
from stkd.trainers.steps import Steps
from stkd.trainers.tasks import did_you_mean

STEP_SECONDS, STEP_SPARE = 35.0, 4.0
"""For a DeepSpeed step, from the start of its process: most of it are imports from a slow disk; and for its answer."""
QUICK, NODES = 25.0, 49.0
"""How long checks may take: those of this machine, and those that ask nodes."""
NETWORK = "a firewall, or a node that is stuck: `ray status` on the head"
DISK = "a file server that does not answer: `df` on that node hangs, too"
"""What to look for where something hangs."""
TINY = TrainingConfig(batch_size=4, max_length=8)


class Doctor:
    """The checks of one site, for one space if there is one."""

    def __init__(self, address: str | None, space: Space | None, storage: Path | None) -> None:
        self.site, self._space = Site(address), space
        self._storage = storage or (space.storage_folder if space else None)

    def checks(self) -> list[Check]:
        """All that apply, in the order in which they are told."""
        site, of_space = self.site, [Check("room", self._room, NODES, NETWORK), Check("data", self._data, NODES, DISK)]
        return [
            *self._cluster_checks(),
            *self._node_checks(),
            Check(
                "deepspeed", self._steps, NODES, "a package that hangs when it is imported, or a stuck GPU: nvidia-smi"
            ),
            Check("storage", self._shared, NODES, DISK),
            Check("disk", self._disk, QUICK, DISK),
            Check("models", self._models, NODES, "the hub, or a folder of models that hangs"),
            Check("mlflow", self._mlflow, NODES, "a server that does not answer: look at its log"),
            Check("ports", lambda: service_findings.ports(site.address is None), QUICK, NETWORK),
            *(of_space if self._space else ()),
        ]

    def _cluster_checks(self) -> list[Check]:
        if self.site.address is None:
            return [Check("ray", self.site.started, NODES, "see the newest logs in /tmp/ray")]
        return [
            Check("cluster", self.site.joined, NODES, NETWORK),
            Check("token", self.site.token, NODES, NETWORK),
            Check("nodes", self._nodes, NODES, NETWORK),
        ]

    def _node_checks(self) -> list[Check]:
        """What the facts of the nodes tell."""
        site, deepspeed = self.site, self._space.deepspeed if self._space else {}
        judges: dict[str, Callable[[Facts], Iterator[Finding]]] = {
            "python": lambda facts: node_findings.python(site.here, facts),
            "packages": lambda facts: node_findings.packages(site.here, facts),
            "gpus": lambda facts: node_findings.gpus(facts, site.machines()),
            "memory": node_findings.memory,
            "shm": node_findings.shared_memory,
            "temp": node_findings.temporary,
            "compiler": lambda facts: node_findings.compiler(facts, deepspeed),
        }
        return [Check(name, partial(self._judged, judge), NODES, NETWORK) for name, judge in judges.items()]

    def _judged(self, judge: Callable[[Facts], Iterator[Finding]]) -> Iterator[Finding]:
        """What the facts tell; nothing where no node answers, which is told already."""
        facts = self.site.facts()
        return judge(facts) if facts else iter(())

    def _nodes(self) -> Iterator[Finding]:
        answers = self.site.answers() if self.site.machines() else []
        failed = [answer for answer in answers if answer.found is None]
        fix = "see /tmp/ray/session_latest/logs there; stkd is sent to each node, which takes pip"
        yield from (Finding("FAIL", f"does not work: {answer.problem}", fix, answer.node) for answer in failed)
        if answers and not failed:
            yield Finding("ok", f"{len(answers)} answer")

    def _steps(self) -> Iterator[Finding]:
        overrides = self._space.deepspeed if self._space else {}
        facts = self.site.facts()  # first: by then every node has this stkd
        limit = max(1.0, min(STEP_SECONDS, self.site.left() - STEP_SPARE))
        answers = self.site.ask_aside(make_steps, Steps(training=TINY, deepspeed=overrides), limit)
        return node_findings.steps(answers, facts)

    def _shared(self) -> Iterator[Finding]:
        if self._storage is None and self.site.has_several_nodes():
            return iter(
                [Finding("warn", "not tried on the nodes", "name the folder that all of them see with --storage")]
            )
        return service_findings.storage(self._folder, self.site.ask)

    @property
    def _folder(self) -> Path:
        return (self._storage or Path(DEFAULT_STORAGE)).expanduser().absolute()

    def _disk(self) -> Iterator[Finding]:
        return service_findings.disk(self._folder, GIB)

    def _models(self) -> Iterator[Finding]:
        if self._space is None:
            problem = ask_hub()
            says, _, fix = problem.partition("; ")
            yield (
                Finding("warn", says, f"for spaces whose models or data come from it: {fix}")
                if problem
                else Finding("ok", "the hub answers")
            )
            return
        answers = self.site.ask(find_models, self._space)
        problems = [
            (answer.node, answer.found or answer.problem) for answer in answers if answer.found or answer.problem
        ]
        for node, problem in problems:
            says, _, fix = problem.partition("; ")
            yield Finding("FAIL", says, fix or "put it where all nodes see it, or name another", node)
        if not problems:
            yield Finding("ok", f"{self._space.teacher.model}")

    def _mlflow(self) -> Iterator[Finding]:
        uri = tracking_uri(self._space.tracking.uri if self._space else None, self._folder)
        return service_findings.mlflow(uri, self.site.has_several_nodes())

    def _room(self) -> Iterator[Finding]:
        assert self._space is not None, "there is nothing to place without a space"
        request, capacity = trial_request(self._space), self.site.capacity()
        if self.site.address is None:
            check_machine(self._space)
            check_budget(self._space)
        capacity.refuse_impossible(request)
        yield Finding("ok", f"{capacity.jobs_now(request)} trials of {request} at a time")

    def _data(self) -> Iterator[Finding]:
        assert self._space is not None, "there is no data without a space"
        if self._space.data.source == "hub":
            problem = ask_hub()
            says, _, fix = problem.partition("; ")
            yield Finding("FAIL", says, fix) if problem else Finding("ok", "from the hub, which answers")
            return
        sizes = [f"{name} {len(load_task(name, self._space.data).train):,}" for name in self._space.tasks]
        yield Finding("ok", f"training examples: {', '.join(sizes)}")


def run_doctor(
    address: str | None, space: Space | None, storage: Path | None, only: Sequence[str], printed: Printed | None
) -> int:
    """Look at everything, or only at the checks of these names; prints, and returns the exit code.

    Raises:
        UserError: there is no check of such a name.

    """
    doctor = Doctor(address, space, storage)
    checks = _chosen(doctor.checks(), only)
    console, all_ended = Console(), True
    with doctor.site as site:
        for check, ended in examined(checks):
            all_ended = all_ended and ended
            if printed is None:
                show(console, check.name, check.found)
        if printed:
            print(machine_text([finding.record(check.name) for check in checks for finding in check.found], printed))
        code = int(any(finding.mark == "FAIL" for check in checks for finding in check.found))
        if not all_ended:  # who still asks must not lose the cluster under their feet
            _leave_all_behind(code)
    if not site.is_left:
        _leave_all_behind(code)
    return code


def _leave_all_behind(code: int) -> NoReturn:
    """End at once: what hangs would hold up the end of this process, too."""
    sys.stdout.flush()
    os._exit(code)


def _chosen(checks: list[Check], only: Sequence[str]) -> list[Check]:
    names = [check.name for check in checks]
    for name in only:
        if name not in names:
            raise UserError(
                f"--only {name}: there is no such check here{did_you_mean(name, names)}; {', '.join(names)}"
            )
    return [check for check in checks if not only or check.name in only]
