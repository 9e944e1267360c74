"""The class probabilities given the state: an upper bound for every forecast from bars.

Given the variances of the next five days the sum of the five returns is Gaussian: its mean follows from today's
signals, its variance has a part from the signals' own future (closed form), one from the market, one from the stock.
Only the variance paths are simulated, the same ones for every row; the Gaussian part is integrated exactly.

Two things are left out. A close held at the daily limit within the five days: in three default markets (seeds 7, 8, 9;
900,000 rows) it held one close and changed no label. A halt within the five days (0.2 % of the rows), after which the
stock meets a somewhat later volatility of the market. The tests' plain simulation has both.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from lasps.config.dataset_config import HORIZON
from lasps.data.sources.synthetic.exchange import label_borders
from lasps.data.sources.synthetic.latent import inverse_gamma_mixing, random_stream
from lasps.data.sources.synthetic.parameters import Parameters

CHUNK_ROWS = 512  # rows x paths in cache


@dataclass(frozen=True)
class OracleForecast:
    """Probabilities (N, 3) of SELL, HOLD, BUY and their Monte-Carlo standard errors (N, 3)."""

    probabilities: np.ndarray
    standard_error: np.ndarray


@dataclass(frozen=True)
class RowStates:
    """All that the next five days depend on, of N rows."""

    close: np.ndarray  # won, rounded
    log_price: np.ndarray  # latent
    signals: np.ndarray  # (N, K)
    beta: np.ndarray  # (N, K)
    log_volatility: np.ndarray
    market_log_volatility: np.ndarray
    base_volatility: np.ndarray
    market_beta: np.ndarray
    future_volatility: np.ndarray  # (N, 5) the regime's sigma on the next five calendar days
    future_drift: np.ndarray  # (N, 5)


def drift_moments(rows: RowStates, p: Parameters) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (N,) of the five days' drift, over the signals' future."""
    phi = np.array(p.signal_persistence)
    days = np.arange(HORIZON)
    seen = (phi[:, None] ** days).sum(axis=1)  # z_t in the sum of z_t .. z_{t+4}
    # the innovation of day l = 1..4 enters z_{t+l} .. z_{t+4}
    weights = np.stack([(phi[:, None] ** np.arange(HORIZON - day)).sum(axis=1) for day in range(1, HORIZON)])
    unseen = (1 - phi**2) * (weights**2).sum(axis=0)
    mean = rows.future_drift.sum(axis=1) + p.effect_size * (rows.beta * rows.signals) @ seen
    variance = p.effect_size**2 * rows.beta**2 @ unseen
    return rows.base_volatility * mean, rows.base_volatility**2 * variance


def class_probabilities(rows: RowStates, n_paths: int, seed: int, p: Parameters) -> OracleForecast:
    """SELL, HOLD, BUY of each row, averaged over n_paths variance paths.

    Raises:
        ValueError: fewer than 2 paths.
    """
    if n_paths < 2:
        raise ValueError(f"n_paths: expected at least 2, got {n_paths}")
    mean, fixed_variance = drift_moments(rows, p)
    sell_border, buy_border = label_borders(rows.close)
    to_sell = np.log(sell_border) - rows.log_price - mean
    to_buy = np.log(buy_border) - rows.log_price - mean
    loadings, paths = _variance_loadings(rows, p), _variance_paths(n_paths, seed, p)
    probabilities = np.empty((len(mean), 3))
    errors = np.empty((len(mean), 3))
    for rows_of in _chunks(len(mean)):
        variance = torch.from_numpy(loadings[rows_of]) @ torch.from_numpy(paths)
        variance += torch.from_numpy(fixed_variance[rows_of, None])
        scale = variance.to(torch.float32).rsqrt_()
        sell = torch.special.ndtr(scale * torch.from_numpy(to_sell[rows_of, None]).float())
        buy = torch.special.ndtr(scale * torch.from_numpy(-to_buy[rows_of, None]).float())
        for column, values in ((0, sell), (1, 1 - sell - buy), (2, buy)):
            deviation, average = torch.std_mean(values, dim=1)
            probabilities[rows_of, column] = average
            errors[rows_of, column] = deviation / np.sqrt(n_paths)
    return OracleForecast(probabilities / probabilities.sum(axis=1, keepdims=True), errors)


def _variance_loadings(rows: RowStates, p: Parameters) -> np.ndarray:
    """(N, 15): what multiplies the market's, the sector's and the stock's random variance factors of days 1..5."""
    ahead = np.arange(1, HORIZON + 1)
    market = _expected_log(rows.market_log_volatility, p.market_persistence, p.market_spread, ahead)
    own = _expected_log(rows.log_volatility, p.log_volatility_persistence, p.log_volatility_spread, ahead)
    factor = rows.future_volatility**2 * np.exp(2 * market)
    shared = factor * rows.market_beta[:, None] ** 2
    by_sector = factor * p.sector_factor**2
    return np.hstack([shared, by_sector, rows.base_volatility[:, None] ** 2 * np.exp(2 * own)])


def _variance_paths(n_paths: int, seed: int, p: Parameters) -> np.ndarray:
    """(15, P): the random factors of the market's, the sector's and the stock's variance on days 1..5."""
    rng = random_stream(seed, "oracle")
    market = np.exp(2 * _log_innovations(rng, n_paths, p.market_persistence, p.market_spread))
    own = np.exp(2 * _log_innovations(rng, n_paths, p.log_volatility_persistence, p.log_volatility_spread))
    shape = (HORIZON, n_paths)
    mixed_market = market * inverse_gamma_mixing(rng, shape, p.degrees_of_freedom)
    mixed_own = own * inverse_gamma_mixing(rng, shape, p.degrees_of_freedom)
    return np.vstack([mixed_market, market, mixed_own])


def _expected_log(log_volatility: np.ndarray, phi: float, spread: float, ahead: np.ndarray) -> np.ndarray:
    mean = -(spread**2)
    return mean + (log_volatility[:, None] - mean) * phi**ahead


def _log_innovations(rng: np.random.Generator, n_paths: int, phi: float, spread: float) -> np.ndarray:
    """(5, P) sums of the coming innovations of an AR(1) log-volatility."""
    path = np.zeros((HORIZON, n_paths))
    last = np.zeros(n_paths)
    for day in range(HORIZON):
        last = phi * last + spread * np.sqrt(1 - phi**2) * rng.standard_normal(n_paths)
        path[day] = last
    return path


def _chunks(n_rows: int) -> Iterator[slice]:
    return (slice(start, start + CHUNK_ROWS) for start in range(0, n_rows, CHUNK_ROWS))
