"""From a market to a dataset folder: source -> panel -> universe -> integrity gate -> features, labels, windows.

Two ways in, one way on: the synthetic market whose truth is known, and files of a real one.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from loguru import logger

from lasps.data import integrity
from lasps.data.build import build_dataset, extend_dataset
from lasps.data.panel import make_panel
from lasps.data.sources.files import read_bars, read_listing
from lasps.data.sources.synthetic import OracleForecast, SyntheticMarket, make_market
from lasps.data.splits import PROTOCOLS, Borders, fraction_borders
from lasps.data.universe import select_universe
from lasps.reproducibility import sha256_of

PRESETS: dict[str, dict[str, Any]] = {
    "default": {"market": {}, "stride": {"train": 12, "val": 6, "test": 6}},
    "tiny": {"market": {"n_stocks": 80, "n_days": 420}, "stride": {"train": 4, "val": 3, "test": 3}},
}
"""Sizes of the synthetic dataset: `default` is trained in minutes on two cores, `tiny` in seconds (CI)."""

N_PATHS = 2_000
"""Of the oracle; the Gaussian part of the returns is integrated in closed form."""

SOURCE_FOLDER = "source"
"""Where a synthetic market's own files stand inside its dataset: bars.parquet and listing.csv, as a real source's."""


@dataclass(frozen=True)
class BuildOptions:
    """What a build can be told, whatever the source."""

    out_dir: Path
    universe: str = "common"
    features: tuple[str, ...] | None = None
    chart_size: tuple[int, int] = (96, 180)
    horizon: int = 5
    threshold: float = 0.03
    stride: int | dict[str, int] = 1
    train_fraction: float = 1.0
    materialize: bool = False
    force: bool = False
    waive: tuple[str, ...] = ()
    repairs: Path | None = None
    embargo_days: int = 0
    extend: bool = False
    """Add new days to the dataset in out_dir: its options, borders and scaler stay (`extend_dataset`)."""

    def for_build(self) -> dict[str, Any]:
        """The part that lasps.data.build takes."""
        names = ("features", "chart_size", "horizon", "threshold", "stride", "train_fraction", "materialize", "force",
                 "embargo_days")
        return {name: getattr(self, name) for name in names}


def build_synthetic(out_dir: Path, preset: str = "default", seed: int = 7, effect: str = "sector",
                    materialize: bool = True, force: bool = False) -> dict[str, Any]:
    """Build the synthetic dataset, with the oracle's probabilities beside every sample.

    Returns:
        The content of dataset.json.

    Raises:
        ValueError: an unknown preset or effect, or a dataset of another fingerprint stands there already.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    size = PRESETS[preset]
    logger.info(f"Synthetic market: seed {seed}, effect {effect}, preset {preset}")
    market = make_market(seed=seed, effect=effect, **size["market"])
    options = BuildOptions(out_dir, stride=size["stride"], materialize=materialize, force=force)
    description = build_from_bars(market.panel, market.listing, Borders.from_dict(market.borders),
                                  market.describe() | {"preset": preset}, options, oracle=stated(market))
    folder = Path(out_dir) / SOURCE_FOLDER
    folder.mkdir(exist_ok=True)
    market.panel.write_parquet(folder / "bars.parquet")
    market.listing.write_csv(folder / "listing.csv")
    return description


def stated(market: SyntheticMarket) -> Callable[[pl.Series, pl.Series], OracleForecast]:
    """The market's oracle, saying how exact its probabilities are."""

    def oracle(codes: pl.Series, dates: pl.Series) -> OracleForecast:
        forecast = market.oracle(codes, dates, N_PATHS)
        error = forecast.standard_error
        logger.info(f"Oracle: {len(codes)} rows, {N_PATHS} variance paths each, Monte-Carlo standard error of a "
                    f"probability {error.mean():.5f} on average, {error.max():.5f} at most")
        return forecast

    return oracle


def build_from_files(source: Path, listing: Path | None, borders: Borders | None, options: BuildOptions,
                     pad_codes: bool = False) -> dict[str, Any]:
    """Build a dataset from files of a real market; see lasps.data.sources.files for the forms they may have.

    Args:
        borders: of the splits; None: 70 / 15 / 15 % of the market's days.

    Raises:
        ValueError, FileNotFoundError: unreadable files, fatal integrity findings, a dataset of another fingerprint.
    """
    bars = read_bars(source, pad_codes=pad_codes)
    names = read_listing(listing, pad_codes=pad_codes) if listing is not None else None
    about = {"name": Path(source).name, "sha256": sha256_of(source) if Path(source).is_file() else None,
             "listing": None if listing is None else Path(listing).name}
    return build_from_bars(bars, names, borders, about, options)


def build_from_bars(bars: pl.DataFrame, listing: pl.DataFrame | None, borders: Borders | None, source: dict[str, Any],
                    options: BuildOptions, oracle: Any = None) -> dict[str, Any]:
    """Raw bars and a listing -> a dataset folder that passed the integrity gate."""
    if listing is None:
        raise ValueError("expected a listing (code, name, market, industry), got none: sectors come from its "
                         "industries. Name the file with --listing.")
    bars, repaired = repair(bars, options.repairs)
    panel, panel_report = make_panel(bars)
    selected, counts = select_universe(panel, listing, options.universe)
    logger.info(f"Universe {options.universe}: {counts}")
    report = integrity.check(selected, listing, raw=bars)
    report.raise_if_fatal(waived=options.waive)
    source = source | {"panel": panel_report.to_dict(), "universe": {"name": options.universe, **counts},
                       "repairs": repaired, "waived": list(options.waive)}
    if options.extend:
        description = extend_dataset(options.out_dir, selected, source=source, listing=listing, integrity=report,
                                     test_end=borders.test_end if borders else last_day(selected))
        check_finished(report, options)
        return description
    description = build_dataset(selected, options.out_dir, borders=borders or fraction_borders(selected["date"]),
                                source=source, listing=listing, oracle=oracle, integrity=report, **options.for_build())
    check_finished(report, options)
    return description


def last_day(panel: pl.DataFrame) -> dt.date:
    """The panel's last date."""
    return panel["date"].sort()[-1]


def repair(bars: pl.DataFrame, repairs: Path | None) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The bars after the repairs that a file lists (experiments/check_data.py --suggest-repairs), and their counts."""
    if repairs is None:
        return bars, {}
    return integrity.apply_repairs(bars, integrity.read_repairs(repairs))


def check_finished(report: integrity.IntegrityReport, options: BuildOptions) -> None:
    """Look at the finished dataset too, and write the whole report beside it as integrity.html."""
    finished = integrity.check(dataset=options.out_dir)
    whole = integrity.IntegrityReport(report.findings + finished.findings, report.figures | finished.figures,
                                      tuple(options.waive))
    print(whole.text())
    logger.info(f"Saved: {whole.write_html(Path(options.out_dir) / 'integrity.html', 'Data integrity')}")
    finished.raise_if_fatal(waived=options.waive)


def borders_from(protocol: str | None, days: dict[str, str] | None) -> Borders | None:
    """The borders of a named protocol or of literal days; None where neither is given.

    Raises:
        ValueError: an unknown protocol, both given, or days that are not in order.
    """
    if protocol and days:
        raise ValueError("give --protocol or the split days, not both")
    if protocol and protocol not in PROTOCOLS:
        raise ValueError(f"--protocol: expected one of {', '.join(PROTOCOLS)}, got {protocol!r}")
    if protocol:
        return PROTOCOLS[protocol]
    return Borders.from_dict(days) if days else None
