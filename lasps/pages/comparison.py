"""The comparison page: one HTML file that answers on its first screen and explains below.

It only shows the frames of a Comparison (lasps.evaluation.comparison); it computes nothing but places.
"""

from __future__ import annotations

import re

import polars as pl

from lasps.numbers import decimal, difference, percent, true_minus
from lasps.pages import comparison_sections as sections
from lasps.pages import comparison_tables as tables
from lasps.pages.comparison_view import Comparison, context_line, few_days, n_days
from lasps.pages.page import Figure, render
from lasps.plots.vega import comparison as plots

FEW = "Few days: small differences cannot be told from luck. Everything below rests"
SURVIVORSHIP = (
    "Where the data holds only stocks that are still listed (as the KRX files do), delisted ones are missing and every "
    "return is flattered; differences between models less so."
)
HOW = (
    "Intervals: days are the unit, neighbouring days are correlated (5-day labels overlap); long-run variance with "
    "0.4 T^(2/3) cosines and Student's t (Lazarus, Lewis, Stock and Watson 2018), 95 %, two-sided. Over days: true of "
    "these weights on other days. Over seeds and days: true of the method, trained again.",
    "The primary metric is log loss on a split that nothing was chosen on; p-values of the default pairs after Holm, "
    "those of sectors after Holm over the sectors. Val chose epochs, heads and hyperparameters: shown, not tested.",
    "Rank IC: mean over days of the Spearman correlation of P(BUY) - P(SELL) with the 5-day return; ICIR is its mean "
    "over its standard deviation, not annualised; skip: from close t+1 to t+6, without the bid-ask bounce of one day.",
)


def comparison_page(comparison: Comparison, title: str = "lasps: comparison") -> str:
    """The whole comparison as one self-contained HTML page."""
    view = comparison.main
    differences = difference_figure(view)
    shown = [
        s
        for s in (
            sections.class_section(view),
            sections.sector_section(view),
            sections.time_section(view),
            sections.calibration_section(view),
            sections.return_section(view),
        )
        if s is not None
    ]
    alarms = [note for note in comparison.notes if "may know the future" in note]
    return render(
        "comparison.html.j2",
        title,
        context=true_minus(context_line(view)),
        verdict=[answer_and_numbers(true_minus(s)) for s in comparison.verdict],
        alarms=alarms,
        few=few_days(n_days(view), FEW),
        differences=differences,
        models=tables.model_table(view.models, view.headline, view.deployed),
        models_caption=prior_caption(view),
        identical=tables.identical_lines(comparison.identical),
        sections=shown,
        prior=prior_source(view),
        rest=sections.rest(view, [comparison.on(split) for split in comparison.splits if split not in view.splits]),
        how=HOW,
        survivorship=SURVIVORSHIP,
        notes=[n for n in comparison.notes if n not in alarms],
    )


def answer_and_numbers(sentence: str) -> tuple[str, str]:
    """A sentence of the verdict cut before its first number or aside, so that the answer can be large."""
    match = re.search(r"\s*[(;]", sentence)
    return (sentence, "") if match is None else (sentence[: match.start()], sentence[match.start() :])


def prior_caption(view: Comparison) -> str:
    """What a constant forecast gets."""
    m, prior = view.models, view.prior
    shares = " / ".join(percent(s) for s in prior["share"])
    source = f" (always {shares} % SELL / HOLD / BUY)" if len(prior) else ""
    return (
        f"A constant forecast gets log loss {decimal(m['prior_log_loss'][0])} and accuracy "
        f"{percent(m['majority_accuracy'][0])} %{source}."
    )


def prior_source(view: Comparison) -> str:
    """Where the prior comes from."""
    prior = view.prior
    return f"The prior, a constant forecast: {prior['source'][0]}." if len(prior) else ""


def difference_figure(view: Comparison) -> Figure | None:
    """The default pairs and the distance to the oracle, in log loss."""
    pairs = view.pairs.filter(pl.col("metric") == "log_loss")
    asked = pairs.filter(pl.col("family"))
    if asked.is_empty():
        asked = pairs.filter(pl.col("b") == view.deployed, pl.col("role") != "oracle")
    oracle = pairs.filter(pl.col("role") == "oracle", pl.col("b") == view.deployed)
    rows = []
    for row in pl.concat([asked, oracle]).iter_rows(named=True):
        answer = "still to gain" if row["role"] == "oracle" else tables.answer(row, view.verdict_split is not None)
        name = tables.nice(row["a"]) if row["b"] == view.deployed else f"{row['b']} vs {row['a']}"
        rows.append(
            {
                "name": name,
                "answer": answer,
                **{k: row[k] for k in ("difference", "low", "high")},
                "shown": true_minus(difference("log_loss", row["difference"], row["low"], row["high"])),
            }
        )
    frame = pl.DataFrame(rows, schema_overrides={"low": pl.Float64, "high": pl.Float64})
    spec = plots.differences(frame) if rows else None
    caption = "difference in log loss with 95 % intervals; an interval that crosses 0 decides nothing."
    return None if spec is None else Figure(f"{view.deployed} against the others:", spec, caption)
