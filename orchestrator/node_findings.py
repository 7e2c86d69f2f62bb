"""What is wrong with nodes, by the facts that they tell of themselves."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from stkd.cluster.capacity import Machine
from stkd.cluster.each_node import Answer
from stkd.orchestrator.findings import Finding
from stkd.orchestrator.node_questions import NodeFacts, Room
from stkd.orchestrator.requirements import unequal, unmet_here
from stkd.trainers.steps import Timed

Facts = Mapping[str, NodeFacts]
"""By node."""
GIB = 1 << 30
LEAST_MEMORY = 2 * GIB
LEAST_TEMPORARY = GIB
FULLEST = 0.95
"""Of a disk: beyond that, Ray starts nothing more on its node."""
LEAST_SHARED_MEMORY = GIB
ENOUGH_GPU_MEMORY = 4 * GIB
COMPILED = {
    ("offload_param", "nvme"): "async_io",
    ("offload_optimizer", "nvme"): "async_io",
    ("offload_optimizer", "super_offload"): "cpu_adam",
}
"""What of DeepSpeed's `zero_optimization` needs an extension that it compiles when it starts."""


def size(count: float) -> str:
    """A number of bytes as one reads it."""
    return f"{count / GIB:.3g} GiB" if count >= GIB else f"{count / (1 << 20):.0f} MiB"


def on_nodes(facts: Facts) -> str:
    """How many there are, where that says something."""
    return f" on {len(facts)} nodes" if len(facts) > 1 else ""


def _all_well(problems: Iterable[Finding], else_says: str) -> Iterator[Finding]:
    """The problems, or where there are none, that all is well."""
    found = list(problems)
    yield from found or [Finding("ok", else_says)]


def python(here: NodeFacts, facts: Facts) -> Iterator[Finding]:
    """Whether all nodes run this Python."""
    return _all_well(_other_pythons(here, facts), f"Python {here.python}{on_nodes(facts)}")


def _other_pythons(here: NodeFacts, facts: Facts) -> Iterator[Finding]:
    for node, found in facts.items():
        if found.python == here.python:
            continue
        near = found.python.split(".")[:2] == here.python.split(".")[:2]
        says = f"Python is {found.python}, and {here.python} here"
        yield Finding("warn" if near else "FAIL", says, f"install Python {here.python} on that node", node)


def packages(here: NodeFacts, facts: Facts) -> Iterator[Finding]:
    """Whether they are what stkd needs, and the same everywhere."""
    problems = [*unmet_here(here.packages)]
    for node, found in facts.items():
        problems += unequal(here.packages, found.packages, node)
    shown = ", ".join(
        f"{name} {here.packages[name]}" for name in ("ray", "torch", "deepspeed") if name in here.packages
    )
    return _all_well(problems, f"{len(here.packages)} of {len(here.packages)}{on_nodes(facts)}: {shown}, ...")


def gpus(facts: Facts, machines: Mapping[str, Machine]) -> Iterator[Finding]:
    """What GPUs there are, and whether Ray knows of them. `machines` is what Ray says each node has."""
    kinds = sorted({f"{name} of {size(memory)}" for found in facts.values() for name, memory in found.gpus})
    count = sum(len(found.gpus) for found in facts.values())
    return _all_well(_gpu_problems(facts, machines), f"{count}: {', '.join(kinds)}" if count else "none")


def _gpu_problems(facts: Facts, machines: Mapping[str, Machine]) -> Iterator[Finding]:
    for node, found in facts.items():
        known = machines[node].gpus if node in machines else len(found.gpus)
        if known > len(found.gpus):
            says = f"Ray believes in {known:g} GPUs, and {len(found.gpus)} answer"
            yield Finding("FAIL", says, "look at `nvidia-smi` there, and start Ray with the right --num-gpus", node)
        elif known < len(found.gpus):
            says = f"of {len(found.gpus)} GPUs Ray uses {known:g}"
            yield Finding("warn", says, f"start Ray there with --num-gpus={len(found.gpus)}", node)
        for name, memory in found.gpus:
            if memory < ENOUGH_GPU_MEMORY:
                yield Finding("warn", f"{name} has only {size(memory)}", "raise training.accumulation", node)


