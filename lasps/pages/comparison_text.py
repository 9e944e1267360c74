"""A comparison in the terminal: the verdict, one table, the pairs that were asked for; all else on request."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from lasps import terminal
from lasps.config.settings import CLASS_NAMES
from lasps.numbers import count, decimal, difference, own_days, p_value, percent
from lasps.pages import comparison_tables as tables
from lasps.pages.comparison_view import Comparison, few_days, n_days

SELECTION_SPLITS = ("train", "val")
"""Shown, not tested."""
Row = dict[str, Any]
Column = tuple[str, Callable[[Row], str]]


def show_comparison(comparison: Comparison, full: bool = False) -> None:
    """Print the verdict, the models and the default pairs; with `full` every model, pair, seed and split."""
    view = comparison.main
    few = few_days(n_days(view))
    terminal.show_lines(short_verdict(comparison.verdict), style="bold")
    terminal.show_lines([*([few] if few else []), *tables.identical_lines(comparison.identical)])
    print()
    terminal.show_table(*model_rows(view, view.headline), title=split_title(view))
    if full:
        _show_rest(view, comparison)
    else:
        _show_pairs(view.pairs.filter(pl.col("family") | _to_oracle(view)))
    print()
    terminal.show_lines([f"Note: {note}" for note in comparison.notes])


def _to_oracle(view: Comparison) -> pl.Expr:
    return (pl.col("role") == "oracle") & (pl.col("b") == view.deployed)


def short_verdict(sentences: Sequence[str]) -> list[str]:
    """The sentences without the numbers in parentheses: the table below has them."""
    return [re.sub(r"\s*\([^()]*\d[^()]*\)", "", sentence) for sentence in sentences]


def split_title(view: Comparison) -> str:
    """'test: 8,078 samples on 135 days; prior's log loss 1.0399, majority 50.3 %'."""
    m = view.models.row(0, named=True)
    days = f" on {count(m['n_days'])} days" if m["n_days"] else ", no dates"
    tested = "" if view.verdict_split else "; a selection split: shown, not tested"
    return (
        f"{view.splits[0]}: {count(m['n'])} samples{days}; a constant forecast has log loss "
        f"{decimal(m['prior_log_loss'])} and accuracy {percent(m['majority_accuracy'])} %{tested}"
    )


MODEL_COLUMNS: tuple[Column, ...] = (
    ("log loss", lambda r: decimal(r["log_loss"])),
    ("accuracy %", lambda r: percent(r["accuracy"], 2)),
    *((f"{name} %", lambda r, name=name: percent(r[name])) for name in CLASS_NAMES),
    ("macro-F1", lambda r: decimal(r["macro_f1"], 3)),
    ("rank IC", lambda r: " on ".join(t for t in (decimal(r["rank_ic"], 3), own_days(r, "rank_ic")) if t)),
    ("calib. %", lambda r: percent(r["expected_calibration_error"])),
)


def model_rows(view: Comparison, names: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Header and one row per model; columns without any number are left out."""
    recall = {(m, c): a for m, c, a in view.classes.select("model", "class", "accuracy").iter_rows()}
    of = {r["model"]: r for r in view.models.iter_rows(named=True)}
    rows = [of[name] | {c: recall.get((name, c)) for c in CLASS_NAMES} for name in names]
    return _shown(rows, "model", "model", MODEL_COLUMNS)


def _shown(rows: Sequence[Row], title: str, key: str, columns: Sequence[Column]) -> tuple[list[str], list[list[str]]]:
    kept = [(name, show) for name, show in columns if any(show(r) != "-" for r in rows)]
    return [title, *(name for name, _ in kept)], [[r[key], *(show(r) for _, show in kept)] for r in rows]


def _show_pairs(pairs: pl.DataFrame) -> None:
    """A table for every model that others are subtracted from."""
    for model in pairs["b"].unique(maintain_order=True):
        print()
        terminal.show_table(*pair_rows(pairs.filter(pl.col("b") == model), model))


def pair_rows(pairs: pl.DataFrame, model: str) -> tuple[list[str], list[list[str]]]:
    """`model` minus the others, a row each: log loss, p (Holm's for the default pairs), accuracy, and the answer."""
    found: dict[str, Row] = {}
    for row in pairs.iter_rows(named=True):
        found.setdefault(row["a"], {})[row["metric"]] = row
    rows = [{"pair": a, **by} for a, by in found.items() if "log_loss" in by]

    def metric(name: str) -> Callable[[Row], str]:
        return lambda r: difference(name, *(r[name][k] for k in ("difference", "low", "high"))) if name in r else "-"

    def p(r: Row) -> str:
        d = r["log_loss"]
        return p_value(d["p_value"] if d["adjusted_p"] is None else d["adjusted_p"])

    def better(r: Row) -> str:
        d = r["log_loss"]
        if d["low"] is None or d["split"] in SELECTION_SPLITS:
            return "-"
        return {"b": "better", "a": "worse", None: "undecided"}[d["better"]]

    columns = (("log loss", metric("log_loss")), ("p", p), ("accuracy, points", metric("accuracy")), ("it is", better))
    return _shown(rows, f"{model} minus", "pair", columns)


def seed_rows(seeds: pl.DataFrame) -> tuple[list[str], list[list[str]]]:
    """One row per model and seed, of models that have several."""
    rows = [
        r | {"name": f"{r['model']}, seed {'-' if r['seed'] is None else r['seed']}"}
        for r in seeds.filter(pl.len().over("model") > 1).iter_rows(named=True)
    ]
    return _shown(rows, "model", "name", [*MODEL_COLUMNS[:2], *MODEL_COLUMNS[5:]])


def book_rows(view: Comparison) -> tuple[list[str], list[list[str]]]:
    """Holding the top decile, % per 5 days."""

    def interval(name: str) -> Callable[[Row], str]:
        def show(r: Row) -> str:
            low, high = r[f"{name}_low"], r[f"{name}_high"]
            return percent(r[name], 2) + ("" if low is None else f" [{percent(low, 2)}, {percent(high, 2)}]")

        return show

    columns: tuple[Column, ...] = (
        ("above universe", interval("top_minus_universe")),
        ("turnover", lambda r: percent(r["turnover"], 0)),
        ("costs", lambda r: percent(r["cost_per_holding"], 2)),
        ("net", interval("net")),
        ("long-short", lambda r: percent(r["long_short"], 2)),
    )
    return _shown(view.books.to_dicts(), "model", "model", columns)


def _show_rest(view: Comparison, comparison: Comparison) -> None:
    """Every baseline, all pairs, seeds, returns, the other splits."""
    others = [m for m in view.models["model"] if m not in view.headline]
    _show_titled("Other baselines", *model_rows(view, others))
    _show_pairs(view.pairs)
    _show_titled("Seeds", *seed_rows(view.seeds))
    _show_titled("Holding the top decile, % per 5 days", *book_rows(view))
    for split in comparison.splits:
        if split not in view.splits:
            other = comparison.on(split)
            _show_titled(split_title(other), *model_rows(other, other.models["model"].to_list()))
            _show_pairs(other.pairs)


def _show_titled(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if rows:
        print()
        terminal.show_table(header, rows, title=title)
