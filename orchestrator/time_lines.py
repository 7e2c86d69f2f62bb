"""The account of a sweep in a few lines: where the time went, and what was lost and saved."""

from collections import Counter
from collections.abc import Container, Mapping

from stkd.orchestrator.account import Account
from stkd.orchestrator.results import Session

LEAST_SHOWN = 0.005
"""Shares below half a percent are left out."""


def time_lines(account: Account) -> list[str]:
    """What devices were held for, what trials did with their share, what was lost and saved."""
    unit = account.unit
    devices = account.held / account.seconds if account.seconds else 0.0
    early = (
        f" ({_percent(account.stopped_early, account.held)} in those stopped early)" if account.stopped_early else ""
    )
    held = {f"trials{early}": account.trials, **_by_stage(account.stages)}
    lines = [f"time      {_hours(account.held)} {unit}-hours on {devices:g} {unit}s: {_shares(held, account.held)}"]
    if account.phases:
        lines.append(f"trials    {_shares(account.phases, sum(account.phases.values()))}")
    saved = f"{_hours(account.saved_by_stopping)} by early stopping, {_hours(account.saved_by_artifacts)} by artifacts"
    lines.append(f"saved     {unit}-hours: {saved}; lost to failures: {_hours(account.lost)}")
    return lines


def held_line(session: Session, trials: Container[str]) -> str:
    """What a session has held its devices for so far."""
    held: Counter[str] = Counter()
    for holder, seconds in session.held.items():
        held["trials" if holder in trials else holder.replace("_", " ")] += seconds  # type: ignore[assignment]
    whole = sum(held.values())
    return f"{_hours(whole)} {session.unit}-hours on {session.devices:g} {session.unit}s: {_shares(held, whole)}"


def _by_stage(held: Mapping[str, float]) -> dict[str, float]:
    return {name.replace("_", " "): seconds for name, seconds in held.items()}


def _shares(parts: Mapping[str, float], whole: float) -> str:
    """The parts that count, largest first."""
    ordered = sorted(parts.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {_percent(part, whole)}" for name, part in ordered if part >= LEAST_SHOWN * whole)


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %"


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}" if hours >= 0.001 else "0"
