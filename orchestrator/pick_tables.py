"""What a pick looks like: one table of the trade-off, and why it is what it is. Scores in percent."""

from rich import box
from rich.table import Table

from stkd.orchestrator.budgeting import name_of
from stkd.orchestrator.cost_book import interruptions
from stkd.orchestrator.phases import SEED
from stkd.orchestrator.picking import Option, Pick
from stkd.orchestrator.results import describe
from stkd.orchestrator.tables import interval_text, percent
from stkd.search_spaces.amounts import with_unit
from stkd.search_spaces.budgets import Budget
from stkd.search_spaces.schema import STUDENT_KEYS, Space
from stkd.trainers.costs import Cost, processor_name

ELSEWHERE = ("student.", SEED)
"""Settings that other columns tell, or that are one of several."""
ROUNDED = ("pytorch-bf16", "onnx-int8")
"""Forms that answer a little otherwise."""
PERCENTILE = "p95"
"""Of the latencies, the one that the table shows."""


def pick_table(pick: Pick, title: str, teacher: tuple[float, float | None]) -> Table:
    """The sizes of student, the largest first, under the teacher with its `score` and `test`."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("", "student of"):
        table.add_column(heading, no_wrap=True)
    for heading in ("size", "score", "95 % interval", "test", f"{PERCENTILE} ms", "parameters", "MB"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("instead of the picked one", no_wrap=True)
    score, test = teacher
    step = _step(pick, score, pick.teacher)
    table.add_row("", "(the teacher)", "", percent(score), "", _known(test), *_cost(pick.teacher), step)
    table.add_section()
    for option in pick.options:
        is_picked, interval = option is pick.chosen, option.interval
        table.add_row(
            "picked" if is_picked else "over" if option.misses else "",
            describe({key: value for key, value in option.trial.values.items() if not key.startswith(ELSEWHERE)}),
            _size(option),
            percent(option.score),
            interval_text(interval) if interval else "",
            _known(option.test),
            *_cost(option.cost),
            "" if is_picked else _step(pick, option.score, option.cost),
        )
    return table


def _known(score: float | None) -> str:
    return "" if score is None else percent(score)


def _cost(cost: Cost) -> tuple[str, str, str]:
    return f"{cost.p95:.3g}", with_unit(cost.parameters), f"{cost.megabytes:.3g}"


def _size(option: Option) -> str:
    student = option.student
    match student.init:
        case "drop_layers":
            return "1 layer" if student.layers == 1 else f"{student.layers} layers"
        case "prune_units":
            return f"-{100 * student.sparsity:.3g} %"
        case "pretrained":
            return ""


def _step(pick: Pick, score: float, cost: Cost) -> str:
    """What one gains, and pays, by another student than the picked one."""
    picked = pick.chosen.cost
    weights, milliseconds = cost.parameters - picked.parameters, cost.p95 - picked.p95
    points = 100 * (score - pick.chosen.score)
    return f"{points:+.1f} points, {milliseconds:+.2g} ms, {'+' if weights >= 0 else '-'}{with_unit(abs(weights))}"


def reasons(pick: Pick, space: Space) -> list[tuple[str, str]]:
    """Why it was picked, how sure that is, what was over the budget, and how it was measured."""
    chosen, over = pick.chosen, [option for option in pick.options if option.misses]
    rows = [("picked", f"{chosen.trial.name}, trial {chosen.trial.trial}")]
    among = "of what keeps the budget, " if over else ""
    if chosen.interval is not None:
        low = percent(chosen.interval.low)
        rows.append(("why", f"{among}its mean over {chosen.seeds} seeds is most surely high: {low} at least"))
    else:
        rows.append(("why", f"{among}its score is the highest"))
        rows.append(("how sure", "one training each says little; confirm: {top: 2, seeds: 3} in the space says more"))
    rows.append(
        ("budget", f"{limits(pick.budget)}; {len(pick.options) - len(over)} of {len(pick.options)} sizes keep it")
    )
    rows += [("over", f"{name_of(option.student)}: {' and '.join(map(str, option.misses))}") for option in over]
    cost, conditions = chosen.cost, pick.conditions
    rows.append(
        ("latency", f"p50 {cost.p50:.3g} ms, p95 {cost.p95:.3g} ms, p99 {cost.p99:.3g} ms of {cost.runs} warm runs")
    )
    rows.append(("measured", f"{conditions}, on {processor_name(conditions.device)}{interruptions(cost)}"))
    if conditions.form in ROUNDED:
        rows.append(("scores", "are of students in fp32; `stkd export` tells what the picked one scores in this form"))
    key = STUDENT_KEYS[space.student.init]
    if len(pick.options) == 1 and key is not None:
        rows.append(("sizes", f"the sweep has students of one size; search {key} to see what another would cost"))
    return rows


def limits(budget: Budget) -> str:
    """A budget in one line."""
    latency = budget.latency_ms.limits() if budget.latency_ms else ()
    parts = [f"{name} of {limit:g} ms" for name, limit in latency]
    if budget.parameters is not None:
        parts.append(f"{with_unit(budget.parameters)} parameters")
    if budget.megabytes is not None:
        parts.append(f"{budget.megabytes:g} MB")
    return f"at most {', '.join(parts)}" if parts else "no limits"
