"""What a search key can be drawn from, as pure data: the orchestrator turns it into the searcher's own objects.

Each class has the shape that stands in the file: `{uniform: [0.0, 1.0]}` is `Uniform(uniform=(0.0, 1.0))`.
"""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from random import Random
from typing import Annotated, ClassVar, Self

from pydantic import Discriminator, Field, Tag, model_validator

from stkd.trainers.config import Config

Number = int | float
Value = bool | int | float | str | None
"""What a trial can be given for one search key."""

_NotStrict = Field(strict=False)  # a list from the file becomes a tuple; its members stay strict
LARGEST_GRID = 10_000


class Uniform(Config):
    """Any number between the ends, all equally likely."""

    kind: ClassVar[str] = "uniform"
    shape: ClassVar[str] = "{uniform: [low, high]}"
    uniform: Annotated[tuple[float, float], _NotStrict]

    @model_validator(mode="after")
    def _check(self) -> Self:
        _need_order(*self.uniform)
        return self

    def extremes(self) -> tuple[Value, ...]:
        """Returns values between which all others lie."""
        return self.uniform

    def grid(self) -> tuple[Value, ...] | None:
        """Returns every possible value, or None where there are endlessly many."""
        return None

    def draw(self, rng: Random) -> Value:
        """Returns a value by chance."""
        return rng.uniform(*self.uniform)

    def clean(self, value: Value) -> Value:
        """Returns a searcher's value as a plain number inside the range."""
        return _inside(value, *self.uniform)


class LogUniform(Config):
    """Any number between the ends, with equally likely logarithms: 1 to 2 comes up as often as 2 to 4."""

    kind: ClassVar[str] = "loguniform"
    shape: ClassVar[str] = "{loguniform: [low, high]}"
    loguniform: Annotated[tuple[float, float], _NotStrict]

    @model_validator(mode="after")
    def _check(self) -> Self:
        _need_order(*self.loguniform)
        if self.loguniform[0] <= 0:
            raise ValueError(f"low is {self.loguniform[0]}, but a logarithm needs low > 0")
        return self

    def extremes(self) -> tuple[Value, ...]:
        """Returns values between which all others lie."""
        return self.loguniform

    def grid(self) -> tuple[Value, ...] | None:
        """Returns every possible value, or None where there are endlessly many."""
        return None

    def draw(self, rng: Random) -> Value:
        """Returns a value by chance."""
        return self.clean(math.exp(rng.uniform(*map(math.log, self.loguniform))))

    def clean(self, value: Value) -> Value:
        """Returns a searcher's value as a plain number inside the range."""
        return _inside(value, *self.loguniform)


class QUniform(Config):
    """The numbers low, low + step, ... up to and including high, all equally likely."""

    kind: ClassVar[str] = "quniform"
    shape: ClassVar[str] = "{quniform: [low, high, step]}"
    quniform: Annotated[tuple[Number, Number, Number], _NotStrict]

    @model_validator(mode="after")
    def _check(self) -> Self:
        low, high, step = self.quniform
        _need_order(low, high)
        if step <= 0:
            raise ValueError(f"step is {step}, but must be more than 0")
        if Decimal(str(low)) % Decimal(str(step)) != 0:
            raise ValueError(f"low is {low}, but must be a multiple of step, which is {step}")
        steps = (Decimal(str(high)) - Decimal(str(low))) / Decimal(str(step))
        if steps % 1 != 0:
            raise ValueError(f"from {low} to {high} is not a whole number of steps of {step}; change high or step")
        if steps > LARGEST_GRID:
            raise ValueError(f"step is {step}, which makes more than {LARGEST_GRID} values; use uniform")
        return self

    def extremes(self) -> tuple[Value, ...]:
        """Returns values between which all others lie."""
        return self.quniform[:2]

    def grid(self) -> tuple[Number, ...]:
        """Returns every possible value as a clean decimal: 0.3, not 0.30000000000000004; ints where all three are."""
        low, high, step = (Decimal(str(number)) for number in self.quniform)
        number = int if all(isinstance(end, int) for end in self.quniform) else float
        return tuple(number(low + step * index) for index in range(int((high - low) / step) + 1))

    def draw(self, rng: Random) -> Value:
        """Returns a value by chance."""
        return rng.choice(self.grid())

    def clean(self, value: Value) -> Value:
        """Returns the possible value nearest to a searcher's."""
        given = _number(value)
        return min(self.grid(), key=lambda possible: abs(possible - given))


