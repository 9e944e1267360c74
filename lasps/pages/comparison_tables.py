"""Tables of a comparison's frames for pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl
from markupsafe import Markup

from lasps.config.sectors import SECTORS
from lasps.config.settings import CLASS_NAMES
from lasps.numbers import count, decimal, difference, own_days, p_value, percent, true_minus
from lasps.pages.page import Cell, Column, Row, Table, make_table

WHAT = {
    "phase1_best": "backbone and one head",
    "phase3_final": "trained end to end",
    "phase2_best": "with sector heads",
    "common_change": "one change for all sectors",
    "ensemble": "mean of the seeds",
    "blend": "ensemble and LightGBM",
    "mlp": "MLP on the skip alone",
    "lightgbm": "the same features",
    "lightgbm_plain": "last day, no scores",
    "lightgbm_doubled": "twice the seeds",
    "lightgbm_and_second": "with a differently set one",
    "lightgbm_and_logistic": "with logistic regression",
    "oracle": "upper bound: true probabilities",
    "volatility_bins": "20-day volatility alone",
}
NICE = {"lightgbm": "LightGBM", "volatility_bins": "volatility bins", "oracle": "the oracle"}
BAR_WIDTH, BAR_HEIGHT = 190.0, 14.0
"""Pixels of an interval drawn in a cell."""


def nice(name: str) -> str:
    """A model's name in a sentence."""
    return NICE.get(name, name)


def answer(pair: Row, tested: bool) -> str:
    """In words, is b better than a?"""
    if pair["low"] is None or not tested:
        return "not tested"
    return {"b": "better", "a": "worse", None: "undecided"}[pair["better"]]


def identical_lines(identical: pl.DataFrame) -> list[str]:
    """'phase3_final is phase1_best: Phase 3 found nothing better.'"""
    why = {
        "phase3_final": "Phase 3 found nothing better",
        "phase2_best": "Phase 2 accepted no head",
        "common_change": "its common change was not accepted",
    }
    return [
        f"{name} is {same_as}: {why.get(name, 'the same probabilities to the bit')}."
        for name, same_as in identical.select("name", "same_as").iter_rows()
    ]


# ------------------------------------------------------------------------------------------------ columns


def _number(title: str, key: str, show: Callable[[float | None], str], help: str = "", always: bool = False) -> Column:
    return Column(
        title, lambda r: Cell(true_minus(show(r[key])), "" if r[key] is None else r[key]), help=help, always=always
    )


def _text(title: str, key: str, css: str = "") -> Column:
    return Column(title, lambda r: Cell(str(r[key]), css=css), text=True)


def _with_interval(title: str, key: str, show: Callable[[float | None], str]) -> Column:
    def cell(row: Row) -> Cell:
        low, high = row[f"{key}_low"], row[f"{key}_high"]
        small = "" if low is None else true_minus(f"[{show(low)}, {show(high)}]")
        small = " ".join(part for part in (small, own_days(row, key)) if part)
        return Cell(true_minus(show(row[key])), "" if row[key] is None else row[key], small=small)

    return Column(title, cell, always=True)


def _percent2(x: float | None) -> str:
    return percent(x, 2)


def _three(x: float | None) -> str:
    return decimal(x, 3)


def _model(row: Row) -> Cell:
    return Cell(row["model"], small=WHAT.get(row["model"], ""))


# ------------------------------------------------------------------------------------------------ models


def model_table(models: pl.DataFrame, shown: Sequence[str], deployed: str) -> Table:
    """The first table: a row per model, LightGBM, volatility bins and the oracle."""
    rows = [models.row(by_predicate=pl.col("model") == name, named=True) for name in shown]
    columns = (
        Column("model", _model, text=True),
        _with_interval("log loss", "log_loss", decimal),
        _with_interval("accuracy %", "accuracy", percent),
        _number("macro-F1", "macro_f1", _three, always=True),
        _with_interval("rank IC", "rank_ic", _three),
    )
    table = make_table(rows, columns, strong=lambda r: r["model"] == deployed, wide=True)
    assert table is not None
    return table


