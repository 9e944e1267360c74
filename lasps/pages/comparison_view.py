"""What the comparison page looks at: a Comparison cut to one split, and how it speaks of few days."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lasps.numbers import count
from lasps.pages.page import Figure, Table

Comparison = Any
"""A lasps.evaluation.comparison.Comparison (pages import no evaluation); a `view` is one that `.on(split)` cut."""

ORACLE = "oracle"
NOT_DRAWN = (ORACLE, "ensemble", "mlp")
"""An upper bound, and what lies on the network's own lines."""
FEW_DAYS = 100
"""Fewer days are fewer than 20 independent 5-day weeks: the page says so where numbers rest on them (guess)."""
WEEK = 5


@dataclass(frozen=True)
class Section:
    """One part of the page, with the sentence that says how to read it."""

    id: str
    title: str
    read: str
    figures: tuple[Figure, ...] = ()
    tables: tuple[tuple[str, Table], ...] = ()
    layout: str = "split"
    few: str = ""
    side: bool = False
    """Tables beside the figures."""


def n_days(view: Comparison) -> int | None:
    """The days of its samples; None without dates."""
    days: int | None = view.models["n_days"].max()
    return days


def plotted(view: Comparison) -> list[str]:
    """What is drawn: all of the first table but NOT_DRAWN."""
    return [name for name in view.headline if name not in NOT_DRAWN]


def context_line(view: Comparison) -> str:
    """'Test: 8,078 samples on 135 days, 2025-01-02 to 2025-07-11'."""
    models, days = view.models, view.days["date"]
    parts = [f"{view.splits[0].capitalize()}: {count(models['n'][0])} samples"]
    number = n_days(view)
    if number:
        parts[0] += f" on {count(number)} days" + (f" ({days.min()!s} to {days.max()!s})" if len(days) else "")
        parts.append(f"about {number // WEEK} independent weeks, since 5-day returns overlap")
    seeds = max(models["n_seeds"].to_list())
    parts.append("intervals 95 % over " + (f"{seeds} seeds and days" if seeds > 1 else "days"))
    if view.verdict_split is None:
        parts.append("a selection split: shown, not tested")
    return "; ".join(parts) + "."


def few_days(n_days: int | None, what: str = "This rests") -> str:
    """A warning where there are few days; '' where there are enough, or no dates (there are no intervals then)."""
    if n_days is None or n_days >= FEW_DAYS:
        return ""
    return f"{what} on {n_days} days, about {max(n_days // WEEK, 1)} independent weeks."
