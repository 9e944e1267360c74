"""What a model must beat, given the same rows: from the majority class to LightGBM on the last day's features.

Each baseline is fitted on train (and stopped on val) and returns a prediction table per split. `oracle` stands beside
them where a synthetic market stated the true probabilities: an upper bound, no baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import polars as pl
from loguru import logger
from numpy.typing import NDArray

from lasps.evaluation.forecast import Forecast
from lasps.evaluation.metrics import N_CLASSES, class_frequencies

Known = TypeVar("Known", np.float64, np.int64)
Array = NDArray[np.float64]
VOLATILITY_BINS = 20
SMOOTHING = 20.0  # pseudo-samples of the prior in every bin, sector and state (guess, not tuned)
LIGHTGBM: dict[str, object] = {
    "objective": "multiclass",
    "num_class": N_CLASSES,
    "num_leaves": 63,
    "learning_rate": 0.05,
    "verbosity": -1,
    "deterministic": True,
    "force_row_wise": True,
    "seed": 0,
}
LIGHTGBM_LEAF = 500  # smallest leaf; with LIGHTGBM and the patience below as in the measured reference
LIGHTGBM_ROUNDS, LIGHTGBM_PATIENCE = 1000, 50  # early stopping decides; the limit has not been reached on KRX data
LIGHTGBM_ROWS_PER_THREAD = 20_000
LOGISTIC_ROWS = 200_000  # more rows move the coefficients of ~40 features by less than their error
ORACLE_COLUMNS = ("oracle_p_sell", "oracle_p_hold", "oracle_p_buy")


@dataclass(frozen=True)
class BaselineSplit:
    """One split as plain arrays.

    samples: samples.parquet of the dataset (code, date, forward_return, volatility_20, ...), or None for data without
    dates; features (N, F) float32, the scaled features of each window's last day, no NaN; labels and sector_ids (N,);
    past_return (N,) of the label's horizon up to the window's last day, and known_labels (N,), the class of that
    return: the last label that is known on that day. Both None where no closes are known.
    """

    samples: pl.DataFrame | None
    features: NDArray[np.float32] | None
    labels: NDArray[np.int64]
    sector_ids: NDArray[np.int64]
    past_return: Array | None = None
    known_labels: NDArray[np.int64] | None = None

    def column(self, name: str) -> Array:
        """(N,) a column of samples, null as NaN; Unavailable where there is none."""
        if self.samples is None or name not in self.samples.columns:
            raise Unavailable(f"samples have no column {name}")
        return self.samples[name].cast(pl.Float64).fill_null(np.nan).to_numpy()


class Unavailable(ValueError):
    """This baseline needs something that the data does not have."""


Fitted = Callable[[BaselineSplit], Array | tuple[Array, Array]]
"""A split -> probabilities (N, 3), and a score (N,) where the ranking is not P(BUY) - P(SELL)."""
Fit = Callable[[BaselineSplit, BaselineSplit | None], Fitted]


def _smoothed(groups: NDArray[np.int64], labels: NDArray[np.int64], n_groups: int) -> Array:
    """(n_groups, 3) class frequencies per group, shrunk towards the prior by SMOOTHING pseudo-samples."""
    prior = np.array(class_frequencies(labels))
    counts = np.bincount(groups * N_CLASSES + labels, minlength=n_groups * N_CLASSES).reshape(n_groups, N_CLASSES)
    return (counts + SMOOTHING * prior) / (counts.sum(axis=1, keepdims=True) + SMOOTHING)


def _constant(p: Array) -> Callable[[BaselineSplit], Array]:
    return lambda split: np.tile(p, (len(split.labels), 1))


def fit_majority(train: BaselineSplit, val: BaselineSplit | None) -> Fitted:
    """Always the most frequent training class, with certainty: log loss undefined."""
    return _constant(np.eye(N_CLASSES)[int(np.argmax(class_frequencies(train.labels)))])


def fit_prior(train: BaselineSplit, val: BaselineSplit | None) -> Callable[[BaselineSplit], Array]:
    """Always the training class frequencies."""
    return _constant(np.array(class_frequencies(train.labels)))


def fit_sector_prior(train: BaselineSplit, val: BaselineSplit | None) -> Fitted:
    """The training class frequencies of the sample's sector; the prior for a sector that train has not."""
    n_sectors = int(train.sector_ids.max()) + 1
    table = np.vstack([_smoothed(train.sector_ids, train.labels, n_sectors), class_frequencies(train.labels)])
    return lambda split: table[np.minimum(split.sector_ids, n_sectors)]


def fit_volatility_bins(train: BaselineSplit, val: BaselineSplit | None) -> Fitted:
    """Class frequencies per train quantile bin of 20-day volatility; the prior where it is unknown."""
    volatility = train.column("volatility_20")
    known = np.isfinite(volatility)
    if not known.any():
        raise Unavailable("volatility_20 is nowhere known in train")
    edges = np.quantile(volatility[known], np.arange(1, VOLATILITY_BINS) / VOLATILITY_BINS)

    def bins(values: Array) -> NDArray[np.int64]:
        return np.where(np.isfinite(values), np.searchsorted(edges, values, side="right"), VOLATILITY_BINS)

    table = _smoothed(bins(volatility), train.labels, VOLATILITY_BINS + 1)
    return lambda split: table[bins(split.column("volatility_20"))]


def _known(values: NDArray[Known] | None) -> NDArray[Known]:
    if values is None:
        raise Unavailable("needs the closes up to each window's last day, which bare arrays do not hold")
    return values


