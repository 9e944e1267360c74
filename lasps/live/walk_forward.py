"""What living with a recipe would have earned: refits over history, each of which forecasts all days that follow it.

A refit sees labels that had ended by its evening, and no score. Because each one forecasts to the end, the same refits
answer what any schedule would have earned (every 20, 60 or 120 market days, or never again), and how an edge ages.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from loguru import logger

from lasps.config.dataset_config import HORIZON
from lasps.data.datasets.panel_samples import PanelRows, PanelSamples
from lasps.data.panel import Panel
from lasps.data.sources.files import read_bars, read_listing
from lasps.data.universe import stored_markets
from lasps.evaluation.forecast import Forecast
from lasps.files import write_atomically
from lasps.live.day_scores import SCORES, day_scores
from lasps.live.evening import Refits, run_evening
from lasps.live.folder import LiveFolder
from lasps.live.ledger import P_COLUMNS, SIMULATION, Ledger
from lasps.live.model import CHAMPION, PRIOR, Array, EveningModel, train, with_seeds
from lasps.live.succession import Succession, after_probation
from lasps.pipeline.datasets import look_at
from lasps.pipeline.recipe import Recipe


@dataclass(frozen=True)
class Inputs:
    """The files of a study, and how bars and listing are read (`lasps.data.sources.files`)."""

    source: Path
    listing: Path
    recipe: Path
    seeds: int | None = None
    waived: tuple[str, ...] = ()
    pad_codes: bool = False
    signed_prices: bool = False
    decimal: Literal["point", "comma"] | None = None


@dataclass(frozen=True, eq=False)
class Market:
    """What the files of a study hold: bars and listing as they were read, the rows that passed the gate, the recipe."""

    bars: pl.DataFrame
    listing: pl.DataFrame
    rows: PanelRows
    recipe: Recipe


@lru_cache(maxsize=1)
def read_inputs(inputs: Inputs) -> Market:
    """Read the files of a study, once in a process for all of its refits.

    Raises:
        ValueError: a file that cannot be read, or a fatal finding of the gate that is not waived.
    """
    recipe = Recipe.read(inputs.recipe)
    recipe = recipe if inputs.seeds is None else with_seeds(recipe, inputs.seeds)
    listing = read_listing(inputs.listing, pad_codes=inputs.pad_codes)
    bars = read_bars(
        inputs.source, pad_codes=inputs.pad_codes, signed_prices=inputs.signed_prices, decimal=inputs.decimal
    )
    universe = recipe.data["universe"]
    seen = look_at(bars, listing, universe["name"], inputs.waived, stored_markets(universe))
    seen.report.raise_if_fatal(inputs.waived)
    return Market(bars, listing, PanelRows(Panel(seen.selected()), recipe.data), recipe)


def origins(calendar: np.ndarray, first: dt.date, last: dt.date, every: int | None) -> list[dt.date]:
    """The evenings of the refits: the first market day from `first` on, and each `every`-th after it until `last`.

    Args:
        calendar: the market's days, datetime64[D] sorted.
        every: market days between two refits; None: the first alone.

    Raises:
        ValueError: no market day in between, or `every` below 1.
    """
    if every is not None and every < 1:
        raise ValueError(f"expected at least one market day between two refits, got {every}")
    days = calendar[(calendar >= np.datetime64(first, "D")) & (calendar <= np.datetime64(last, "D"))]
    if not len(days):
        raise ValueError(f"expected market days from {first} to {last}, found none")
    return [day.item() for day in (days[:1] if every is None else days[::every])]


def simulate(
    evenings: Iterable[dt.date],
    known: Callable[[dt.date], tuple[pl.DataFrame, pl.DataFrame]],
    folder: Path,
    refits: Refits,
    device: str = "cpu",
) -> None:
    """The evenings of `make daily`, one after another, into a simulation's ledger; one that stands is passed over.

    With the bars and the listing of each evening the forecasts are, bit for bit, those that `make daily` makes.

    Args:
        known: evening -> (bars, listing) as they were known.
        folder: of the simulation, as `LiveFolder` has it.
    """
    live = LiveFolder(folder, SIMULATION)
    done = set(live.ledger.days())
    for day in evenings:
        if day not in done:
            run_evening(*known(day), live, refits=refits, device=device)


def apart(a: Ledger, b: Ledger, days: int = 20) -> pl.DataFrame:
    """How far the champions of two ledgers are apart on their first common days: date, stocks, mean and largest.

    mean, largest: of the absolute differences of the three probabilities, over the stocks that both have.
    """
    rows = []
    for day in sorted(set(a.days()) & set(b.days()))[:days]:
        own, other = (ledger.read(day).table.filter(model=CHAMPION) for ledger in (a, b))
        both = own.join(other, on="code", suffix="_b", how="inner")
        p, q = both.select(P_COLUMNS).to_numpy(), both.select(f"{name}_b" for name in P_COLUMNS).to_numpy()
        rows.append((day, both.height, float(np.abs(p - q).mean()), float(np.abs(p - q).max())))
    schema = {"date": pl.Date, "stocks": pl.Int64, "mean": pl.Float64, "largest": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def run_origin(
    recipe: Recipe,
    rows: PanelRows,
    as_of: dt.date,
    last: dt.date,
    folder: Path,
    device: str = "cpu",
    fraction: float = 1.0,
) -> tuple[EveningModel, pl.DataFrame]:
    """One refit, and the scores of its forecasts of every day from its own evening to `last`.

    Args:
        rows: the whole market, to `last` or longer: labels of days near `last` need the days that follow.
        folder: of the model; its forecasts are written beside it as forecasts.parquet.

    Returns:
        the model, and a frame of SCORES: its champion, parts and references, and each member ("network 7") alone.
    """
    model = train(recipe, rows, as_of, folder, device, fraction)
    samples = rows.between(as_of, last)
    logger.info(f"As of {as_of}: forecasting {len(samples):,} samples to {last}")
    members = model.members(samples)
    probabilities = model.combined(members, samples) | members
    _write_forecasts(probabilities, samples, folder / "forecasts.parquet")
    return model, _scores_of(probabilities, samples)


def _scores_of(probabilities: Mapping[str, Array], samples: PanelSamples) -> pl.DataFrame:
    tables = []
    for name, p in probabilities.items():
        f = Forecast.from_probabilities(p, samples.labels, samples.sector_ids, samples=samples.samples)
        tables.append(day_scores(name, f))
    return pl.concat(tables)


def scheduled(scores: Mapping[dt.date, pl.DataFrame], evenings: Sequence[dt.date] | None = None) -> pl.DataFrame:
    """The scores of a schedule: each day those of the newest refit that was there on its evening, and its `as_of`.

    Args:
        scores: as_of -> the scores of its forecasts (`run_origin`).
        evenings: when the schedule refits; all of `scores` if not given.

    Raises:
        ValueError: an evening without scores.
    """
    chosen = sorted(scores if evenings is None else evenings)
    missing = [str(day) for day in chosen if day not in scores]
    if missing or not chosen:
        raise ValueError(f"expected the scores of refits on {missing or 'at least one evening'}, found {list(scores)}")
    parts = []
    for as_of, following in zip(chosen, [*chosen[1:], dt.date.max], strict=True):
        own = scores[as_of].filter((pl.col("date") >= as_of) & (pl.col("date") < following))
        parts.append(own.with_columns(as_of=pl.lit(as_of)))
    return pl.concat(parts)


def with_succession(
    scores: Mapping[dt.date, pl.DataFrame], evenings: Sequence[dt.date], calendar: np.ndarray, horizon: int = HORIZON
) -> tuple[pl.DataFrame, Succession]:
    """As `scheduled`, under the rule of `make daily`: a refit that proves worse than its predecessor is rolled back.

    On each evening the rule sees the days that have come due by then, and no other.

    Args:
        calendar: the market's days, datetime64[D] sorted.
        horizon: market days until a day is due.
    """
    scheduled(scores, evenings)  # raises where one is missing
    succession, parts = Succession(), []
    days = sorted({day for own in scores.values() for day in own["date"].to_list()})
    for day in [day for day in days if day >= min(evenings)]:
        if day in evenings:
            succession = succession.refitted(day.isoformat(), day)
        assert succession.champion is not None
        as_of = dt.date.fromisoformat(succession.champion)
        parts.append(scores[as_of].filter(date=day).with_columns(as_of=pl.lit(as_of)))
        if succession.predecessor is not None:
            place = int(np.searchsorted(calendar, np.datetime64(day, "D"), side="right")) - 1 - horizon
            due = calendar[max(place, 0)].item()
            own, before = (
                scores[dt.date.fromisoformat(name)].filter(pl.col("date") <= due, model=CHAMPION)
                for name in (succession.champion, succession.predecessor)
            )
            succession = after_probation(succession, own, before, day)
    return pl.concat(parts), succession


def edge_of(schedule: pl.DataFrame) -> np.ndarray:
    """(T,) the champion's log loss minus the prior's by day: what an alarm is calibrated on."""
    own, prior = (schedule.filter(model=name).sort("date") for name in (CHAMPION, PRIOR))
    return (own["log_loss"] - prior["log_loss"]).to_numpy()


def by_age(scores: Mapping[dt.date, pl.DataFrame], calendar: np.ndarray, width: int) -> pl.DataFrame:
    """Every refit's scores with its age in market days, in steps of `width`: date, model, as_of, age, SCORES."""
    parts: Iterable[pl.DataFrame] = (own.with_columns(as_of=pl.lit(as_of)) for as_of, own in sorted(scores.items()))
    table = pl.concat(parts)
    place = [np.searchsorted(calendar, table[name].to_numpy().astype("datetime64[D]")) for name in ("date", "as_of")]
    return table.with_columns(age=pl.Series((place[0] - place[1]) // width * width, dtype=pl.Int64))


def write_scores(folder: Path, as_of: dt.date, scores: pl.DataFrame, about: Mapping[str, Any]) -> None:
    """Write AS_OF.csv, rounded to five digits, then AS_OF.json with what they were measured with.

    Of the members alone only the first network's and the first booster's are kept: they are what schedules with one
    seed are compared by.
    """
    names = scores["model"].unique(maintain_order=True).to_list()
    alone = [name for name in names if " " in name]
    kept = [name for name in names if name not in alone]
    kept += [next(name for name in alone if name.startswith(part)) for part in sorted({n.split(" ")[0] for n in alone})]
    table = scores.filter(pl.col("model").is_in(kept)).with_columns(pl.col(pl.Float64).round(5))
    write_atomically(folder / f"{as_of}.csv", table.write_csv())
    write_atomically(folder / f"{as_of}.json", json.dumps(about, indent=1) + "\n")


def read_scores(folder: Path) -> dict[dt.date, pl.DataFrame]:
    """as_of -> a frame of SCORES, of every refit that is finished in a folder.

    Raises:
        ValueError: a file that is not as `write_scores` writes it.
    """
    found = {}
    for path in sorted(folder.glob("????-??-??.json")):
        try:
            found[dt.date.fromisoformat(path.stem)] = pl.read_csv(path.with_suffix(".csv"), schema=SCORES)
        except (OSError, ValueError, pl.exceptions.PolarsError) as error:
            raise ValueError(
                f"{path.with_suffix('.csv')}: expected scores by day, cannot read them ({error})"
            ) from error
    return found


def is_done(folder: Path, as_of: dt.date, key: Mapping[str, Any]) -> bool:
    """Whether the scores of a refit are there.

    Raises:
        ValueError: they are, measured with another recipe, other bars, rows or days.
    """
    path = folder / f"{as_of}.json"
    if not path.is_file():
        return False
    about = json.loads(path.read_text(encoding="utf-8"))
    differ = [name for name, value in key.items() if about.get(name) != value]
    if differ:
        raise ValueError(
            f"{path}: these scores were measured with another {', '.join(differ)}. Give --results another folder"
        )
    return True


def _write_forecasts(probabilities: Mapping[str, Array], samples: PanelSamples, path: Path) -> None:
    assert samples.samples is not None
    columns = {
        f"{name} {side}": pl.Series(p[:, i], dtype=pl.Float32)
        for name, p in probabilities.items()
        for i, side in enumerate(("sell", "hold", "buy"))
    }
    write_atomically(path, samples.samples.with_columns(**columns).write_parquet)
