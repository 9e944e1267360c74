"""The latent market: fading signals, volatilities and unrounded log prices, simulated from separate random streams.

Per stock i of sector s, on its traded day t of calendar date d:

    x_t = x_{t-1} + a_i * (drift_d + effect_size * beta_s . z_{t-1})          planted: yesterday's signals
          + b_i * m_d + g_{s,d} + a_i * exp(h_t) * sqrt(w_t) * e_t            market, sector, the stock's own shock
    m_d = sigma_d * exp(H_d) * sqrt(v_d) * e_d,   g_{s,d} = sector_factor * sigma_d * exp(H_d) * e_{s,d}

z, h and H are autoregressions of order 1, e Gaussian, w and v inverse-gamma so that sqrt(w) e is Student t with unit
variance. Given h, H, w and v everything is Gaussian: the oracle rests on that. z and h stand still while a stock is
halted. Nothing feeds back from prices to signals. All arrays are (T days, N stocks) unless a docstring says otherwise.
"""

from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

from lasps.data.sources.synthetic.parameters import SIGNALS, Parameters

STREAMS = (
    "coefficients",
    "stocks",
    "halts",
    "halt_lengths",
    "market_log_volatility",
    "market_mixing",
    "market_shock",
    "sector_shock",
    "log_volatility",
    "mixing",
    "shock",
    "volume",
    "wick_width",
    "wick_asymmetry",
    "overnight",
    "oracle",
    "order",
    *(f"signal_{name}" for name in SIGNALS),
)


def random_stream(seed: int, name: str) -> np.random.Generator:
    """The generator of one named quantity: a longer market repeats a shorter one's days."""
    return np.random.default_rng(np.random.SeedSequence([seed, STREAMS.index(name)]))


@dataclass(frozen=True)
class Stocks:
    """What never changes about the stocks; every array (N,)."""

    sector: np.ndarray
    base_volatility: np.ndarray  # a_i
    market_beta: np.ndarray  # b_i
    log_volume: np.ndarray  # mean log shares a day
    start_log_price: np.ndarray
    first_day: np.ndarray  # calendar index of the listing


@dataclass(frozen=True)
class Latent:
    """The state behind the bars. NaN nowhere; days on which a stock does not trade repeat its last state."""

    traded: np.ndarray  # bool
    log_price: np.ndarray
    log_return: np.ndarray  # 0 on untraded days and on the first
    log_volatility: np.ndarray  # h
    signals: np.ndarray  # (K, T, N)
    market_log_volatility: np.ndarray  # H, (T,)
    regime_volatility: np.ndarray  # sigma_d, (T,)
    regime_drift: np.ndarray  # drift_d, (T,)


def draw_stocks(seed: int, sizes: np.ndarray, p: Parameters) -> Stocks:
    """Stocks in random sector order, with characteristics that have the same distribution in every sector."""
    rng = random_stream(seed, "stocks")
    n = int(sizes.sum())
    sector = random_stream(seed, "order").permutation(np.repeat(np.arange(len(sizes)), sizes))
    late = rng.random(n) < p.late_listing_share
    return Stocks(
        sector=sector,
        base_volatility=p.base_volatility * np.exp(p.base_volatility_spread * rng.standard_normal(n)),
        market_beta=1 + p.market_beta_spread * rng.uniform(-1, 1, n),
        log_volume=11.5 + 1.1 * rng.standard_normal(n),
        start_log_price=np.log(p.start_price_median) + p.start_price_spread * rng.standard_normal(n),
        first_day=np.where(late, rng.integers(1, p.late_listing_last_day + 1, n), 0),
    )


