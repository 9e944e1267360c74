#!/usr/bin/env python
"""What the integrity gate finds: one corruption of each kind at random places in clean files, and false alarms there.

    python experiments/verify_gate.py krx_2023_2025.parquet krx_2010_2016.parquet

A corruption counts as found when a check that should see it names the place (code and day, or the market's day) which
it does not name in the clean file. Each trial looks at 201 stocks, as checking a whole file 1,000 times takes hours:
what is found does not depend on that, whether it is fatal does, as thresholds are shares of the stocks.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from loguru import logger

from experiments._cli import positive_int, run_script
from experiments._results import RESULTS, write_result

REPORT = Path(__file__).parents[1] / "docs" / "gate.md"
MARGIN = 70
"""Traded rows that a place has on either side."""
CODES_ROUND = 200
"""Stocks in the part of a file that is checked for one corruption: thresholds are shares, checks are per stock."""
PRICES = ("open", "high", "low", "close")


@dataclass(frozen=True)
class Place:
    """A stock's day: `row` is its place in the stock's rows."""

    code: str
    day: date
    row: int


Damage = Callable[[pl.DataFrame, Place], pl.DataFrame]


def at(place: Place, since: int = 0, before: int = 1) -> pl.Expr:
    """The stock's rows from `since` to before `before`, counted from the place."""
    row = pl.int_range(pl.len()).over("code")
    return (pl.col("code") == place.code) & row.is_between(place.row + since, place.row + before - 1)


def change(raw: pl.DataFrame, here: pl.Expr, **new: pl.Expr | float) -> pl.DataFrame:
    """The table with other values in the rows `here`."""
    return raw.with_columns(**{name: pl.when(here).then(value).otherwise(pl.col(name)) for name, value in new.items()})


def rest(raw: pl.DataFrame, place: Place, days: int) -> pl.DataFrame:
    """The stock does not trade on the `days` rows before the place."""
    return change(raw, at(place, -days, 0), open=0.0, high=0.0, low=0.0, volume=0.0)


def prices_times(factor: float) -> dict[str, pl.Expr]:
    """All four prices times a factor."""
    return {name: pl.col(name) * factor for name in PRICES}


def on_date(day: date) -> pl.Expr:
    """The market's rows of a day."""
    return pl.col("date") == day


def filled_day(raw: pl.DataFrame, place: Place) -> pl.DataFrame:
    """Every bar of the place's day is the bar of the day before."""
    before = raw.filter(pl.col("date") < place.day)["date"].max()
    copies = raw.filter(on_date(before)).with_columns(date=pl.lit(place.day))  # type: ignore[arg-type]
    return pl.concat([raw.filter(~on_date(place.day)), copies]).sort("code", "date")


def half_a_last_day(raw: pl.DataFrame, place: Place) -> pl.DataFrame:
    """The file ends on the place's day, and only half of the market has it."""
    codes = raw["code"].unique().sort()
    half = pl.col("code").is_in(codes.gather_every(2).implode())
    return raw.filter((pl.col("date") < place.day) | (on_date(place.day) & half))


def running_last_day(raw: pl.DataFrame, place: Place) -> pl.DataFrame:
    """The file ends on the place's day, pulled when a twentieth of its volume was traded."""
    return change(raw.filter(pl.col("date") <= place.day), on_date(place.day), volume=(pl.col("volume") / 20).ceil())


def second_bar(raw: pl.DataFrame, place: Place) -> pl.DataFrame:
    """The row stands twice, with another close."""
    return pl.concat([raw, raw.filter(at(place)).with_columns(pl.col("close") * 1.01)])


def weekend_bar(raw: pl.DataFrame, place: Place) -> pl.DataFrame:
    """A copy of the row on the Sunday after."""
    sunday = place.day + timedelta(days=6 - place.day.weekday())
    return pl.concat([raw, raw.filter(at(place)).with_columns(date=pl.lit(sunday))]).sort("code", "date")


def halved_by_volume(factor: float, days: int) -> Damage:
    """Prices adjusted for a split after `days` without trading, the volume before as it was."""

    def damage(raw: pl.DataFrame, place: Place) -> pl.DataFrame:
        return change(rest(raw, place, days), at(place, -100_000, 0), volume=(pl.col("volume") / factor).ceil())

    return damage


