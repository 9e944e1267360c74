"""The panel: every bar of every stock in one typed, sorted, validated table; and the market's own calendar.

Words: a *bar* is one stock's open, high, low, close (KRW) and volume (shares) on one day. A *halted* day is a day
on which the stock did not trade (volume 0, or open = high = low = 0 as the exchange's files write it); it is not a
row of the panel. One stock's rows are a *segment*; `segment_starts` gives their borders for numpy code.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property

import dataframely as dy
import numpy as np
import polars as pl
from dataframely.exc import ValidationError
from loguru import logger

from lasps.data.exchange import beyond_limit
from lasps.terminal import in_words

PRICES = ("open", "high", "low", "close")
BAR_COLUMNS = ("code", "date", *PRICES, "volume")
_TYPES = {"code": pl.String, "date": pl.Date, **dict.fromkeys(PRICES, pl.Float64), "volume": pl.Int64}

ROUNDING = 0.01
"""A close outside low..high by at most 1 % or 1 won (the exchange's smallest tick) is rounding: guess, not tuned. The
exchange's ticks are at most 0.5 % of prices above 200 won; adjustment rounds each price on its own."""

CALENDAR_MEMORY = 20
"""Dates whose median number of traded stocks says how many to expect on a market day: guess, not tuned."""


class PanelSchema(dy.Schema):
    """Types and row rules of a panel; `validate_panel` adds the sort order."""

    code = dy.String(primary_key=True, min_length=1)
    date = dy.Date(primary_key=True)
    open = dy.Float64(min_exclusive=0, allow_inf=False, allow_nan=False)
    high = dy.Float64(min_exclusive=0, allow_inf=False, allow_nan=False)
    low = dy.Float64(min_exclusive=0, allow_inf=False, allow_nan=False)
    close = dy.Float64(min_exclusive=0, allow_inf=False, allow_nan=False)
    volume = dy.Int64(min=1)

    @dy.rule()
    def high_not_below_low(cls) -> pl.Expr:
        return pl.col("high") >= pl.col("low")


@dataclass(frozen=True)
class PanelReport:
    """What `make_panel` read, dropped and repaired, as row counts.

    `outside_rows` have their open or close outside low..high by more than rounding; they are left as they came, for
    the integrity gate to check. `halts` holds (code, date) of the dropped halted rows.
    """

    rows_read: int
    rows: int
    empty_rows: int
    halted_rows: int
    unsorted_rows: int
    widened_rows: int
    outside_rows: int
    halts: pl.DataFrame = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, int]:
        """The counts, ready for JSON."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "halts"}


def make_panel(raw: pl.DataFrame) -> tuple[pl.DataFrame, PanelReport]:
    """Turn raw bars into a panel: typed, sorted by (code, date), halted days dropped, rounding repaired; all counted.

    Args:
        raw: columns code, date, open, high, low, close, volume in any numeric type and any order; dates as Date or
            Datetime. Rows without any value (`is_empty`) are dropped.

    Returns:
        The panel (columns `BAR_COLUMNS`; prices Float64 in KRW, volume Int64 in shares) and the report.

    Raises:
        ValueError: a missing column, an untypable one, duplicate (code, date) keys, a traded row with some of its
            values missing, with a price that is not positive or with its high below its low, or nothing left.
    """
    bars = _typed(raw)
    halted = is_halted()
    present = bars.filter(~is_empty())
    _refuse_missing_values(present.filter(~halted))
    _refuse_duplicates(present)
    ordered = present.sort("code", "date")
    halts = ordered.filter(halted)
    panel, widened, outside = _widen_rounding(ordered.filter(~halted))
    if panel.is_empty():
        raise ValueError(
            f"no traded bar among {raw.height} rows: {halts.height} halted, {raw.height - present.height} empty"
        )
    validate_panel(panel)
    report = PanelReport(
        rows_read=raw.height,
        rows=panel.height,
        empty_rows=raw.height - present.height,
        halted_rows=halts.height,
        unsorted_rows=_unsorted_rows(present),
        widened_rows=widened,
        outside_rows=outside,
        halts=halts.select("code", "date"),
    )
    done = {name: n for name, n in report.to_dict().items() if name not in ("rows", "rows_read")}
    logger.info(
        "Panel: {:,} stocks, {:,} of {:,} rows read; seen to: {}",
        panel["code"].n_unique(),
        panel.height,
        raw.height,
        in_words(done),
    )
    return panel, report


def is_empty() -> pl.Expr:
    """True for a row without any value: no price, and no volume or 0. It is no bar, whatever wrote it into the file.

    Tables stacked from a download of many stocks have such rows before a listing and after a delisting; reader, gate
    and panel share this rule. A row with shares but no price is not empty, it is broken. NaN counts as missing.
    """
    missing = (pl.col(c).is_null() | pl.col(c).cast(pl.Float64).is_nan() for c in PRICES)
    volume = pl.col("volume").cast(pl.Float64).fill_nan(None).fill_null(0)
    return pl.all_horizontal(*missing) & (volume == 0)


def is_halted() -> pl.Expr:
    """True for a day without trading: volume 0, or open = high = low = 0 with the last close, as KRX files have it."""
    zero_bar = pl.all_horizontal(pl.col("open", "high", "low") == 0)
    return ((pl.col("volume") == 0) | zero_bar).fill_null(False)


def validate_panel(panel: pl.DataFrame) -> pl.DataFrame:
    """Return the panel unchanged if it keeps `PanelSchema` and is sorted by (code, date); extra columns may stand.

    Raises:
        ValueError: what is broken, how often, with examples.
    """
    missing = [name for name in BAR_COLUMNS if name not in panel.columns]
    if missing:
        raise ValueError(
            f"a panel needs the columns {list(BAR_COLUMNS)}; missing: {missing}; run make_panel on raw bars"
        )
    bars = panel.select(BAR_COLUMNS)
    if dict(bars.schema) != _TYPES:
        raise ValueError(f"a panel has the types {_TYPES}; got {dict(bars.schema)}; run make_panel on raw bars")
    try:
        PanelSchema.validate(bars)
    except ValidationError as error:
        _, failures = PanelSchema.filter(bars)
        examples = failures.invalid().head(3).rows()
        raise ValueError(
            f"not a valid panel: {dict(failures.counts())}; first rows: {examples}; mask these days "
            "(repair mask_day) or pull the stocks again"
        ) from error
    if unsorted := _unsorted_rows(bars):
        raise ValueError(f"a panel is sorted by (code, date); {unsorted} rows are not in place; run make_panel")
    return panel


@dataclass(frozen=True)
class Panel:
    """A validated panel with what labels, samples and features read of it, each computed once.

    Attributes:
        frame: as `make_panel` returns it; further columns (`sector`) may stand.
    """

    frame: pl.DataFrame = field(repr=False)

    @classmethod
    def of(cls, table: Panel | pl.DataFrame) -> Panel:
        """A panel as it is, or the one of a frame."""
        return table if isinstance(table, Panel) else cls(table)

    @cached_property
    def starts(self) -> np.ndarray:
        """First row of every stock, and the number of rows at the end: int64 (stocks + 1,)."""
        return segment_starts(self.frame)

    @cached_property
    def stock_of_row(self) -> np.ndarray:
        """The number of each row's stock: int64 (R,)."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    @cached_property
    def positions(self) -> np.ndarray:
        """Each row's place in its stock's history, 0 for the first: int64 (R,)."""
        return np.arange(self.frame.height) - self.starts[self.stock_of_row]

    @cached_property
    def calendar(self) -> np.ndarray:
        """The market's own days (`market_calendar`): datetime64[D], sorted."""
        return market_calendar(self.frame)

    @cached_property
    def limit_breaks(self) -> np.ndarray:
        """Rows whose close jumps beyond the price limit of the day (`beyond_limit`): bool (R,), False on first rows."""
        close = self.frame["close"].to_numpy()
        before = np.concatenate([close[:1], close[:-1]])
        before[self.starts[:-1]] = np.nan
        return beyond_limit(close, before, self.frame["date"].to_numpy())