def full_model_table(models: pl.DataFrame) -> Table | None:
    """Every model and baseline in every metric."""
    columns = (
        _text("model", "model"),
        _number("n", "n", count),
        _number("seeds", "n_seeds", count),
        _number("accuracy %", "accuracy", _percent2),
        _number("balanced accuracy %", "balanced_accuracy", _percent2),
        _number("macro-F1", "macro_f1", _three),
        _number("log loss", "log_loss", decimal),
        _number("raw log loss", "raw_log_loss", decimal, "of the softmax as trained, not calibrated"),
        _number("focal loss", "focal_loss", decimal),
        _number("rank IC", "rank_ic", _three),
        _number("ICIR", "icir", lambda x: decimal(x, 2)),
        _number("rank IC, skip", "rank_ic_skip1", _three),
        _number("ICIR, skip", "icir_skip1", lambda x: decimal(x, 2)),
        _number("days with a rank IC", "rank_ic_days", count),
        _number("calibration error %", "expected_calibration_error", percent),
        _number(
            "first-day excess",
            "first_day_excess",
            _three,
            "how much better the first day's return is known: a leak's mark",
        ),
    )
    return make_table(models.to_dicts(), columns)


def confusion_table(confusion: pl.DataFrame, model: str) -> Table | None:
    """Shares of each true class by predicted class, shaded; counts in small."""
    rows = confusion.filter(pl.col("model") == model)
    by_true = {
        true: {r["predicted"]: r for r in rows.filter(pl.col("true") == true).iter_rows(named=True)}
        for true in CLASS_NAMES
    }

    def cell(predicted: str) -> Callable[[Row], Cell]:
        def show(row: Row) -> Cell:
            found = row["cells"].get(predicted)
            share = found["share"] if found else None
            strength = round(40 * (share or 0.0))
            style = f"background: color-mix(in srgb, var(--{predicted.lower()}) {strength}%, var(--bg))"
            return Cell(f"{percent(share)} %", share or 0.0, "heat", f"{count(found['n'] if found else 0)}", style)

        return show

    columns = (
        Column("true", lambda r: Cell(r["true"], css=r["true"]), text=True),
        *(Column(name, cell(name), always=True) for name in CLASS_NAMES),
    )
    lines = [{"true": true, "cells": cells} for true, cells in by_true.items() if cells]
    return make_table(lines, columns)


# ------------------------------------------------------------------------------------------------ pairs and sectors

PAIR_METRICS = (
    ("log loss", "log_loss"),
    ("accuracy, points", "accuracy"),
    ("macro-F1, points", "macro_f1"),
    ("rank IC", "rank_ic"),
    ("rank IC, skip", "rank_ic_skip1"),
)


def pair_table(pairs: pl.DataFrame) -> Table | None:
    """One row per pair, one column per metric; who is better in log loss."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in pairs.iter_rows(named=True):
        found.setdefault((row["b"], row["a"]), {})[row["metric"]] = row
    rows = [{"pair": f"{b} minus {a}", **by} for (b, a), by in found.items() if "log_loss" in by]

    def metric(key: str) -> Callable[[Row], Cell]:
        def show(row: Row) -> Cell:
            d = row.get(key)
            if d is None or d["difference"] is None:
                return Cell("-", "")
            return Cell(true_minus(difference(key, d["difference"], d["low"], d["high"])), d["difference"])

        return show

    def p(row: Row) -> Cell:
        d = row["log_loss"]
        value = d["p_value"] if d["adjusted_p"] is None else d["adjusted_p"]
        return Cell(p_value(value), "" if value is None else value, small="Holm" if d["adjusted_p"] is not None else "")

    def better(row: Row) -> Cell:
        d = row["log_loss"]
        return Cell(d[d["better"]] if d["better"] else "undecided", css="" if d["better"] else "unsure")

    columns = (
        _text("b minus a", "pair"),
        Column(PAIR_METRICS[0][0], metric("log_loss")),
        Column("p", p),
        Column("better", better, text=True),
        *(Column(t, metric(k)) for t, k in PAIR_METRICS[1:]),
    )
    return make_table(rows, columns)


def sector_label(sector: int, name: str) -> Cell:
    """The sector's own name; Korean and English where it is one of the 20."""
    known = next((s for s in SECTORS if s.id == sector and name in (s.english, s.korean)), None)
    return Cell(known.english, small=known.korean) if known else Cell(name)


def interval_bar(row: Row, low: float, high: float) -> Markup:
    """The interval drawn to the common scale low..high, 0 marked; coloured by the answer after correction."""

    def x(value: float) -> float:
        return round(3 + (BAR_WIDTH - 6) * (value - low) / (high - low), 1)

    css = {"b": "better", "a": "worse", None: "unsure"}[row["better"]]
    ends = (
        ""
        if row["low"] is None
        else (
            f'<line x1="{x(row["low"])}" x2="{x(row["high"])}" y1="7" y2="7" stroke="var(--{css})" stroke-width="3"/>'
        )
    )
    return Markup(
        f'<svg class="interval" viewBox="0 0 {BAR_WIDTH:g} {BAR_HEIGHT:g}" aria-hidden="true">'
        f'<line x1="{x(0)}" x2="{x(0)}" y1="0" y2="14" stroke="var(--ink)"/>{ends}'
        f'<circle cx="{x(row["difference"])}" cy="7" r="4" fill="var(--{css})"/></svg>'
    )


