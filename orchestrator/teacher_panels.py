"""Panels on what the winning teacher lost, and on where the time went."""

from collections.abc import Mapping

import numpy as np

from stkd.orchestrator import charts
from stkd.orchestrator.account import Account
from stkd.orchestrator.panels import Numbers, Panel
from stkd.orchestrator.report_data import Ranked, TaskReport


def units_lost(report: TaskReport) -> list[Panel]:
    """What the chosen student's teacher has kept, head by head, and by layers of neurons."""
    return [] if report.units is None else [_heads(report, report.units[0]), _neurons(report, report.units[1])]


def _lost(ranked: Ranked) -> str:
    return f"{(~ranked.kept).sum():,} of {ranked.kept.size:,}"


def _heads(report: TaskReport, heads: Ranked) -> Panel:
    scorer = report.space.with_values(report.chosen.values).distillation.scorer
    caption = (
        f"What heads are ranked by ({scorer}; each layer has norm one). Crossed out are the {_lost(heads)} that the"
        " chosen student's teacher has lost: those that rank lowest."
    )
    rows = [
        (str(layer), *(f"{score:.2f}{'' if stays else ' ×'}" for score, stays in zip(*row, strict=True)))
        for layer, row in enumerate(zip(heads.scores, heads.kept, strict=True), start=1)
    ]
    columns = ("layer", *(f"head {number}" for number in range(1, heads.kept.shape[1] + 1)))
    title = f"{report.task}: the teacher's heads, and which of them it has lost"
    chart = charts.heads_chart(heads.scores.astype(np.float64), heads.kept, f"{report.task}-heads", title)
    return Panel("Heads", caption, chart, Numbers(columns, rows))


def _neurons(report: TaskReport, neurons: Ranked) -> Panel:
    caption = f"Feed-forward neurons are ranked over all layers together, too; {_lost(neurons)} are gone."
    rows = [
        (str(layer), f"{stays.sum():,}", f"{(~stays).sum():,}", f"{scores[stays].min():.4f}" if stays.any() else "")
        for layer, (scores, stays) in enumerate(zip(neurons.scores, neurons.kept, strict=True), start=1)
    ]
    kept, width = neurons.kept.sum(axis=1).tolist(), neurons.kept.shape[1]
    title = f"{report.task}: neurons kept, by layer"
    chart = charts.neurons_chart(kept, width, f"{report.task}-neurons", title)
    return Panel("Neurons", caption, chart, Numbers(("layer", "kept", "lost", "lowest score kept"), rows))


def where_time_went(report: TaskReport) -> Panel | None:
    """What the devices were held for."""
    account = report.account
    if account is None or not account.held:
        return None
    unit = f"{account.unit}-hours"
    held = dict(sorted(_holders(account).items(), key=lambda item: -item[1]))
    shares = {name: 100 * seconds / account.held for name, seconds in held.items()}
    rows = [(name, _hours(seconds), f"{shares[name]:.1f} %") for name, seconds in held.items()]
    whole = sum(account.phases.values())
    rows += [
        (f"in trials: {name}", _hours(seconds), f"{100 * seconds / whole:.1f} % of trials")
        for name, seconds in sorted(account.phases.items(), key=lambda item: -item[1])
    ]
    caption = (
        f"{_hours(account.held)} {unit} in {account.seconds / 60:.0f} minutes. Saved:"
        f" {_hours(account.saved_by_stopping)} by stopping weak trials early,"
        f" {_hours(account.saved_by_artifacts)} by work that was there already."
        f" Lost to failures: {_hours(account.lost)}."
    )
    title = f"{report.task}: what {unit} were spent on"
    chart = charts.bars_chart({unit: shares}, f"share of {unit}, in %", f"{report.task}-time", title)
    return Panel("What devices were held for", caption, chart, Numbers(("for", unit, "share"), rows))


def _holders(account: Account) -> Mapping[str, float]:
    held = {
        "trials, to their end": account.trials - account.stopped_early,
        "trials stopped early": account.stopped_early,
        **{name.replace("_", " "): seconds for name, seconds in account.stages.items()},
    }
    return {name: seconds for name, seconds in held.items() if seconds > 0}


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.3g}"