def simulate(seed: int, stocks: Stocks, beta: np.ndarray, n_days: int, regime_day: int, p: Parameters) -> Latent:
    """The whole latent market; beta (S, K), the second regime from calendar index regime_day on."""
    n, n_sectors = len(stocks.sector), len(beta)
    traded = _trading_days(seed, stocks.first_day, n_days, p)
    position = np.maximum(np.cumsum(traded, axis=0) - 1, 0)  # index of the stock's own, traded time

    def in_calendar(own_time: np.ndarray) -> np.ndarray:
        return np.take_along_axis(own_time, position, axis=0)

    drawn = [
        _autoregression(seed, f"signal_{name}", (n_days, n), phi, 1.0)
        for name, phi in zip(SIGNALS, p.signal_persistence, strict=True)
    ]
    own = _autoregression(seed, "log_volatility", (n_days, n), p.log_volatility_persistence, p.log_volatility_spread)
    log_volatility = in_calendar(own - p.log_volatility_spread**2)
    signals = np.stack([in_calendar(z) for z in drawn])

    sigma, drift = regime_paths(np.arange(n_days), regime_day, p)
    market_h = _autoregression(seed, "market_log_volatility", (n_days, 1), p.market_persistence, p.market_spread)[:, 0]
    market_h -= p.market_spread**2
    factor_sd = sigma * np.exp(market_h)
    market = factor_sd * _student(seed, "market_mixing", "market_shock", (n_days,), p)
    sector = (
        p.sector_factor * factor_sd[:, None] * random_stream(seed, "sector_shock").standard_normal((n_days, n_sectors))
    )

    effect = np.einsum("ktn,nk->tn", signals, beta[stocks.sector])
    planted = np.vstack([np.zeros((1, n)), effect[:-1]])  # an untraded day repeats the last traded state
    shock = np.exp(log_volatility) * _student(seed, "mixing", "shock", (n_days, n), p)
    log_return = stocks.base_volatility * (drift[:, None] + p.effect_size * planted + shock)
    log_return += stocks.market_beta * market[:, None] + sector[:, stocks.sector]
    first = np.cumsum(traded, axis=0) == 1
    log_return = np.where(traded & ~first, log_return, 0.0)
    return Latent(
        traded=traded,
        log_price=stocks.start_log_price + np.cumsum(log_return, axis=0),
        log_return=log_return,
        log_volatility=log_volatility,
        signals=signals,
        market_log_volatility=market_h,
        regime_volatility=sigma,
        regime_drift=drift,
    )


def regime_paths(day: np.ndarray, regime_day: int, p: Parameters) -> tuple[np.ndarray, np.ndarray]:
    """Market volatility and drift on calendar days (of any shape), by date alone."""
    late = day >= regime_day
    volatility = np.where(late, p.after.market_volatility, p.before.market_volatility)
    return volatility, np.where(late, p.after.drift, p.before.drift)


def inverse_gamma_mixing(rng: np.random.Generator, shape: tuple[int, ...], degrees_of_freedom: float) -> np.ndarray:
    """Variances with mean 1 that turn a Gaussian into a Student t of unit variance."""
    return (degrees_of_freedom - 2) / rng.chisquare(degrees_of_freedom, shape)


def _student(seed: int, mixing: str, shock: str, shape: tuple[int, ...], p: Parameters) -> np.ndarray:
    variance = inverse_gamma_mixing(random_stream(seed, mixing), shape, p.degrees_of_freedom)
    return np.sqrt(variance) * random_stream(seed, shock).standard_normal(shape)


def _autoregression(seed: int, name: str, shape: tuple[int, int], phi: float, spread: float) -> np.ndarray:
    """Stationary AR(1) along axis 0 with standard deviation `spread` and mean 0."""
    innovation = np.sqrt(1 - phi**2) * random_stream(seed, name).standard_normal(shape)
    innovation[0] /= np.sqrt(1 - phi**2)
    return spread * lfilter([1.0], [1.0, -phi], innovation, axis=0)


def _trading_days(seed: int, first_day: np.ndarray, n_days: int, p: Parameters) -> np.ndarray:
    """True (T, N) where a stock trades: listed, and in no halt. Halts know nothing of prices."""
    shape = (n_days, len(first_day))
    begins = random_stream(seed, "halts").random(shape) < p.halt_probability
    length = random_stream(seed, "halt_lengths").integers(1, p.halt_days_max + 1, shape)
    traded = np.arange(n_days)[:, None] >= first_day
    for day, stock in np.argwhere(begins):
        traded[day : day + length[day, stock], stock] = False
    return traded
