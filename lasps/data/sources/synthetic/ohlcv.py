"""From latent prices to bars as the exchange would print them, with the signals written into volume, wicks and gaps."""

import numpy as np

from lasps.data.sources.synthetic.exchange import limits, round_to_tick
from lasps.data.sources.synthetic.latent import Latent, Stocks, random_stream
from lasps.data.sources.synthetic.parameters import Parameters

VOLUME_PER_LOG_VOLATILITY = 0.3  # busy days are volatile days; guess, not tuned
VOLUME_PER_MOVE = 0.05  # per |return| in base volatilities, capped; guess, not tuned
LOG_WICKS = 0.35  # both wicks together, log of base volatilities at z = 0
WIDTH_PER_LOG_VOLATILITY = 0.4


def make_bars(seed: int, stocks: Stocks, latent: Latent, p: Parameters) -> dict[str, np.ndarray]:
    """open, high, low, close in won and volume in shares, each (T, N); values of untraded days mean nothing."""
    close, low_limit, high_limit = _closes(latent)
    a, ret, shape = stocks.base_volatility, latent.log_return, latent.log_price.shape
    z_volume, z_width, z_asymmetry, z_overnight = latent.signals

    def noise(name: str) -> np.ndarray:
        return random_stream(seed, name).standard_normal(shape)

    # The gap moves only the open: close to close carries nothing of it (cf. Lou, Polk & Skouras 2019, "A tug of war").
    gap = p.overnight_share_of_return * ret
    gap = gap + a * (p.signal_overnight * z_overnight + p.noise_overnight * noise("overnight"))
    open_ = round_to_tick(np.exp(latent.log_price - ret + gap)).clip(low_limit, high_limit)

    log_width = LOG_WICKS + WIDTH_PER_LOG_VOLATILITY * latent.log_volatility
    log_width = log_width + p.signal_in_width * z_width + p.noise_in_width * noise("wick_width")
    width = a * np.exp(log_width)
    lean = p.signal_in_asymmetry * z_asymmetry + p.noise_in_asymmetry * noise("wick_asymmetry")
    upper_share = 1 / (1 + np.exp(-lean))
    high = round_to_tick(np.maximum(open_, close) * np.exp(width * upper_share)).clip(low_limit, high_limit)
    low = round_to_tick(np.minimum(open_, close) * np.exp(-width * (1 - upper_share))).clip(low_limit, high_limit)

    log_volume = stocks.log_volume + VOLUME_PER_LOG_VOLATILITY * latent.log_volatility
    log_volume = log_volume + p.signal_in_volume * z_volume + p.noise_in_volume * noise("volume")
    log_volume = log_volume + VOLUME_PER_MOVE * np.minimum(np.abs(ret) / a, 5)
    volume = np.maximum(np.floor(np.exp(log_volume)), 1).astype(np.int64)
    return {"open": open_, "high": high, "low": low, "close": close, "volume": volume}


def _closes(latent: Latent) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rounded closes held within the limit of the last close, and that day's two limits; each (T, N).

    The latent price goes on unheld, so a held close catches up on the following days.
    """
    rounded = round_to_tick(np.exp(latent.log_price))
    close, low_limit, high_limit = (np.empty_like(rounded) for _ in range(3))
    base = rounded[0]  # before its first day a stock's latent price stands at its start
    for day, traded in enumerate(latent.traded):
        low_limit[day], high_limit[day] = limits(base)
        base = np.where(traded, rounded[day].clip(low_limit[day], high_limit[day]), base)
        close[day] = base
    return close, low_limit, high_limit