def segment_starts(panel: pl.DataFrame) -> np.ndarray:
    """First row of every stock's segment, and the number of rows at the end: int64 (stocks + 1,)."""
    changes = (panel["code"] != panel["code"].shift()).fill_null(True).to_numpy()
    return np.append(np.flatnonzero(changes), panel.height)


def market_calendar(traded: pl.DataFrame) -> np.ndarray:
    """The market's own days, datetime64[D] sorted: dates on which at least half as many stocks trade as usual.

    Labels, forecasts and the integrity gate all take it from here. "As usual" is the median count of the last
    `CALENDAR_MEMORY` dates up to that one, so a date's verdict never depends on a later row.

    Args:
        traded: one row per stock and day with trading, with `date`: a panel, or raw bars without their halted rows.
    """
    counts = traded.group_by("date").len().sort("date").filter(pl.col("date").is_not_null())
    usual = pl.col("len").cast(pl.Float64).rolling_median(CALENDAR_MEMORY, min_samples=1)
    return counts.filter(pl.col("len") >= 0.5 * usual)["date"].to_numpy()


def _typed(raw: pl.DataFrame) -> pl.DataFrame:
    missing = [name for name in BAR_COLUMNS if name not in raw.columns]
    if missing:
        raise ValueError(f"bars need the columns {list(BAR_COLUMNS)}; missing: {missing}; found: {raw.columns}")
    if not (raw["date"].dtype == pl.Date or isinstance(raw["date"].dtype, pl.Datetime)):
        raise ValueError(f"column date must hold dates, got {raw['date'].dtype}; read the file with files.read_bars")
    for name in (*PRICES, "volume"):
        if not raw[name].dtype.is_numeric():
            raise ValueError(
                f"column {name} must be numeric, got {raw[name].dtype}; read the file with files.read_bars"
            )
    shares = pl.col("volume").cast(pl.Float64).fill_nan(None)
    whole = pl.when((shares > 0) & (shares < 1)).then(1).otherwise(shares.round())
    return raw.select(
        pl.col("code").cast(pl.String).str.strip_chars(),
        pl.col("date").cast(pl.Date),
        *(pl.col(name).cast(pl.Float64).fill_nan(None) for name in PRICES),
        whole.cast(pl.Int64).alias("volume") if raw["volume"].dtype.is_float() else pl.col("volume").cast(pl.Int64),
    )


