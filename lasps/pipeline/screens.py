"""What the steps say at their end: a short block for people, and what to do next."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from lasps import terminal
from lasps.config import clock
from lasps.config.dataset_config import HORIZON
from lasps.config.settings import CLASS_NAMES
from lasps.training.checkpoints import Checkpoint
from lasps.training.ensembles import Ensemble

OLD_DAYS = 5
"""Calendar days after which a forecast's bars are called old: longer than a weekend with a holiday (guess)."""


def show_dataset(description: Mapping[str, Any], folder: Path) -> None:
    """What was built: samples, days and class shares of every split, and where the sectors are thin."""
    header = ["split", "samples", "stocks", "days", "from", "to", *(f"{name} %" for name in CLASS_NAMES), "sectors"]
    rows = [split_row(split, counts) for split, counts in description["counts"].items()]
    print()
    terminal.show_table(header, rows, title=f"Dataset {folder}")
    thin = thinnest(description)
    if thin:
        terminal.show_lines([thin])
    terminal.show_end(
        [f"{folder}", f"{folder / 'integrity.html'}"], [("make train", "Phases 1, 3 and 2, validated and compared")]
    )


def split_row(split: str, counts: Mapping[str, Any]) -> list[str]:
    """One split: how many samples, of what, when."""
    n = max(counts["n"], 1)
    shares = [f"{100 * counts['classes'][name] / n:.1f}" for name in CLASS_NAMES]
    known = [f"{counts[key]:,}" if counts.get(key) is not None else "-" for key in ("stocks", "days")]
    when = [str(counts.get(key) or "-") for key in ("first", "last")]
    return [split, f"{counts['n']:,}", *known, *when, *shares, str(sum(k > 0 for k in counts["sectors"]))]


def thinnest(description: Mapping[str, Any]) -> str:
    """'Fewest samples of train: Telecom 404, ...' of the three thinnest sectors."""
    sizes, names = description["counts"].get("train", {}).get("sectors") or [], description.get("sectors") or []
    order = sorted(range(len(sizes)), key=lambda s: sizes[s])[:3]
    named = [f"{names[s] if s < len(names) else f'sector {s}'} {sizes[s]:,}" for s in order]
    return f"Sectors with the fewest samples of train: {', '.join(named)}" if named else ""


def show_forecast(
    table: pl.DataFrame, checkpoint: Checkpoint | Ensemble, top: int, out: Path | None, today: dt.date | None = None
) -> None:
    """Both ends of a forecast, compared with what a constant forecast says, and how old it is."""
    data = checkpoint.card.data
    prior = data.get("train_class_frequencies")
    day: dt.date = table["date"][0]
    print()
    terminal.show_lines(
        [
            f"{len(table):,} forecasts as of {day} for the {data.get('horizon', HORIZON)} traded days after it, "
            f"by {checkpoint.name}"
        ],
        style="bold",
    )
    terminal.show_lines(about_forecast(table, prior, day, today or clock.now().date()))
    ends = (("Highest P(BUY) - P(SELL)", table.head(top)), ("Lowest", table.tail(top)))
    for title, part in ends:
        print()
        header = ["code", "name", "sector", *(f"P({c}) %" for c in CLASS_NAMES), "BUY - SELL", "class"]
        terminal.show_table(header, [forecast_row(r) for r in part.iter_rows(named=True)], title=title, left=3)
    todo = [("make compare", "what such forecasts were worth on days that nothing was chosen on")]
    if out is None:
        todo.append(("make predict OUT=forecast.csv", f"all {len(table):,} of them"))
    terminal.show_end([] if out is None else [str(out)], todo)


def forecast_row(row: Mapping[str, Any]) -> list[str]:
    """One stock; probabilities in percent."""
    p = [row[f"p_{name.lower()}"] for name in CLASS_NAMES]
    return [
        row["code"],
        str(row["name"] or "-"),
        str(row["sector"] or "-"),
        *(f"{100 * x:.1f}" for x in p),
        f"{100 * (p[2] - p[0]):+.1f}",
        row["class"],
    ]


def about_forecast(table: pl.DataFrame, prior: Sequence[float] | None, day: dt.date, today: dt.date) -> list[str]:
    """Compared with what, how sure, how fresh."""
    means = " / ".join(f"{100 * float(table[f'p_{c.lower()}'].mean()):.1f}" for c in CLASS_NAMES)  # type: ignore[arg-type]
    lines = [f"On average {means} % SELL / HOLD / BUY"]
    if prior is not None:
        lines[0] += f"; a constant forecast says {' / '.join(f'{100 * x:.1f}' for x in prior)} %"
    predicted = dict(table["class"].value_counts().iter_rows())
    best = table.select(pl.max_horizontal("p_sell", "p_buy").max()).item()
    lines.append(
        "Predicted "
        + ", ".join(f"{c} {predicted.get(c, 0):,}" for c in CLASS_NAMES)
        + f"; the most confident SELL or BUY has {100 * best:.1f} %"
    )
    age = (today - day).days
    if age > OLD_DAYS:
        lines.append(f"Old: the bars end {age:,} days before today ({today}), and a forecast is for its next days only")
    return lines
