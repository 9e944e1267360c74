"""Every feature: name, group, what it says, how far it looks back, and the function.

All are causal (a row's value depends on that row and earlier rows of its stock, and on other stocks' rows of that day)
and scale-free (a stock at ten times the price has the same values). "Log" is the natural logarithm; a day is a traded
row. Volatility and range are logarithms of levels, so that how volatile a stock is survives into the input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lasps.config.dataset_config import WINDOW
from lasps.data.features.cross_section import DayGroups
from lasps.data.features.rolling import SMALLEST_RATIO, Array, RollingBars, lag

SCORE_GROUPS = ("score", "sector score")


@dataclass(frozen=True)
class Feature:
    """One column of the model's input.

    Attributes:
        name: column name.
        group: return, volatility, trend, oscillator, volume, candle, relative, rank, sector, score, sector score
            or mask.
        doc: what it says.
        lookback: earlier rows of the stock it needs; with fewer it is NaN. RSI and MACD also remember older rows, with
            weights that fade exponentially.
        of_stock: from one stock's bars; or
        of_day: from the values of the feature `base` across the stocks of the day.
    """

    name: str
    group: str
    doc: str
    lookback: int
    of_stock: Callable[[RollingBars], Array] | None = None
    of_day: Callable[[np.ndarray, DayGroups], np.ndarray] | None = None
    base: str | None = None

    @property
    def is_scaled(self) -> bool:
        """Whether the robust scaler touches it: ranks, scores and the mask are already on their scale."""
        return self.group not in ("rank", "mask") and not self.is_score

    @property
    def is_score(self) -> bool:
        """Whether it is a Gauss score, which a dataset stores in one byte (see `scores`)."""
        return self.group in SCORE_GROUPS

    @property
    def needs_sectors(self) -> bool:
        """Whether it compares a stock with its sector."""
        return self.group.startswith("sector")


def _return(days: int) -> Feature:
    return Feature(f"return_{days}", "return", f"log return over {days} days", days, lambda b: b.log - lag(b.log, days))


def _log_floored(x: Array) -> Array:
    return np.log(np.maximum(x, SMALLEST_RATIO))


def _volatility(days: int) -> Feature:
    doc = f"log of the standard deviation (ddof 1) of the last {days} daily log returns"
    return Feature(f"log_volatility_{days}", "volatility", doc, days, lambda b: _log_floored(b.volatility(days)))


def _true_range(days: int) -> Feature:
    doc = f"log of the average true range (log high over low, with yesterday's close) of {days} days"
    return Feature(f"log_atr_{days}", "volatility", doc, days, lambda b: _log_floored(b.mean("true_range", days)))


def _average(days: int) -> Feature:
    doc = f"log of close over its {days}-day average"
    return Feature(f"ma_{days}", "trend", doc, days - 1, lambda b: b.log - np.log(b.mean("close", days)))


def _high(days: int) -> Feature:
    doc = f"log of close over the highest high of {days} days, <= 0"
    return Feature(f"high_{days}", "trend", doc, days - 1, lambda b: b.log - b.highest("high", days))


def _low(days: int) -> Feature:
    doc = f"log of close over the lowest low of {days} days, >= 0"
    return Feature(f"low_{days}", "trend", doc, days - 1, lambda b: b.log - b.lowest("low", days))


def _volume(days: int) -> Feature:
    doc = f"log of volume over its {days}-day average"
    return Feature(f"volume_{days}", "volume", doc, days - 1, lambda b: b.log_volume - np.log(b.mean("volume", days)))


def _obv(days: int) -> Feature:
    doc = f"change of on-balance volume over {days} days, as a share of their volume, -1..1"
    return Feature(
        f"obv_{days}", "volume", doc, days, lambda b: b.total("signed_volume", days) / b.total("volume", days)
    )


def _share(part: Array, whole: Array) -> Array:
    """part / whole, 0 where whole is 0."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _rank(base: str, lookback: int) -> Feature:
    doc = f"rank of {base} among the stocks of the day (average ties), -0.5..0.5"
    return Feature(f"rank_{base}", "rank", doc, lookback, of_day=lambda x, days: days.rank(x), base=base)


