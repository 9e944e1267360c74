"""From a market to a dataset folder: source -> panel -> universe -> integrity gate -> features, labels, windows.

Two ways in, one way on: the synthetic market whose truth is known, and files of a real one.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl
from loguru import logger

from lasps.data import integrity
from lasps.data.build import build_dataset
from lasps.data.datasets.description import read_description
from lasps.data.errors import explained
from lasps.data.extension import extend_dataset, with_former_stocks
from lasps.data.panel import make_panel
from lasps.data.sources.files import read_bars_counted, read_listing
from lasps.data.sources.synthetic import OracleForecast, SyntheticMarket, make_market
from lasps.data.sources.values import Decimal
from lasps.data.spec import DatasetSpec
from lasps.data.splits import PROTOCOLS, Borders, fraction_borders, walk_forward_borders
from lasps.data.universe import select_universe, stored_markets
from lasps.reproducibility import sha256_of, write_atomically
from lasps.terminal import in_words

PRESETS: dict[str, dict[str, Any]] = {
    "default": {"market": {}, "stride": {"train": 12, "val": 6, "test": 6}},
    "tiny": {"market": {"n_stocks": 80, "n_days": 420}, "stride": {"train": 4, "val": 3, "test": 3}},
}
"""Sizes of the synthetic dataset: `default` is trained in minutes on two cores, `tiny` in seconds (CI)."""

REPORT_NAME = "integrity.html"
Choice = Borders | Callable[[pl.Series], Borders] | None
"""Borders, or how to choose them from the days in the data."""

N_PATHS = 2_000
"""Of the oracle; the Gaussian part of the returns is integrated in closed form."""

SYNTHETIC = "synthetic"
"""The name under which `SyntheticMarket.describe` makes itself known as a dataset's source."""

SOURCE_FOLDER, SOURCE_FILES = "source", ("bars.parquet", "listing.csv")
"""Where a synthetic market's own files stand inside its dataset, as a real source's."""


@dataclass(frozen=True)
class BuildOptions:
    """What a build can be told, whatever the source."""

    out_dir: Path
    spec: DatasetSpec = field(default_factory=DatasetSpec)
    """Without borders: those are chosen from the days in the data."""
    universe: str = "common"
    markets: tuple[str, ...] | None = None
    """As `select_universe` takes them."""
    force: bool = False
    waive: tuple[str, ...] = ()
    repairs: Path | None = None
    extend: bool = False
    """Add new days to the dataset in out_dir: its universe, options, borders and scaler stay (`extend_dataset`)."""
    test_end: dt.date | None = None
    """Of an extension; None: the last day of the bars."""


def build_synthetic(
    out_dir: Path,
    preset: str = "default",
    seed: int = 7,
    effect: str = "sector",
    materialize: bool = True,
    force: bool = False,
) -> dict[str, Any]:
    """Build the synthetic dataset, with the oracle's probabilities beside every sample.

    Returns:
        The content of dataset.json.

    Raises:
        ValueError: an unknown preset or effect, or a dataset of another fingerprint stands there already; one of a
            real market is not replaced even with `force`.
    """
    refuse_real_market(Path(out_dir))
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    size = PRESETS[preset]
    logger.info(f"Synthetic market: seed {seed}, effect {effect}, preset {preset}")
    market = make_market(seed=seed, effect=effect, **size["market"])
    options = BuildOptions(out_dir, DatasetSpec(stride=size["stride"], materialize=materialize), force=force)
    description = build_from_bars(
        market.panel,
        market.listing,
        Borders.from_dict(market.borders),
        market.describe() | {"preset": preset},
        options,
        oracle=stated(market),
    )
    bars, listing = (Path(out_dir) / SOURCE_FOLDER / name for name in SOURCE_FILES)
    write_atomically(bars, market.panel.write_parquet)
    write_atomically(listing, market.listing.write_csv)
    return description


def refuse_real_market(out_dir: Path) -> None:
    """Raise ValueError if a real market's dataset stands in `out_dir`: a synthetic one never takes its place."""
    standing = read_description(out_dir)
    name = SYNTHETIC if standing is None else (standing.get("source") or {}).get("name")
    if name != SYNTHETIC:
        raise ValueError(
            f"{out_dir} holds a real market's dataset (made from {name}), which a synthetic market never "
            "replaces. Name its --source and --listing, choose another folder with --data-dir, or remove "
            "the dataset yourself"
        )


def holds_dataset(data_dir: Path) -> bool:
    """Whether a dataset stands in a folder, of ours or four bare arrays per split, after finishing what a kill left."""
    return read_description(data_dir) is not None or (data_dir / "train" / "labels.npy").is_file()