KINDS: dict[str, tuple[tuple[str, ...], Damage]] = {
    "split 5:1 missed overnight": (
        ("scale_breaks", "limit_moves"),
        lambda r, p: change(r, at(p, 0, 100_000), **prices_times(0.2)),
    ),
    "split 5:1 missed across three halted days": (
        ("scale_breaks",),
        lambda r, p: change(rest(r, p, 3), at(p, 0, 100_000), **prices_times(0.2)),
    ),
    "split 2:1 missed overnight": (
        ("scale_breaks", "limit_moves"),
        lambda r, p: change(r, at(p, 0, 100_000), **prices_times(0.5)),
    ),
    "one day at twice the price": (
        ("stray_days", "scale_breaks", "limit_moves"),
        lambda r, p: change(r, at(p), **prices_times(2.0)),
    ),
    "high three times too high": (("impossible_ranges",), lambda r, p: change(r, at(p), high=pl.col("high") * 3)),
    "close 10 % above the high": (("prices_outside_range",), lambda r, p: change(r, at(p), close=pl.col("high") * 1.1)),
    "close 0": (("non_positive_prices",), lambda r, p: change(r, at(p), close=0.0)),
    "close negative": (("non_positive_prices",), lambda r, p: change(r, at(p), close=-pl.col("close"))),
    "volume infinite": (("non_positive_prices",), lambda r, p: change(r, at(p), volume=float("inf"))),
    "volume 0, prices as they were": (("unread_volume",), lambda r, p: change(r, at(p), volume=0.0)),
    "volume 1,000 times too large": (
        ("volume_outliers",),
        lambda r, p: change(r, at(p), volume=pl.col("volume") * 1000),
    ),
    "volume before a split 50:1 not adjusted, after a halt": (("volume_levels",), halved_by_volume(50, 3)),
    "volume before a split 10:1 not adjusted, after a halt": (("volume_levels",), halved_by_volume(10, 3)),
    "volume before a split 50:1 not adjusted, no halt": (("volume_levels",), halved_by_volume(50, 0)),
    "bar repeated": (
        ("repeated_bars",),
        lambda r, p: change(r, at(p), **{n: pl.col(n).shift(1) for n in (*PRICES, "volume")}),
    ),
    "close frozen for 12 days": (
        ("frozen_prices",),
        lambda r, p: change(r, at(p, 0, 12), close=pl.col("close").filter(at(p)).first()),
    ),
    "row twice with another close": (("duplicate_keys",), second_bar),
    "row on a Sunday": (("stray_dates",), weekend_bar),
    "row missing": (("calendar_gaps",), lambda r, p: r.filter(~at(p))),
    "market day missing": (("missing_days",), lambda r, p: r.filter(~on_date(p.day))),
    "market day filled with the day before": (("repeated_bars",), filled_day),
    "last day with half of the stocks": (("unfinished_last_day",), half_a_last_day),
    "last day with a twentieth of the volume": (("unfinished_last_day",), running_last_day),
}


def random_places(raw: pl.DataFrame, n: int, rng: np.random.Generator) -> list[Place]:
    """Traded days with a range, MARGIN rows away from either end of their stock."""
    row, size = pl.int_range(pl.len()).over("code"), pl.len().over("code")
    usable = raw.select(
        "code",
        "date",
        row=row,
        left=size - row,
        fine=(pl.col("volume") > 0) & (pl.col("high") > pl.col("low")) & (pl.col("low") > 0),
    ).filter((pl.col("row") >= MARGIN) & (pl.col("left") > MARGIN) & pl.col("fine"))
    chosen = usable[np.sort(rng.choice(usable.height, n, replace=False))]
    return [Place(code, day, at_row) for code, day, at_row in chosen.select("code", "date", "row").rows()]


def part_of(raw: pl.DataFrame, codes: list[str], code: str, rng: np.random.Generator) -> pl.DataFrame:
    """The rows of the code and of CODES_ROUND others."""
    chosen = rng.choice([other for other in codes if other != code], min(CODES_ROUND, len(codes) - 1), replace=False)
    return raw.filter(pl.col("code").is_in([code, *chosen]))


def named(part: pl.DataFrame, checks: tuple[str, ...]) -> tuple[set[tuple[str, str, str]], bool]:
    """(check, code, day) of everything that these checks name, and whether one of them is fatal."""
    from lasps.data.integrity import bars as prepared
    from lasps.data.integrity import findings
    from lasps.data.integrity.report import BAR_CHECKS

    findings.MAX_EXAMPLES = part.height  # all places, not the first five
    found = [check(prepared.prepare(part)) for check in BAR_CHECKS if check.__name__ in checks]
    places = {(finding.name, code, day) for finding in found for code, day, _ in finding.examples}
    return places, any(finding.severity == "fatal" for finding in found)