def _relative(base: str, lookback: int) -> Feature:
    doc = f"{base} minus its mean over all stocks of the day"
    return Feature(f"relative_{base}", "relative", doc, lookback, of_day=lambda x, day: day.minus_market(x), base=base)


def _against_sector(base: str, lookback: int) -> Feature:
    doc = f"{base} minus its mean over the stocks of the sector on the day"
    return Feature(f"sector_{base}", "sector", doc, lookback, of_day=lambda x, days: days.minus_sector(x), base=base)


def _scores(feature: Feature) -> tuple[Feature, Feature]:
    """A stock's own feature as Gauss scores: among all stocks of the day, and among those of its sector."""
    doc = f"normal quantile of the rank of {feature.name} among the stocks of the"
    day = Feature(
        f"score_{feature.name}",
        "score",
        f"{doc} day",
        feature.lookback,
        of_day=lambda x, days: days.score(x),
        base=feature.name,
    )
    sector = Feature(
        f"sector_score_{feature.name}",
        "sector score",
        f"{doc} sector on the day",
        feature.lookback,
        of_day=lambda x, days: days.sector_score(x),
        base=feature.name,
    )
    return day, sector


LONGEST = WINDOW - 1
"""Earlier rows of a window: the longest look-back."""

_BEFORE_SCORES: tuple[Feature, ...] = (
    *(_return(days) for days in (1, 2, 3, 5, 10, 20, 40, LONGEST)),
    *(_volatility(days) for days in (5, 10, 20, LONGEST)),
    *(_true_range(days) for days in (5, 20, LONGEST)),
    *(_average(days) for days in (5, 20, 60)),
    *(_high(days) for days in (20, 60)),
    *(_low(days) for days in (20, 60)),
    Feature("rsi_14", "oscillator", "RSI(14) on a scale of -1..1", 14, lambda b: b.rsi / 50 - 1),
    Feature("macd", "oscillator", "MACD(12, 26) in 20-day average true ranges", 33, lambda b: b.macd[0]),
    Feature("macd_signal", "oscillator", "MACD's 9-day signal in 20-day average true ranges", 33, lambda b: b.macd[1]),
    Feature("macd_histogram", "oscillator", "MACD minus signal in 20-day average true ranges", 33, lambda b: b.macd[2]),
    Feature(
        "bollinger_upper",
        "oscillator",
        "upper band (20 days, 2 deviations) over close, minus 1",
        19,
        lambda b: (b.mean("close", 20) + 2 * b.deviation(20)) / b.close - 1,
    ),
    Feature(
        "bollinger_middle",
        "oscillator",
        "distance of close from the middle band in half band widths",
        19,
        lambda b: (b.close - b.mean("close", 20)) / (2 * b.deviation(20)),
    ),
    Feature(
        "bollinger_lower",
        "oscillator",
        "lower band (20 days, 2 deviations) over close, minus 1",
        19,
        lambda b: (b.mean("close", 20) - 2 * b.deviation(20)) / b.close - 1,
    ),
    Feature(
        "bollinger_width",
        "oscillator",
        "log of the band's width (4 deviations) over the middle band",
        19,
        lambda b: np.log(4 * b.deviation(20) / b.mean("close", 20)),
    ),
    *(_obv(days) for days in (5, 20)),
    Feature("volume_1", "volume", "log of volume over yesterday's", 1, lambda b: b.log_volume - lag(b.log_volume, 1)),
    *(_volume(days) for days in (5, 20, 60)),
    Feature("gap", "candle", "log of open over yesterday's close", 1, lambda b: b.open_log - b.previous),
    Feature(
        "gap_share",
        "candle",
        "gap as a share of the day's true range, -1..1",
        1,
        lambda b: _share(b.open_log - b.previous, np.maximum(b.high, b.previous) - np.minimum(b.low, b.previous)),
    ),
    Feature("body", "candle", "log of close over open", 0, lambda b: b.log - b.open_log),
    Feature(
        "log_range",
        "candle",
        "log of the day's range (log high over low)",
        0,
        lambda b: _log_floored(b.high - b.low),
    ),
    Feature(
        "upper_shadow",
        "candle",
        "upper shadow as a share of the range",
        0,
        lambda b: _share(b.upper_shadow, b.high - b.low),
    ),
    Feature(
        "lower_shadow",
        "candle",
        "lower shadow as a share of the range",
        0,
        lambda b: _share(b.lower_shadow, b.high - b.low),
    ),
    Feature(
        "log_shadows",
        "candle",
        "log of both shadows' length",
        0,
        lambda b: _log_floored(b.upper_shadow + b.lower_shadow),
    ),
    *(_relative(f"return_{days}", days) for days in (1, 5, 20)),
    *(_relative(f"log_volatility_{days}", days) for days in (5, 20)),
    *(_relative(f"volume_{days}", days - 1) for days in (5, 20)),
    *(_relative(name, lookback) for name, lookback in (("gap", 1), ("body", 0), ("log_range", 0))),
    *(_relative(f"{side}_shadow", 0) for side in ("upper", "lower")),
    _rank("return_1", 1),
    _rank("return_5", 5),
    _rank("return_20", 20),
    _rank("log_volatility_20", 20),
    _rank("volume_20", 19),
    _against_sector("return_1", 1),
    _against_sector("return_5", 5),
    _against_sector("return_20", 20),
    Feature(
        "observed",
        "mask",
        "1 if every look-back is defined, else 0; never NaN",
        0,
        lambda b: (b.position >= LONGEST) * 1.0,
    ),
)