def synthetic_source(data_dir: Path) -> tuple[Path, Path]:
    """Bars and listing of the synthetic market in `data_dir`.

    Raises:
        ValueError: the dataset there is of a real market, whose bars are not kept in it; or there is none.
    """
    description = read_description(data_dir)
    name = None if description is None else description["source"].get("name")
    if name != SYNTHETIC:
        found = "no dataset.json" if description is None else f"a dataset made from {name}"
        raise ValueError(
            f"{data_dir}: expected a synthetic market, whose bars stand beside its samples, found "
            f"{found}. Name the bars with --source and the listing with --listing."
        )
    bars, listing = (Path(data_dir) / SOURCE_FOLDER / file for file in SOURCE_FILES)
    return bars, listing


def stated(market: SyntheticMarket) -> Callable[[pl.Series, pl.Series], OracleForecast]:
    """The market's oracle, saying how exact its probabilities are."""

    def oracle(codes: pl.Series, dates: pl.Series) -> OracleForecast:
        forecast = market.oracle(codes, dates, N_PATHS)
        error = forecast.standard_error
        logger.info(
            f"Oracle: {len(codes):,} rows, {N_PATHS:,} paths each; standard error of a probability "
            f"{error.mean():.5f} on average"
        )
        return forecast

    return oracle


def build_from_files(
    source: Path,
    listing: Path | None,
    borders: Choice,
    options: BuildOptions,
    pad_codes: bool = False,
    signed_prices: bool = False,
    decimal: Decimal | None = None,
) -> dict[str, Any]:
    """Build a dataset from files of a real market; see lasps.data.sources.files for the forms they may have.

    Args:
        borders: of the splits, or a function of the days in the data; None: 70 / 15 / 15 % of them.
        pad_codes, signed_prices, decimal: as `read_bars` takes them.

    Raises:
        ValueError, FileNotFoundError: unreadable files, fatal integrity findings, a dataset of another fingerprint.
    """
    bars, read = read_bars_counted(source, pad_codes, signed_prices, decimal)
    names = read_listing(listing, pad_codes=pad_codes) if listing is not None else None
    about = {
        "name": Path(source).name,
        "sha256": sha256_of(source) if Path(source).is_file() else None,
        "listing": None if listing is None else Path(listing).name,
        "read": read,
    }
    return build_from_bars(bars, names, borders, about, options)


def build_from_bars(
    bars: pl.DataFrame,
    listing: pl.DataFrame | None,
    borders: Choice,
    source: dict[str, Any],
    options: BuildOptions,
    oracle: Any = None,
) -> dict[str, Any]:
    """Raw bars and a listing -> a dataset folder that passed the integrity gate.

    The report is printed and written by every build: beside a finished dataset as integrity.html, beside the folder
    that was not made as NAME.integrity.html.
    """
    if listing is None:
        raise ValueError(
            "expected a listing (code, name, market, industry), got none: sectors come from its "
            "industries. Name the file with --listing."
        )
    integrity.validate_waivers(options.waive)
    universe, markets = universe_of(options)
    if options.extend:
        listing = with_former_stocks(listing, options.out_dir, markets)
    bars, repaired = repair(bars, options.repairs)
    seen = look_at(bars, listing, universe, options.waive, markets)
    with reported_if_stopped(seen.report, options):
        seen.report.raise_if_fatal(options.waive)
        panel = seen.selected()
    check = FolderCheck(seen.report, options)
    source = (
        source
        | seen.about
        | {"universe": {"name": universe, **seen.about["universe"]}, "repairs": repaired, "waived": list(options.waive)}
    )
    if options.extend:
        description = extend_dataset(
            options.out_dir,
            panel,
            source=source,
            listing=listing,
            check=check,
            test_end=options.test_end or last_day(panel),
        )
    else:
        chosen = borders(panel["date"]) if callable(borders) else borders or fraction_borders(panel["date"])
        description = build_dataset(
            panel,
            options.out_dir,
            replace(options.spec, borders=chosen),
            source=source,
            listing=listing,
            force=options.force,
            oracle=oracle,
            check=check,
        )
    publish(check.report, Path(options.out_dir) / REPORT_NAME)
    return description


@dataclass
class Look:
    """What the raw bars of a build look like: the report, and the chosen stocks' panel if they make one."""

    report: integrity.IntegrityReport
    about: dict[str, dict[str, Any]]
    """Counts for dataset.json: of panel, universe and what waivers accepted."""
    panel: pl.DataFrame | None = None
    failure: ValueError | None = None

    def selected(self) -> pl.DataFrame:
        """The panel with sectors. Raises ValueError where none could be made."""
        if self.failure is not None:
            raise self.failure
        assert self.panel is not None
        return self.panel