class RandInt(Config):
    """The whole numbers from low to high, both included, all equally likely."""

    kind: ClassVar[str] = "randint"
    shape: ClassVar[str] = "{randint: [low, high]}"
    randint: Annotated[tuple[int, int], _NotStrict]

    @model_validator(mode="after")
    def _check(self) -> Self:
        _need_order(*self.randint)
        return self

    def extremes(self) -> tuple[Value, ...]:
        """Returns values between which all others lie."""
        return self.randint

    def grid(self) -> tuple[Value, ...] | None:
        """Returns every possible value, or None where they are too many to try all."""
        low, high = self.randint
        return tuple(range(low, high + 1)) if high - low < LARGEST_GRID else None

    def draw(self, rng: Random) -> Value:
        """Returns a value by chance."""
        return rng.randint(*self.randint)

    def clean(self, value: Value) -> Value:
        """Returns a searcher's value as a plain whole number."""
        return round(_number(value))


class Choice(Config):
    """One of the listed values, all equally likely, without an order among them."""

    kind: ClassVar[str] = "choice"
    shape: ClassVar[str] = "{choice: [value, ...]}"
    choice: Annotated[tuple[Value, ...], _NotStrict]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.choice:
            raise ValueError("the list is empty, but needs at least one value to choose from")
        repeated = [value for index, value in enumerate(self.choice) if value in self.choice[:index]]
        if repeated:
            raise ValueError(f"{repeated[0]} stands twice in the list; remove one")
        return self

    def extremes(self) -> tuple[Value, ...]:
        """Returns all values: any of them may break a limit."""
        return self.choice

    def grid(self) -> tuple[Value, ...]:
        """Returns every possible value."""
        return self.choice

    def draw(self, rng: Random) -> Value:
        """Returns a value by chance."""
        return rng.choice(self.choice)

    def clean(self, value: Value) -> Value:
        """Returns the listed value that equals a searcher's."""
        return self.choice[self.choice.index(value)]


KINDS = (Uniform, QUniform, LogUniform, RandInt, Choice)
SHAPES = {kind.kind: kind.shape for kind in KINDS}


def _kind_of(value: object) -> str | None:
    if isinstance(value, KINDS):
        return value.kind
    return str(next(iter(value))) if isinstance(value, Mapping) and len(value) == 1 else None


Distribution = Annotated[
    Annotated[Uniform, Tag("uniform")]
    | Annotated[QUniform, Tag("quniform")]
    | Annotated[LogUniform, Tag("loguniform")]
    | Annotated[RandInt, Tag("randint")]
    | Annotated[Choice, Tag("choice")],
    Discriminator(_kind_of),
]


def among(searched: Distribution, left: Sequence[Value]) -> Distribution:
    """The distribution over those of its values that are left: neighbours, in order, unless it is a choice."""
    match searched:
        case QUniform() if len(left) > 1:
            return searched.model_copy(update={"quniform": (left[0], left[-1], searched.quniform[2])})
        case RandInt() if len(left) > 1:
            return searched.model_copy(update={"randint": (left[0], left[-1])})
        case _:
            return Choice(choice=tuple(left))


def _need_order(low: Number, high: Number) -> None:
    if low >= high:
        raise ValueError(f"low is {low} and high is {high}, but low must be less than high")


def _number(value: Value) -> float:
    if isinstance(value, str) or value is None or not math.isfinite(value):
        raise ValueError(f"a searcher gave {value!r} where a finite number belongs")
    return float(value)


def _inside(value: Value, low: float, high: float) -> float:
    return min(max(_number(value), low), high)