def _refuse_missing_values(bars: pl.DataFrame) -> None:
    holes = bars.filter(pl.any_horizontal(pl.all().is_null()))
    if holes.height:
        raise ValueError(
            f"{holes.height} bars have some values missing, e.g. {holes.head(3).rows()}; complete or drop them"
        )


def _refuse_duplicates(bars: pl.DataFrame) -> None:
    keys = bars.group_by("code", "date").len().filter(pl.col("len") > 1).sort("code", "date")
    if keys.height:
        examples = ", ".join(f"{code} {day} x{n}" for code, day, n in keys.head(5).rows())
        raise ValueError(
            f"{keys.height} (code, date) keys occur more than once: {examples}; keep one row per stock and day"
        )


def _unsorted_rows(bars: pl.DataFrame) -> int:
    """Rows that come before their predecessor by (code, date)."""
    code, before = pl.col("code"), pl.col("code").shift()
    back = (code < before) | ((code == before) & (pl.col("date") < pl.col("date").shift()))
    return int(bars.select(back.sum()).item() or 0)


def _widen_rounding(bars: pl.DataFrame) -> tuple[pl.DataFrame, int, int]:
    """Widen high and low to hold open and close where these lie outside by rounding; counts (widened, left outside)."""
    top, bottom = pl.max_horizontal("open", "close"), pl.min_horizontal("open", "close")
    excess = pl.max_horizontal(top - pl.col("high"), pl.col("low") - bottom)
    rounding = (excess > 0) & (excess <= pl.max_horizontal(ROUNDING * pl.col("close"), pl.lit(1.0)))
    outside = (excess > 0) & ~rounding
    counts = bars.select(rounding.sum().alias("widened"), outside.sum().alias("outside")).row(0)
    widened = bars.with_columns(
        high=pl.when(rounding).then(pl.max_horizontal("high", top)).otherwise("high"),
        low=pl.when(rounding).then(pl.min_horizontal("low", bottom)).otherwise("low"),
    )
    return widened, int(counts[0]), int(counts[1])


def bar_rows(panel: pl.DataFrame) -> np.ndarray:
    """Open, high, low, close and volume of every row as the charts read them: float32 (R, 5)."""
    return np.stack([panel[name].to_numpy().astype(np.float32) for name in (*PRICES, "volume")], axis=1)
