"""The exchange's rules applied to latent prices: rounding, the daily limit, and where a close counts as +3 %."""

import numpy as np

from lasps.config.dataset_config import THRESHOLD
from lasps.data.exchange import LIMIT_SINCE, tick_size

DAILY_LIMIT_PERCENT = round(100 * LIMIT_SINCE)
THRESHOLD_PERCENT = round(100 * THRESHOLD)


def round_to_tick(price: np.ndarray) -> np.ndarray:
    """Nearest valid price in won (halves up), at least 1 won."""
    tick = tick_size(price)
    return np.maximum(np.floor(price / tick + 0.5) * tick, 1.0)


def limits(base_price: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest valid price of the day after a close of base_price (whole won)."""
    low = (100 - DAILY_LIMIT_PERCENT) * base_price / 100
    high = (100 + DAILY_LIMIT_PERCENT) * base_price / 100
    return _ceil_to_tick(low), _floor_to_tick(high)


def label_borders(close: np.ndarray, percent: int = THRESHOLD_PERCENT) -> tuple[np.ndarray, np.ndarray]:
    """Unrounded prices (sell, buy) at which the rounded close 5 days later changes its class.

    A price at or above `buy` rounds to a close with 100*(c5-c0) >= percent*c0, a price below `sell` to one with
    100*(c5-c0) <= -percent*c0. Closes are whole won, so the comparison is exact.
    """
    close = np.asarray(close, dtype=np.float64)
    lowest_buy = _ceil_to_tick((100 + percent) * close / 100)
    highest_sell = _floor_to_tick((100 - percent) * close / 100)
    tick_below = tick_size(np.nextafter(lowest_buy, 0))
    return highest_sell + tick_size(highest_sell) / 2, lowest_buy - tick_below / 2


def _ceil_to_tick(price: np.ndarray) -> np.ndarray:
    whole = np.ceil(price)
    tick = tick_size(whole)
    return np.ceil(whole / tick) * tick


def _floor_to_tick(price: np.ndarray) -> np.ndarray:
    whole = np.floor(price)
    tick = tick_size(whole)
    return np.maximum(np.floor(whole / tick) * tick, 1.0)