def memory(facts: Facts) -> Iterator[Finding]:
    """Whether processes find room in memory."""
    least = min((found.memory for found in facts.values()), key=lambda room: room.free)
    problems = (
        Finding("warn", f"{size(found.memory.free)} are free", "end other work, or lower trials.concurrent", node)
        for node, found in facts.items()
        if found.memory.free < LEAST_MEMORY
    )
    return _all_well(problems, f"{size(least.free)} of {size(least.total)} are free" + (" at least" * (len(facts) > 1)))


def shared_memory(facts: Facts) -> Iterator[Finding]:
    """Whether Ray's objects find room where they belong."""
    rooms = {node: found.shared_memory for node, found in facts.items() if found.shared_memory}
    problems = (
        Finding(
            "warn",
            f"{room.place} has {size(room.free)} free, and Ray puts its objects on the disk instead",
            "delete what lies there, or in a container: --shm-size=2g",
            node,
        )
        for node, room in rooms.items()
        if room.free < LEAST_SHARED_MEMORY
    )
    return _all_well(problems, _least(rooms.values()))


def temporary(facts: Facts) -> Iterator[Finding]:
    """Whether Ray's own files find room."""
    rooms = {node: found.temporary for node, found in facts.items()}
    problems = (
        Finding(
            "FAIL",
            f"{room.place}, where Ray has its files, has {size(room.free)} of {size(room.total)} free: on a disk "
            f"that is {100 * FULLEST:.0f} % full Ray starts nothing",
            "make room, or give another folder (RAY_TMPDIR; `ray start --temp-dir`)",
            node,
        )
        for node, room in rooms.items()
        if room.free < LEAST_TEMPORARY or room.free < (1 - FULLEST) * room.total
    )
    return _all_well(problems, _least(rooms.values()))


def _least(rooms: Iterable[Room]) -> str:
    least = min(rooms, key=lambda room: room.free, default=None)
    return f"{least.place} has {size(least.free)} free" if least else "there is none"


def compiler(facts: Facts, deepspeed: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether there is one, where DeepSpeed's settings make it compile."""
    reasons = list(compiled_settings(deepspeed))
    without = [node for node, found in facts.items() if found.compiler is None]
    if not reasons:
        places = ", ".join(node for node in without if node)
        missing = f"none{' on ' + places if places else ''}, and " if without else ""
        return iter([Finding("ok", f"{missing}none is needed")])
    problems = (
        Finding("FAIL", f"{reasons[0]}, and there is no C++ compiler", "apt install g++, or name one by CXX", node)
        for node in without
    )
    return _all_well(problems, f"{reasons[0]}, by {next(iter(facts.values())).compiler}")


def compiled_settings(deepspeed: Mapping[str, Any]) -> Iterator[str]:
    """The settings for which DeepSpeed compiles an extension, in words."""
    zero = deepspeed.get("zero_optimization")
    for (section, word), extension in COMPILED.items():
        found = zero.get(section) if isinstance(zero, Mapping) else None
        if isinstance(found, Mapping) and (found.get("device") == word or found.get(word)):
            yield f"deepspeed.zero_optimization.{section} ({word}) has {extension} compiled"


def steps(answers: Sequence[Answer[Timed | str]], facts: Facts) -> Iterator[Finding]:
    """Whether DeepSpeed trains on each node, and on its GPU."""
    return _all_well(_step_problems(answers, facts), _step_words(answers))


def _step_problems(answers: Sequence[Answer[Timed | str]], facts: Facts) -> Iterator[Finding]:
    mend = "mend that package there, or `pip install --force-reinstall` it; `deepspeed` of the space is DeepSpeed's own"
    for answer in answers:
        if isinstance(answer.found, Timed):
            has_gpus = answer.node in facts and facts[answer.node].gpus
            if has_gpus and answer.found.device == "cpu":
                says = "PyTorch does not see the GPUs"
                yield Finding("FAIL", says, "install a PyTorch with CUDA that the driver supports", answer.node)
        elif (answer.found or answer.problem).startswith(("hangs", "no answer")):
            says = f"a DeepSpeed step {answer.found or 'gives ' + answer.problem}"
            yield Finding("FAIL", says, "run it alone: python -m stkd.trainers.step_process; or " + mend, answer.node)
        else:
            yield Finding("FAIL", f"a DeepSpeed step failed: {answer.found or answer.problem}", mend, answer.node)


def _step_words(answers: Sequence[Answer[Timed | str]]) -> str:
    devices = sorted({answer.found.device for answer in answers if isinstance(answer.found, Timed)})
    count = f" on each of {len(answers)} nodes" if len(answers) > 1 else ""
    return f"steps on {' and '.join(devices)}{count}"
