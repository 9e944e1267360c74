"""The exchange's rules: tick sizes, the daily limit, and the latent price above which a close counts as +3 %."""

import numpy as np

# Korea Exchange, all markets, since 2023-01-25: (prices below, tick in won); above the last one 1,000 won.
TICK_BORDERS = np.array([2_000, 5_000, 20_000, 50_000, 200_000, 500_000], dtype=np.float64)
TICK_SIZES = np.array([1, 5, 10, 50, 100, 500, 1_000], dtype=np.float64)
DAILY_LIMIT_PERCENT = 30  # since 2015-06-15


def tick_size(price: np.ndarray) -> np.ndarray:
    """Tick in won of each price in won."""
    return TICK_SIZES[np.searchsorted(TICK_BORDERS, price, side="right")]


def round_to_tick(price: np.ndarray) -> np.ndarray:
    """Nearest valid price in won (halves up), at least 1 won."""
    tick = tick_size(price)
    return np.maximum(np.floor(price / tick + 0.5) * tick, 1.0)


def limits(base_price: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest valid price of the day after a close of base_price (whole won)."""
    low = (100 - DAILY_LIMIT_PERCENT) * base_price / 100
    high = (100 + DAILY_LIMIT_PERCENT) * base_price / 100
    return _ceil_to_tick(low), _floor_to_tick(high)


def label_borders(close: np.ndarray, percent: int = 3) -> tuple[np.ndarray, np.ndarray]:
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
