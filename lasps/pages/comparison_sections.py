"""The parts of the comparison page below its first screen, in order; a part with nothing to show is None."""

from __future__ import annotations

import polars as pl

from lasps.config.settings import CLASS_NAMES
from lasps.numbers import count, percent
from lasps.pages import comparison_tables as tables
from lasps.pages.comparison_view import Comparison, Section, context_line, few_days, n_days, plotted
from lasps.pages.page import Figure
from lasps.plots.vega import comparison as plots


def class_section(view: Comparison) -> Section | None:
    """Class-wise accuracy with intervals, and where the deployed model and its predecessor err."""
    spec = plots.class_accuracy(view.classes, plotted(view))
    if spec is None:
        return None
    pair = [name for name in (view.predecessor, view.deployed) if name is not None]
    heat = [
        (f"{name}: true class (rows), predicted class", tables.confusion_table(view.confusion, name)) for name in pair
    ]
    n = {row["class"]: row["n"] for row in view.classes.iter_rows(named=True)}
    counts = ", ".join(f"{name} {count(n[name])}" for name in CLASS_NAMES if name in n)
    return Section(
        "classes",
        "Class by class",
        "Class-wise accuracy is the share of a class's samples that are predicted as it (recall): a model that "
        f"always says HOLD has 0, 100 and 0 %. Samples: {counts}.",
        (Figure("Class-wise accuracy", spec, "with 95 % intervals over days"),),
        tuple((title, t) for title, t in heat if t is not None),
        "",
        few_days(n_days(view)),
        True,
    )


def sector_section(view: Comparison) -> Section | None:
    """The deployed model against its predecessor in every sector."""
    if view.predecessor is None:
        return None
    table = tables.sector_table(view.sectors, view.sector_models, view.predecessor, view.deployed)
    if table is None:
        return None
    rows = view.sectors.filter(pl.col("a") == view.predecessor, pl.col("b") == view.deployed)
    differ = rows.filter(pl.col("better").is_not_null())
    better = differ.filter(pl.col("better") == "b")
    return Section(
        "sectors",
        "Sector by sector",
        f"{view.deployed} minus {view.predecessor} in log loss, best first; a bar left of the line is better. After "
        f"Holm's correction over {len(rows)} sectors, {len(better)} are better and {len(differ) - len(better)} "
        "worse; the other differences may be luck.",
        tables=(("", table),),
        few=few_days(min(rows["n_days"].drop_nulls().to_list(), default=None), "The thinnest sector rests"),
    )


def time_section(view: Comparison) -> Section | None:
    """Whether an edge is there all the time or was one lucky week."""
    days, months = view.days, view.months
    specs = [
        (
            "Cumulated gain in log loss",
            plots.cumulated_gain(days, plotted(view), view.deployed),
            "a steady edge rises steadily; a jump is one lucky week",
        ),
        (
            "Rank IC by month",
            plots.monthly_rank_ic(months, plotted(view), view.deployed),
            "a month is about four independent weeks",
        ),
    ]
    figures = tuple(Figure(title, spec, caption) for title, spec, caption in specs if spec is not None)
    if not figures:
        return None
    baseline = str(days["baseline"][0]).replace("_", " ") if len(days) else "the baseline"
    return Section(
        "time",
        "Over time",
        f"What each model gained over {baseline}, day by day, and how well it ranked the stocks each month.",
        figures,
        few=few_days(n_days(view)),
    )


def calibration_section(view: Comparison) -> Section | None:
    """Whether a probability means what it says."""
    made = [(name, plots.calibration(view.calibration, name, plotted(view), view.deployed)) for name in CLASS_NAMES]
    figures = tuple(Figure(name, spec) for name, spec in made if spec is not None)
    return (
        Section(
            "calibration",
            "Calibration",
            "On the diagonal, a predicted 30 % happens 30 times in 100; below it, "
            "the model is too sure. Bins hold equally many samples.",
            figures,
            layout="thirds",
        )
        if figures
        else None
    )