def tried(raw: pl.DataFrame, kind: str, places: int, seed: int) -> dict[str, Any]:
    """One kind at random places: how often it was found, and how often it was fatal."""
    rng = np.random.default_rng([seed, list(KINDS).index(kind)])
    checks, damage = KINDS[kind]
    codes = raw["code"].unique().sort().to_list()
    found = stopped = 0
    for place in random_places(raw, places, rng):
        part = part_of(raw, codes, place.code, rng)
        clean, was_fatal = named(part, checks)
        broken, is_fatal = named(damage(part, place), checks)
        near = {str(place.day + timedelta(days=shift)) for shift in range(-1, 8)}
        found += any(code in (place.code, "market") and day in near for _, code, day in broken - clean)
        stopped += is_fatal and not was_fatal
    return {"kind": kind, "checks": list(checks), "places": places, "found": found, "fatal": stopped}


def false_alarms(raw: pl.DataFrame, name: str) -> list[dict[str, Any]]:
    """What every check of bars says of the clean file."""
    from lasps.data import integrity

    report = integrity.check(raw=raw)
    return [
        {"file": name, "check": f.name, "severity": f.severity, "count": f.count, "n_checked": f.n_checked}
        for f in report.findings
        if f.count
    ]


def main() -> None:
    """Try every kind in every file; write the JSON and the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="clean files of bars, parquet")
    parser.add_argument("--places", type=positive_int, default=20, help="random places per kind and file")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, default=RESULTS / "gate.json", metavar="FILE")
    parser.add_argument("--report", type=Path, default=REPORT, metavar="FILE", help="the tables as markdown")
    args = parser.parse_args()
    from lasps.reproducibility import sha256_of, write_atomically

    rows, clean = [], []
    for path in args.files:
        raw = pl.read_parquet(path).with_columns(pl.col(*PRICES, "volume").cast(pl.Float64)).sort("code", "date")
        clean += false_alarms(raw, path.stem)
        for kind in KINDS:
            rows.append({"file": path.stem} | tried(raw, kind, args.places, args.seed))
            logger.info(f"{path.stem}: {kind}: found {rows[-1]['found']} of {args.places}, fatal {rows[-1]['fatal']}")
    result = {
        "codes_per_trial": CODES_ROUND + 1,
        "injected": rows,
        "clean_files": clean,
    }
    write_result(args.json, result, seeds=[args.seed], data={path.stem: sha256_of(path) for path in args.files})
    write_atomically(args.report, report(result))
    print(report(result))


def report(result: dict[str, Any]) -> str:
    """Both tables as markdown: what was found of what was injected, and what is said of the clean files."""
    files = list(dict.fromkeys(row["file"] for row in result["injected"]))
    names = " ".join(f"{name}.parquet" for name in files)
    lines = [
        "# Verification of the integrity gate",
        "",
        f"Written by `python experiments/verify_gate.py {names}`; numbers in `experiments/results/gate.json`.",
        "",
        "One corruption of each kind was put into a clean file at random places. It counts as found when a check names",
        f"its place, which it does not name in the clean file. A trial looks at {result['codes_per_trial']} stocks;",
        "what is found does not depend on that, what is fatal does: most thresholds are shares of the stocks, so one",
        "bad place stops a build of a whole market only where no panel could hold it.",
        "",
        "| corruption | checks | " + " | ".join(files) + " |",
        "|---|---|" + "---|" * len(files),
    ]
    for kind, (checks, _) in KINDS.items():
        of_kind = {row["file"]: row for row in result["injected"] if row["kind"] == kind}
        cells = [
            f"{of_kind[name]['found']} of {of_kind[name]['places']}, {of_kind[name]['fatal']} fatal"
            if name in of_kind
            else "not measured"
            for name in files
        ]
        lines.append(f"| {kind} | {', '.join(checks)} | {' | '.join(cells)} |")
    lines += [
        "",
        "What the gate says of the clean files. Nothing is fatal; what is named are real relistings, capital "
        "reductions and",
        "roundings, and there is no telling how many of them are errors of the source.",
        "",
        "| file | check | severity | count | of |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['file']} | {row['check']} | {row['severity']} | {row['count']:,} | {row['n_checked']:,} |"
        for row in result["clean_files"]
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_script(main)
