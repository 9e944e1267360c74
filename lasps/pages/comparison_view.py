"""What the comparison page looks at: one split of a Comparison, and how it speaks of few days."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import polars as pl

from lasps.numbers import count
from lasps.pages import comparison_tables as tables
from lasps.pages.page import Figure, Table

FEW_DAYS = 100
"""Fewer days are fewer than 20 independent 5-day weeks: the page says so where numbers rest on them (guess)."""
WEEK = 5


class Comparison(Protocol):
    """What pages read of a lasps.evaluation.comparison.Comparison, besides its frames (`View.of`)."""

    @property
    def identical(self) -> pl.DataFrame: ...
    @property
    def splits(self) -> tuple[str, ...]: ...
    @property
    def verdict_split(self) -> str | None: ...
    @property
    def deployed(self) -> str: ...
    @property
    def verdict(self) -> tuple[str, ...]: ...
    @property
    def notes(self) -> tuple[str, ...]: ...


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


@dataclass(frozen=True)
class View:
    """One split of a comparison, and the models that its plots show."""

    comparison: Any
    split: str

    def of(self, name: str) -> pl.DataFrame:
        """The frame's rows of this split."""
        return getattr(self.comparison, name).filter(pl.col("split") == self.split)

    @property
    def deployed(self) -> str:
        return self.comparison.deployed

    @property
    def n_days(self) -> int | None:
        return self.of("models")["n_days"].max()  # type: ignore[return-value]

    @property
    def shown(self) -> list[str]:
        """The models, LightGBM, volatility bins and the oracle: the rows of the first table, in its order."""
        return tables.headline_models(self.of("models"))

    @property
    def plotted(self) -> list[str]:
        """Those of `shown` whose probabilities are a forecast: all but the oracle."""
        return [name for name in self.shown if name != tables.ORACLE]

    @property
    def versus(self) -> str | None:
        """The model that the deployed one is set against sector by sector: the first default pair of two models."""
        pairs = self.of("pairs").filter(pl.col("family"), pl.col("role") == "model", pl.col("metric") == "log_loss")
        return pairs["a"][0] if len(pairs) else None


def context_line(view: View) -> str:
    """'Test: 8,078 samples on 135 days, 2025-01-02 to 2025-07-11'."""
    models, days = view.of("models"), view.of("days")["date"]
    parts = [f"{view.split.capitalize()}: {count(models['n'][0])} samples"]
    if view.n_days:
        parts[0] += f" on {count(view.n_days)} days" + (f" ({days.min()!s} to {days.max()!s})" if len(days) else "")
        parts.append(f"about {view.n_days // WEEK} independent weeks, since 5-day returns overlap")
    seeds = max(models["n_seeds"].to_list())
    parts.append("intervals 95 % over " + (f"{seeds} seeds and days" if seeds > 1 else "days"))
    if view.comparison.verdict_split is None:
        parts.append("a selection split: shown, not tested")
    return "; ".join(parts) + "."


def few_days(n_days: int | None, what: str = "This rests") -> str:
    """A warning where there are few days; '' where there are enough, or no dates (there are no intervals then)."""
    if n_days is None or n_days >= FEW_DAYS:
        return ""
    return f"{what} on {n_days} days, about {max(n_days // WEEK, 1)} independent weeks."
