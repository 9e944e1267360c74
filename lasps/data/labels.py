"""What happens next: SELL, HOLD or BUY over the next `horizon` traded days, and the forward returns behind it.

The rule, for a threshold of 3 %: 100 (c5 - c0) >= 3 c0 is BUY (2), 100 (c5 - c0) <= -3 c0 is SELL (0), else HOLD (1);
c0 is the close of the row, c5 the close `horizon` traded rows later. With whole won on both sides the comparison is
exact: 10,000 -> 10,300 is BUY, 10,299 HOLD, 9,700 SELL. Adjusted prices that are not whole are compared as they are.

What only the future can tell is flagged, never used to drop a row:

* `label_spans_halt`: the market had more than `horizon` days between the row and its label's last day;
* `label_spans_break`: a close in between jumped beyond the day's price limit (relisting, wrong adjustment);
* `label_cut_short`: the stock stopped trading within the horizon, so its last price counts. "Stopped" means that the
  market's calendar went on for at least `horizon` days after the stock's last row; the label's last day is the
  `horizon`-th of these, the day on which one knows. If such a stock resumes trading later, its label becomes the
  ordinary one. A stock whose future simply has not happened yet has no label.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import polars as pl

from lasps.config.dataset_config import HORIZON, THRESHOLD
from lasps.data.panel import Panel

SELL, HOLD, BUY = 0, 1, 2
FLAGS = ("label_spans_halt", "label_spans_break", "label_cut_short")


def make_labels(panel: Panel | pl.DataFrame, horizon: int = HORIZON, threshold: float = THRESHOLD) -> pl.DataFrame:
    """Labels and forward returns, one row per panel row, in the panel's order.

    Args:
        panel: sorted by (code, date); needs code, date, close.
        horizon: traded rows ahead, >= 1.
        threshold: simple return that makes a BUY (and, negative, a SELL), > 0.

    Returns:
        label Int8 (0, 1, 2), forward_return Float64 (c5 / c0 - 1), forward_return_skip1 Float64 (c6 / c1 - 1),
        label_end Date; null where not yet known. The three `FLAGS` Boolean, False where there is no label.

    Raises:
        ValueError: a horizon below 1 or a threshold not above 0.
    """
    if horizon < 1 or not threshold > 0:
        raise ValueError(f"expected horizon >= 1 and threshold > 0, got horizon={horizon}, threshold={threshold}")
    panel = Panel.of(panel)
    close, dates = panel.frame["close"].to_numpy().astype(np.float64), panel.frame["date"].to_numpy()
    row, calendar, last = np.arange(panel.frame.height), panel.calendar, panel.starts[1:] - 1
    known_end = _stop_known(dates[last], calendar, horizon)[panel.stock_of_row]
    stopped = ~np.isnat(known_end)
    last_row = last[panel.stock_of_row]

    ahead, one, past_one = row + horizon, row + 1, row + 1 + horizon
    cut = (ahead > last_row) & stopped
    known = (ahead <= last_row) | stopped
    end_row = np.minimum(ahead, last_row)
    skip_known = (one <= last_row) & ((past_one <= last_row) | stopped)
    start, skip_end = close[np.minimum(one, last_row)], close[np.minimum(past_one, last_row)]
    label_end = np.where(cut, known_end, dates[end_row])
    days = np.searchsorted(calendar, dates[end_row], side="right") - np.searchsorted(calendar, dates, side="right")
    breaks = np.cumsum(panel.limit_breaks)
    return pl.DataFrame(
        {
            "label": classify(close, close[end_row], threshold),
            "forward_return": close[end_row] / close - 1.0,
            "forward_return_skip1": np.where(skip_known, skip_end / start - 1.0, np.nan),
            "label_end": label_end,
            "label_spans_halt": (days > horizon) & known,
            "label_spans_break": (breaks[end_row] > breaks) & known,
            "label_cut_short": cut,
        }
    ).with_columns(
        pl.when(pl.Series(known)).then(pl.col("label", "forward_return", "label_end")),
        pl.col("forward_return_skip1").fill_nan(None),
    )


def classify(start: np.ndarray, end: np.ndarray, threshold: float = THRESHOLD) -> np.ndarray:
    """SELL 0, HOLD 1 or BUY 2 for closes `start` -> `end`, int8; exact for whole prices (both sides are integers)."""
    fraction = Fraction(str(threshold))
    gain, bar = fraction.denominator * (end - start), fraction.numerator * start
    return np.where(gain >= bar, BUY, np.where(gain <= -bar, SELL, HOLD)).astype(np.int8)


def _stop_known(last_dates: np.ndarray, calendar: np.ndarray, horizon: int) -> np.ndarray:
    """The `horizon`-th market day after each last trading day, datetime64[D]; NaT if that day has not come."""
    place = np.searchsorted(calendar, last_dates, side="right") + horizon - 1
    reached = place < len(calendar)
    days = calendar[np.minimum(place, len(calendar) - 1)]
    return np.where(reached, days, np.datetime64("NaT", "D"))
