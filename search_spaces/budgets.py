"""What a student may cost: limits on its latency and size, and what it means to miss them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from stkd.search_spaces.amounts import amount, with_unit
from stkd.trainers.config import Config, PositiveFloat
from stkd.trainers.costs import Conditions, Cost
from stkd.trainers.errors import MisplacedError
from stkd.trainers.form_names import Device, Form

Percentile = Literal["p50", "p95", "p99"]
PERCENTILES: tuple[Percentile, ...] = ("p50", "p95", "p99")


@dataclass(frozen=True)
class Miss:
    """A limit that a cost breaks."""

    what: str
    found: float
    limit: float

    @property
    def ratio(self) -> float:
        """How many times the limit was found: more than one."""
        return self.found / self.limit

    def __str__(self) -> str:
        """As `p95 is 6.3 ms and may be 5`."""
        match self.what:
            case "parameters":
                return f"it has {with_unit(self.found)} parameters and may have {with_unit(self.limit)}"
            case "megabytes":
                return f"it has {self.found:.3g} MB and may have {self.limit:g}"
            case _:
                return f"its {self.what} is {self.found:.3g} ms and may be {self.limit:g}"


class LatencyBudget(Config):
    """How fast a student must answer, and under which conditions. Milliseconds of the model, without tokenising."""

    p50: PositiveFloat | None = None
    """The median of all runs."""
    p95: PositiveFloat | None = None
    """95 of 100 runs take so long at most."""
    p99: PositiveFloat | None = None
    """99 of 100 runs take so long at most."""
    form: Form = "pytorch"
    """How the student is run: `pytorch`, `pytorch-bf16`, `onnx` or `onnx-int8`."""
    batch: PositiveInt = 1
    """Examples at a time."""
    length: PositiveInt | None = None
    """Tokens of each; null: training.max_length."""
    device: Device = "cpu"
    """Where it runs."""
    threads: PositiveInt = 1
    """Of the processor."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not any(self.limits()):
            raise MisplacedError((), "needs a limit in milliseconds, as p95: 5; the limits are p50, p95 and p99")
        if self.device != "cpu" and self.form.startswith("onnx"):
            raise MisplacedError(
                ("device",), f"must be cpu, since form {self.form} is run by onnxruntime on the processor"
            )
        return self

    def limits(self) -> Iterator[tuple[Percentile, float]]:
        """The limits that are set."""
        for name, limit in zip(PERCENTILES, (self.p50, self.p95, self.p99), strict=True):
            if limit is not None:
                yield name, limit


class Budget(Config):
    """What a student may cost. null limits nothing."""

    latency_ms: LatencyBudget | None = None
    parameters: Annotated[PositiveInt | None, BeforeValidator(amount)] = None
    """How many weights it may have, as 20000000 or 20M."""
    megabytes: Annotated[float, Field(gt=0.0)] | None = None
    """How large it may be: its weights in PyTorch, or its ONNX file, as latency_ms.form says."""

    def conditions(self, longest: int) -> Conditions:
        """Under which a student is measured; `longest` is the length where the budget names none."""
        latency = self.latency_ms
        if latency is None:
            return Conditions(length=longest)
        chosen = latency.model_dump(include={"form", "batch", "device", "threads"})
        return Conditions(length=latency.length or longest, **chosen)

    def misses(self, cost: Cost) -> list[Miss]:
        """The limits that a cost breaks, the worst first."""
        limits: dict[str, tuple[float, float]] = {}
        if self.latency_ms is not None:
            found = {"p50": cost.p50, "p95": cost.p95, "p99": cost.p99}
            limits |= {name: (found[name], limit) for name, limit in self.latency_ms.limits()}
        if self.parameters is not None:
            limits["parameters"] = cost.parameters, self.parameters
        if self.megabytes is not None:
            limits["megabytes"] = cost.megabytes, self.megabytes
        broken = [Miss(what, found, limit) for what, (found, limit) in limits.items() if found > limit]
        return sorted(broken, key=lambda miss: -miss.ratio)
