"""Small markets with a known truth, to check what the comparison claims: returns, labels, features, forecasts.

Not the default dataset's market (lasps.data.sources.synthetic): here a market is arrays made in milliseconds, so that
a thousand of them can be evaluated. Returns have fat tails, a market factor, a volatility that clusters in time,
signals that fade over days, and closes that bounce between bid and ask.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.special import ndtr, ndtri

from lasps.config.dataset_config import HORIZON, THRESHOLD
from lasps.evaluation.forecast import Forecast

Array = NDArray[np.float64]
PERSISTENCE = 0.8  # of a signal from day to day: its edge halves in three days (guess)
DAILY_VOLATILITY = 0.02  # with the spread between stocks below, class shares near those of KRX
MARKET_SHARE = 0.3  # of a stock's daily standard deviation
BOUNCE = 0.0075  # of the close: makes yesterday's loser win by a rank IC of 0.1, as on krx-2010s


def _autoregressive(rng: np.random.Generator, shape: tuple[int, ...], persistence: float) -> Array:
    """Stationary AR(1) of unit variance along axis 0, fat-tailed enough for nobody to care where it starts."""
    warm = 60
    shocks = rng.standard_normal((shape[0] + warm, *shape[1:])) * np.sqrt(1 - persistence**2)
    return np.asarray(lfilter([1.0], [1.0, -persistence], shocks, axis=0))[warm:]


def _normal_quantiles(n: int) -> Array:
    """(n,) equally likely values of a standard normal: markets then differ in their days, not in their stocks."""
    return np.asarray(ndtri((np.arange(n) + 0.5) / n))


@dataclass(frozen=True)
class SimulatedMarket:
    """T days of N stocks. signals (T, N, K); volatility (T, N) daily, known at t; last_return (T, N);
    forward_return, forward_return_skip1 and next_return (T, N); labels (T, N); sectors (N,); mean (T, N): the expected
    5-day return given the signals.
    """

    signals: Array
    volatility: Array
    last_return: Array
    next_return: Array
    forward_return: Array
    forward_return_skip1: Array
    labels: NDArray[np.int64]
    sectors: NDArray[np.int64]
    mean: Array

    def features(self) -> Array:
        """(T * N, K + 2): the signals, log volatility and the last return in units of volatility."""
        parts = [*np.moveaxis(self.signals, -1, 0), np.log(self.volatility), self.last_return / self.volatility]
        return np.stack([p.ravel() for p in parts], axis=1)

    def forecast(self, probabilities: Array) -> Forecast:
        """A Forecast of (T * N, 3) probabilities on this market."""
        n_days, n_stocks = self.labels.shape
        first = dt.date(2024, 1, 1)
        return Forecast(
            p=probabilities,
            labels=self.labels.ravel(),
            sectors=np.tile(self.sectors, n_days),
            day=np.repeat(np.arange(n_days), n_stocks),
            dates=[first + dt.timedelta(days=d) for d in range(n_days)],
            forward_return=self.forward_return.ravel(),
            forward_return_skip1=self.forward_return_skip1.ravel(),
            volatility=self.volatility.ravel(),
            codes=np.tile(np.arange(n_stocks), n_days),
        )


def simulate_market(
    rng: np.random.Generator,
    n_days: int,
    n_stocks: int,
    coefficients: Array,
    bounce: float = BOUNCE,
) -> SimulatedMarket:
    """A market in which stocks of sector s earn coefficients[s] . signals (in volatilities a day), fading.

    Args:
        coefficients: (S, K); stocks are dealt to the sectors in turn.
    """
    n_sectors, n_signals = coefficients.shape
    total = n_days + HORIZON + 2
    sectors = np.arange(n_stocks) % n_sectors
    signals = _autoregressive(rng, (total, n_stocks, n_signals), PERSISTENCE)
    edge = np.einsum("tnk,nk->tn", signals, coefficients[sectors])
    regime = 0.3 * _autoregressive(rng, (total, 1), 0.95)
    volatility = DAILY_VOLATILITY * np.exp(0.4 * rng.permutation(_normal_quantiles(n_stocks)) + regime)
    own = rng.standard_t(5, (total, n_stocks)) * np.sqrt(0.6 * (1 - MARKET_SHARE**2))
    common = rng.standard_t(5, (total, 1)) * np.sqrt(0.6) * MARKET_SHARE
    returns = np.zeros((total, n_stocks))
    returns[1:] = volatility[1:] * (own[1:] + common[1:] + edge[:-1])
    returns = np.clip(returns, -0.3, 0.3)  # the daily limit
    log_close = np.cumsum(np.log1p(returns), axis=0) + bounce * rng.standard_normal((total, n_stocks))
    days = slice(1, n_days + 1)
    forward = np.expm1(log_close[1 + HORIZON : n_days + 1 + HORIZON] - log_close[days])
    skip = np.expm1(log_close[2 + HORIZON : n_days + 2 + HORIZON] - log_close[2 : n_days + 2])
    fade = sum(PERSISTENCE**h for h in range(HORIZON))
    return SimulatedMarket(
        signals=signals[days],
        volatility=volatility[days],
        sectors=sectors,
        last_return=np.diff(log_close, axis=0)[:n_days],
        next_return=np.diff(log_close, axis=0)[1 : n_days + 1],
        forward_return=forward,
        forward_return_skip1=skip,
        labels=np.where(forward >= THRESHOLD, 2, np.where(forward <= -THRESHOLD, 0, 1)),
        mean=volatility[days] * edge[days] * fade,
    )


def normal_probabilities(mean: Array, volatility: Array) -> Array:
    """(T * N, 3) class probabilities of a normal 5-day return: a forecaster who knows these two numbers."""
    spread = volatility * np.sqrt(HORIZON)
    p_sell, p_buy = ndtr((-THRESHOLD - mean) / spread), ndtr((mean - THRESHOLD) / spread)
    return np.stack([p_sell.ravel(), 1 - (p_sell + p_buy).ravel(), p_buy.ravel()], axis=1)


def leaked_feature(rng: np.random.Generator, market: SimulatedMarket, strength: float) -> Array:
    """(T * N,) the next day's return, standardised by day, plus noise: its correlation with it is `strength`."""
    r = market.next_return
    z = (r - r.mean(axis=1, keepdims=True)) / r.std(axis=1, keepdims=True)
    return (strength * z + np.sqrt(1 - strength**2) * rng.standard_normal(r.shape)).ravel()


def persistent_noise(
    rng: np.random.Generator, shape: tuple[int, int], persistence: float = 0.9, shared: float = 0.5
) -> Array:
    """(T, N) a forecaster's error of unit variance that lasts for days; `shared` of its variance is one error about
    the whole market, so that stocks do not average it away.
    """
    own, common = (_autoregressive(rng, s, persistence) for s in (shape, (shape[0], 1)))
    return np.sqrt(1 - shared) * own + np.sqrt(shared) * common