def return_section(view: Comparison) -> Section | None:
    """What a holder of the top decile would have had."""
    spec = plots.deciles(view.deciles, plotted(view), view.deployed)
    books = tables.book_table(view.books, view.headline)
    figures = (
        (Figure("5-day return above the universe, by decile", spec, "with 95 % intervals over days"),) if spec else ()
    )
    if not figures and books is None:
        return None
    return Section(
        "returns",
        "Deciles, turnover and costs",
        "Each day's stocks are sorted by P(BUY) - P(SELL) into ten equal groups. Long-only comes first: short "
        f"selling was banned for long. {book_facts(view)}Net is after commission and tax, before market impact.",
        figures,
        () if books is None else (("Holding the top decile, % per 5 days", books),),
        "",
        few_days(n_days(view)),
    )


def book_facts(view: Comparison) -> str:
    """What is alike for all models, so that no column of the table repeats it: costs, and the days of a ban."""
    books, said = view.books, []
    costs, banned = books["cost_per_holding"].drop_nulls().unique().to_list(), books["banned_days"].max()
    if len(costs) == 1:
        said.append(f"A holding costs {percent(costs[0], 2)} %. ")
    if banned:
        said.append(f"Short selling was banned on {banned!s} of these {books['n_days'].max()!s} days. ")
    return "".join(said)


def rest(view: Comparison, others: list[Comparison]) -> list[Section]:
    """The folded part: what nobody asks first."""
    parts = [_all_models(view), _all_pairs(view), _seeds(view), _other_sectors(view), _behaviour(view)]
    return [part for part in (*parts, *map(_other_split, others)) if part is not None]


def _all_models(view: Comparison) -> Section | None:
    table = tables.full_model_table(view.models)
    return (
        Section(
            "all-models",
            "All models and baselines, all metrics",
            "Models first, then baselines.",
            tables=(("", table),),
        )
        if table
        else None
    )


def _all_pairs(view: Comparison) -> Section | None:
    table = tables.pair_table(view.pairs)
    return (
        Section(
            "all-pairs",
            "All pairs",
            "b minus a; better is decided by log loss. p is Holm's for the default pairs, uncorrected for the others.",
            tables=(("", table),),
        )
        if table
        else None
    )


def _seeds(view: Comparison) -> Section | None:
    made = [
        ("Seeds", tables.seed_table(view.seeds)),
        (
            "Log loss by seed, intervals over days alone",
            tables.pair_seed_table(view.pair_seeds),
        ),
    ]
    kept = tuple((title, t) for title, t in made if t is not None)
    return Section("seeds", "Seed by seed", "The same method trained from other seeds.", tables=kept) if kept else None


def _other_sectors(view: Comparison) -> Section | None:
    sectors, found = view.sectors, []
    for a, b in sectors.select("a", "b").unique(maintain_order=True).iter_rows():
        table = tables.sector_table(sectors, view.sector_models, a, b)
        if table is not None and (a, b) != (view.predecessor, view.deployed):
            found.append((f"{b} minus {a}", table))
    return (
        Section(
            "other-sectors",
            "Sectors of the other pairs",
            "As above, for the pairs that were not shown.",
            tables=tuple(found),
        )
        if found
        else None
    )


def _behaviour(view: Comparison) -> Section | None:
    made = [
        ("Accuracy on the most confident", plots.coverage(view.coverage, plotted(view), view.deployed)),
        ("Rank IC within fifths of volatility", plots.quintiles(view.quintiles, plotted(view), view.deployed)),
    ]
    figures = tuple(Figure(title, spec) for title, spec in made if spec is not None)
    return (
        Section(
            "behaviour",
            "Confidence and volatility",
            "What acting on the most confident predictions alone would "
            "bring, and what is left once volatility is known.",
            figures,
        )
        if figures
        else None
    )


def _other_split(view: Comparison) -> Section | None:
    made = [("Models", tables.full_model_table(view.models)), ("Pairs", tables.pair_table(view.pairs))]
    return Section(
        f"split-{view.splits[0]}",
        f"On {view.splits[0]}",
        context_line(view),
        tables=tuple((title, t) for title, t in made if t is not None),
    )