def fit_persistence(train: BaselineSplit, val: BaselineSplit | None) -> Fitted:
    """Class frequencies given the last label known at t (that of t-5)."""
    table = _smoothed(_known(train.known_labels), train.labels, N_CLASSES)
    return lambda split: table[_known(split.known_labels)]


def fit_minus_volatility(train: BaselineSplit, val: BaselineSplit | None) -> Fitted:
    """A ranking: calm stocks first. Its probabilities are the prior's."""
    train.column("volatility_20")
    prior = fit_prior(train, val)
    return lambda split: (prior(split), -split.column("volatility_20"))


def fit_minus_return(train: BaselineSplit, val: BaselineSplit | None) -> Fitted:
    """A ranking: the last 5 days' losers first. Its probabilities are the prior's."""
    _known(train.past_return)
    prior = fit_prior(train, val)
    return lambda split: (prior(split), -_known(split.past_return))


def _features(split: BaselineSplit) -> NDArray[np.float32]:
    if split.features is None:
        raise Unavailable("needs the last day's features")
    return split.features


def fit_logistic(train: BaselineSplit, val: BaselineSplit | None) -> Fitted:
    """Multinomial logistic regression on the last day's features (at most LOGISTIC_ROWS train rows)."""
    from sklearn.linear_model import LogisticRegression

    x, rows = _features(train), np.arange(len(train.labels))
    if len(rows) > LOGISTIC_ROWS:
        rows = np.sort(np.random.default_rng(0).choice(rows, LOGISTIC_ROWS, replace=False))
    if len(np.unique(train.labels[rows])) < N_CLASSES:
        raise Unavailable("train lacks a class")
    mean, spread = x[rows].mean(axis=0), x[rows].std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    model = LogisticRegression(C=1.0, max_iter=1000, tol=1e-3).fit((x[rows] - mean) / spread, train.labels[rows])
    return lambda split: model.predict_proba((_features(split) - mean) / spread).astype(np.float64)


def fit_lightgbm(train: BaselineSplit, val: BaselineSplit | None) -> Fitted:
    """Gradient-boosted trees on the last day's features, stopped on val; the sector is not among its inputs."""
    import lightgbm

    if val is None:
        raise Unavailable("early stopping needs val")
    smallest_leaf = min(LIGHTGBM_LEAF, max(20, len(train.labels) // 100))  # for tiny data sets
    # threads wait for each other longer than they work on small data; 0 is one per core
    threads = 1 if len(train.labels) < LIGHTGBM_ROWS_PER_THREAD else 0
    x = lightgbm.Dataset(_features(train), train.labels, params={"verbosity": -1})
    stop = lightgbm.early_stopping(LIGHTGBM_PATIENCE, verbose=False)
    booster = lightgbm.train(
        {**LIGHTGBM, "min_data_in_leaf": smallest_leaf, "num_threads": threads},
        x,
        LIGHTGBM_ROUNDS,
        valid_sets=[lightgbm.Dataset(_features(val), val.labels, reference=x)],
        callbacks=[stop],
    )
    logger.debug(f"LightGBM stopped at {booster.best_iteration} trees per class")
    return lambda split: _normalised(np.asarray(booster.predict(_features(split))))


def fit_oracle(train: BaselineSplit, val: BaselineSplit | None) -> Fitted:
    """The synthetic market's own class probabilities."""
    train_columns = set(train.samples.columns) if train.samples is not None else set()
    if not set(ORACLE_COLUMNS) <= train_columns:
        raise Unavailable("only a synthetic market states its probabilities")
    return lambda split: _normalised(np.stack([split.column(c) for c in ORACLE_COLUMNS], axis=1))


def _normalised(p: Array) -> Array:
    return p / p.sum(axis=1, keepdims=True)


BASELINES: dict[str, Fit] = {
    "majority": fit_majority,
    "prior": fit_prior,
    "sector_prior": fit_sector_prior,
    "volatility_bins": fit_volatility_bins,
    "persistence": fit_persistence,
    "minus_volatility_20": fit_minus_volatility,
    "minus_return_5": fit_minus_return,
    "logistic_regression": fit_logistic,
    "lightgbm": fit_lightgbm,
    "oracle": fit_oracle,
}
QUICK_BASELINES = ("majority", "prior", "sector_prior", "volatility_bins", "oracle")
"""Those that cost no fit worth waiting for."""


def fit_baselines(
    train: BaselineSplit,
    val: BaselineSplit | None,
    splits: Mapping[str, BaselineSplit],
    names: Iterable[str] = tuple(BASELINES),
) -> dict[str, dict[str, Forecast]]:
    """Fit the named baselines on train and forecast every split: {name: {split: forecast}}.

    A baseline that the data cannot feed is left out with a warning (the oracle silently).

    Raises:
        ValueError: an unknown name or an empty train.
    """
    names = list(names)
    if unknown := sorted(set(names) - set(BASELINES)):
        raise ValueError(f"unknown baselines {unknown}; expected some of {list(BASELINES)}")
    if not len(train.labels):
        raise ValueError("baselines need at least one training sample, got none")
    out: dict[str, dict[str, Forecast]] = {}
    for name in names:
        try:
            fitted = BASELINES[name](train, val)
            out[name] = {key: _forecast(fitted(split), split).named(name, key) for key, split in splits.items()}
        except Unavailable as reason:
            if name != "oracle":
                logger.warning(f"baseline {name} left out: {reason}")
    return out


def _forecast(found: Array | tuple[Array, Array], split: BaselineSplit) -> Forecast:
    p, score = found if isinstance(found, tuple) else (found, None)
    return Forecast.from_probabilities(p, split.labels, split.sector_ids, samples=split.samples, score=score)