LEFT_OUT = (
    *("return_2", "return_3", "return_40", "log_volatility_10", "log_atr_5", "high_20", "low_20"),
    *("macd", "bollinger_upper", "bollinger_lower", "volume_1"),
    *("sector_return_1", "sector_return_5", "sector_return_20"),
)
"""What the default set does without: close to a combination of its neighbours, or of no use on val."""

FEATURES: tuple[Feature, ...] = (
    *_BEFORE_SCORES,
    *(
        score
        for f in _BEFORE_SCORES
        if f.of_stock and f.group != "mask" and f.name not in LEFT_OUT
        for score in _scores(f)
    ),
)
"""Every feature; the scores, of the default set's own features, come last."""

DEFAULT_FEATURES: tuple[str, ...] = tuple(f.name for f in FEATURES if f.name not in LEFT_OUT)
"""32 of a stock alone, 12 relative to the day's market, 5 ranks, the mask, and the scores of the 32 among the day's
stocks and among those of the sector. The first 50 were chosen by LightGBM's log loss on *val* (63
leaves, rate 0.05, 500 per leaf, early stopping on val itself; last-day features; train subsampled to 168,344 and
161,827 rows, krx-2010s' val halved):

    set                              columns   krx-2020s   krx-2010s
    prior (no feature)                     0      1.0674      1.0207
    20 bins of 20-day volatility           1      1.0168      0.9865
    every feature of a stock alone        43      1.0011      0.9707
    with the 5 ranks and the mask         49      0.9932      0.9700
    with ranks and sector distances       51      0.9934      0.9696
    32 of a stock alone, ranks, mask      38      0.9930      0.9704

and once more with 420,417 (all) and 270,156 training rows, all of val:

    32 of a stock alone, ranks, mask      38      0.9919      0.9697
    those 50, with 12 relative ones       50      0.9811      0.9698

and the scores, with all training rows and all of val, by the same trees (log loss / rank IC):

    without scores                        50      0.9811 / .0918   0.9684 / .1210
    with those among the day's stocks     82      0.9787 / .0963   0.9685 / .1221
    with those within the sector          82      0.9819 / .0943   0.9683 / .1237
    this default, with both              114      0.9786 / .0962   0.9680 / .1248
"""