def sector_table(sectors: pl.DataFrame, by_model: pl.DataFrame, a: str, b: str) -> Table | None:
    """One row per sector, best first: name, n, accuracy of both, the difference in log loss drawn and in numbers."""
    rows = sectors.filter(pl.col("a") == a, pl.col("b") == b, pl.col("difference").is_not_null()).sort("difference")
    if rows.is_empty() or rows["difference"].n_unique() < 2:
        return None
    of = {(m, s): acc for m, s, acc in by_model.select("model", "sector", "accuracy").iter_rows()}
    ends = [0.0, *(float(x) for name in ("difference", "low", "high") for x in rows[name].drop_nulls())]
    low, high = min(ends), max(ends)
    lines = [row | {"of_a": of.get((a, row["sector"])), "of_b": of.get((b, row["sector"]))} for row in rows.to_dicts()]
    answers = {"b": "better", "a": "worse", None: "undecided"}
    columns = (
        Column("sector", lambda r: sector_label(r["sector"], r["name"]), text=True),
        _number("n", "n", count),
        _number("days", "n_days", count),
        _number(f"{a} accuracy %", "of_a", percent),
        _number(f"{b} accuracy %", "of_b", percent),
        Column("difference in log loss", lambda r: Cell(interval_bar(r, low, high), r["difference"])),
        Column(
            "with 95 % interval",
            lambda r: Cell(true_minus(difference("log_loss", r["difference"], r["low"], r["high"])), r["difference"]),
        ),
        Column(
            "p after Holm", lambda r: Cell(p_value(r["adjusted_p"]), "" if r["adjusted_p"] is None else r["adjusted_p"])
        ),
        Column(
            b,
            lambda r: Cell(
                "unchanged" if r["low"] == r["high"] == 0 else answers[r["better"]],
                css={"b": "better", "a": "worse", None: "unsure"}[r["better"]],
            ),
            text=True,
        ),
    )
    return make_table(lines, columns)


# ------------------------------------------------------------------------------------------------ returns and seeds


def book_table(books: pl.DataFrame, shown: Sequence[str]) -> Table | None:
    """Top decile against the universe, turnover, costs, net; long-short last."""
    order = {name: i for i, name in enumerate(shown)}
    rows = sorted((r for r in books.to_dicts() if r["model"] in order), key=lambda r: order[r["model"]])
    columns = (
        _text("model", "model"),
        _number("top decile", "top_decile_return", _percent2),
        _with_interval("above the universe", "top_minus_universe", _percent2),
        _number("turnover", "turnover", percent),
        _number("costs", "cost_per_holding", _percent2),
        _with_interval("net, above the universe", "net", _percent2),
        _with_interval("long-short", "long_short", _percent2),
        _number("long-short where allowed", "long_short_allowed", _percent2),
    )
    return make_table(rows, columns)


def seed_table(seeds: pl.DataFrame) -> Table | None:
    """One row per model and seed; None where every model has one."""
    counted = seeds.filter(pl.len().over("model") > 1)
    columns = (
        _text("model", "model"),
        Column("seed", lambda r: Cell("-" if r["seed"] is None else str(r["seed"]))),
        _number("accuracy %", "accuracy", _percent2),
        _number("log loss", "log_loss", decimal),
        _number("macro-F1", "macro_f1", _three),
        _number("rank IC", "rank_ic", _three),
        _number("calibration error %", "expected_calibration_error", percent),
    )
    return make_table(counted.to_dicts(), columns)


def pair_seed_table(rows: pl.DataFrame) -> Table | None:
    """Differences in log loss, one row per pair, one column per seed."""
    found: dict[tuple[str, str], dict[Any, Row]] = {}
    for row in rows.filter(metric="log_loss").iter_rows(named=True):
        found.setdefault((row["b"], row["a"]), {})[row["seed"]] = row
    seeds = rows["seed"].unique(maintain_order=True).to_list()

    def of(seed: Any) -> Callable[[Row], Cell]:
        def show(line: Row) -> Cell:
            d = line["by"].get(seed)
            return (
                Cell("-", "")
                if d is None
                else Cell(true_minus(difference("log_loss", d["difference"], d["low"], d["high"])), d["difference"])
            )

        return show

    columns = (_text("b minus a", "pair"), *(Column(f"seed {s}", of(s), always=True) for s in seeds))
    return make_table([{"pair": f"{b} minus {a}", "by": by} for (b, a), by in found.items()], columns)