def look_at(
    bars: pl.DataFrame,
    listing: pl.DataFrame | None,
    universe: str = "common",
    waive: Sequence[str] = (),
    markets: Sequence[str] | None = None,
    forecast_rows: int | None = None,
) -> Look:
    """Check raw bars (all, or what a forecast of their last day reads), make the panel and select the universe."""
    panel, failure = None, None
    about: dict[str, dict[str, Any]] = {}
    try:
        with explained("the panel", "one traded bar with four prices and a volume per stock and day"):
            accepted, about["accepted"] = integrity.accept(bars, waive)
            panel, panel_report = make_panel(accepted)
            about["panel"] = panel_report.to_dict()
            if listing is not None:
                panel, about["universe"] = select_universe(panel, listing, universe, markets)
    except ValueError as error:
        panel, failure = None, error
    report = integrity.check(panel, listing, raw=bars, forecast_rows=forecast_rows)
    if failure is not None and not report.fatal:
        report.findings.append(integrity.no_panel(failure))
    return Look(report, about, panel, failure)


@dataclass
class FolderCheck:
    """The gate of the finished dataset before it is put in place; `report` grows by what it finds there."""

    report: integrity.IntegrityReport
    options: BuildOptions

    def __call__(self, folder: Path) -> dict[str, Any]:
        finished = integrity.check(dataset=folder)
        self.report = integrity.IntegrityReport(
            self.report.findings + finished.findings,
            self.report.plot_data | finished.plot_data,
            tuple(self.options.waive),
        )
        with reported_if_stopped(self.report, self.options):
            self.report.raise_if_fatal(self.options.waive)
        return self.report.to_dict()


@contextmanager
def reported_if_stopped(report: integrity.IntegrityReport, options: BuildOptions) -> Iterator[None]:
    """Publish the report beside the folder that is not made, if an error stops the build inside the block."""
    try:
        yield
    except ValueError:
        out = Path(options.out_dir)
        try:
            publish(report, out.with_name(f"{out.name}.{REPORT_NAME}"))
        except OSError as error:
            logger.warning(f"{error}")
        raise


def publish(report: integrity.IntegrityReport, page: Path) -> None:
    """Print the report and write it as HTML."""
    print(integrity.as_text(report))
    logger.info(f"Saved: {integrity.write_html(report, page)}")


def universe_of(options: BuildOptions) -> tuple[str, tuple[str, ...] | None]:
    """Universe and markets of a build: those asked for, of an extension those of the dataset."""
    known = (read_description(options.out_dir) or {}).get("universe") if options.extend else None
    return (known["name"], stored_markets(known)) if isinstance(known, dict) else (options.universe, options.markets)


def last_day(panel: pl.DataFrame) -> dt.date:
    """The panel's last date."""
    return panel["date"].sort()[-1]


def repair(bars: pl.DataFrame, repairs: Path | None) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The bars after the repairs that a file lists (experiments/check_data.py --suggest-repairs), and their counts."""
    if repairs is None:
        return bars, {}
    with explained(repairs, "repairs that fit these bars"):
        bars, done = integrity.apply_repairs(bars, integrity.read_repairs(repairs))
    logger.info(f"Repaired rows: {in_words(done['rows'])}")
    return bars, done


def borders_from(
    protocol: str | None = None,
    days: Mapping[str, str] | None = None,
    shares: Sequence[float] | None = None,
    fold: Fold | None = None,
) -> Choice:
    """The borders of a named protocol, of literal days, by shares of the days or of a walk-forward fold.

    Args:
        shares: of train and val; the rest is test.

    Returns:
        Borders, or a function that finds them from the days in the data; None where nothing is given.

    Raises:
        ValueError: an unknown protocol, more than one of them, or days that are not in order.
    """
    given = [
        name
        for name, value in (("--protocol", protocol), ("split days", days), ("--fractions", shares), ("--fold", fold))
        if value
    ]
    if len(given) > 1:
        raise ValueError(f"the splits are told in one way; got {' and '.join(given)}")
    if protocol and protocol not in PROTOCOLS:
        raise ValueError(f"--protocol: expected one of {', '.join(PROTOCOLS)}, got {protocol!r}")
    if protocol:
        return PROTOCOLS[protocol]
    if shares:
        return lambda dates: fraction_borders(dates, *shares)
    if fold is not None:
        return fold.borders
    return Borders.from_dict(days) if days else None


@dataclass(frozen=True)
class Fold:
    """The `number`-th of `folds` walk-forward folds, the earliest is 1; see `walk_forward_borders`.

    Raises:
        ValueError: a number outside 1..folds.
    """

    number: int
    folds: int
    val_days: int
    test_days: int
    train_days: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.folds:
            raise ValueError(f"--fold: expected 1/N to N/N, got {self.number}/{self.folds}")

    def borders(self, dates: pl.Series) -> Borders:
        """Its borders among the days in the data."""
        every = walk_forward_borders(dates, self.folds, self.val_days, self.test_days, self.train_days)
        return every[self.number - 1]
