"""What a model must beat, given the same rows: from the majority class to LightGBM on the last day's features.

Each baseline is fitted on train (and stopped on val) and returns a prediction table per split. `oracle` stands beside
them where a synthetic market stated the true probabilities: an upper bound, no baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from loguru import logger
from numpy.typing import NDArray

from lasps.evaluation.fitted import Array, BaselineSplit, Fitted, Unavailable
from lasps.evaluation.forecast import Forecast
from lasps.evaluation.metrics import N_CLASSES, class_frequencies
from lasps.evaluation.skip_mlp import fit_mlp
from lasps.evaluation.trees import fit_lightgbm, fit_plain, fit_second, normalised

Known = TypeVar("Known", np.float64, np.int64)
VOLATILITY_BINS = 20
SMOOTHING = 20.0  # pseudo-samples of the prior in every bin, sector and state (guess, not tuned)
LOGISTIC_ROWS = 200_000  # more rows move the coefficients of ~40 features by less than their error
ORACLE_COLUMNS = ("oracle_p_sell", "oracle_p_hold", "oracle_p_buy")


Fit = Callable[[BaselineSplit, BaselineSplit | None, int], Fitted]
"""(train, val, seed) -> what it has learned."""


def _smoothed(groups: NDArray[np.int64], labels: NDArray[np.int64], n_groups: int) -> Array:
    """(n_groups, 3) class frequencies per group, shrunk towards the prior by SMOOTHING pseudo-samples."""
    prior = np.array(class_frequencies(labels))
    counts = np.bincount(groups * N_CLASSES + labels, minlength=n_groups * N_CLASSES).reshape(n_groups, N_CLASSES)
    return (counts + SMOOTHING * prior) / (counts.sum(axis=1, keepdims=True) + SMOOTHING)


def _constant(p: Array) -> Fitted:
    return Fitted(lambda split: _tiled(p, split))


def _tiled(p: Array, split: BaselineSplit) -> Array:
    return np.tile(p, (len(split.labels), 1))


def fit_majority(train: BaselineSplit, val: BaselineSplit | None, seed: int = 0) -> Fitted:
    """Always the most frequent training class, with certainty: log loss undefined."""
    return _constant(np.eye(N_CLASSES)[int(np.argmax(class_frequencies(train.labels)))])


def fit_prior(train: BaselineSplit, val: BaselineSplit | None, seed: int = 0) -> Fitted:
    """Always the training class frequencies."""
    return _constant(np.array(class_frequencies(train.labels)))


def fit_sector_prior(train: BaselineSplit, val: BaselineSplit | None, seed: int = 0) -> Fitted:
    """The training class frequencies of the sample's sector; the prior for a sector that train has not."""
    n_sectors = int(train.sector_ids.max()) + 1
    table = np.vstack([_smoothed(train.sector_ids, train.labels, n_sectors), class_frequencies(train.labels)])
    return Fitted(lambda split: table[np.minimum(split.sector_ids, n_sectors)])


def fit_volatility_bins(train: BaselineSplit, val: BaselineSplit | None, seed: int = 0) -> Fitted:
    """Class frequencies per train quantile bin of 20-day volatility; the prior where it is unknown."""
    fitted = VolatilityBins.fit(train.column("volatility_20"), train.labels)
    return Fitted(lambda split: fitted.predict(split.column("volatility_20")))


@dataclass(frozen=True)
class VolatilityBins:
    """Class frequencies by 20-day volatility.

    edges: (VOLATILITY_BINS - 1,) between the bins; table: (VOLATILITY_BINS + 1, 3), the last row where it is unknown.
    """

    edges: Array
    table: Array

    @classmethod
    def fit(cls, volatility: Array, labels: NDArray[np.int64]) -> VolatilityBins:
        """From (N,) volatilities, NaN where unknown; Unavailable where none is known."""
        known = np.isfinite(volatility)
        if not known.any():
            raise Unavailable("volatility_20 is nowhere known in train")
        edges = np.quantile(volatility[known], np.arange(1, VOLATILITY_BINS) / VOLATILITY_BINS)
        return cls(edges, _smoothed(_bin_of(volatility, edges), labels, VOLATILITY_BINS + 1))

    def predict(self, volatility: Array) -> Array:
        """(N, 3) of (N,) volatilities."""
        return self.table[_bin_of(volatility, self.edges)]


def _bin_of(volatility: Array, edges: Array) -> NDArray[np.int64]:
    return np.where(np.isfinite(volatility), np.searchsorted(edges, volatility, side="right"), len(edges) + 1)


def _known(values: NDArray[Known] | None) -> NDArray[Known]:
    if values is None:
        raise Unavailable("needs the closes up to each window's last day, which bare arrays do not hold")
    return values


def fit_persistence(train: BaselineSplit, val: BaselineSplit | None, seed: int = 0) -> Fitted:
    """Class frequencies given the last label known at t (that of t-5)."""
    table = _smoothed(_known(train.known_labels), train.labels, N_CLASSES)
    return Fitted(lambda split: table[_known(split.known_labels)])


def fit_minus_volatility(train: BaselineSplit, val: BaselineSplit | None, seed: int = 0) -> Fitted:
    """A ranking: calm stocks first. Its probabilities are the prior's."""
    train.column("volatility_20")
    prior = np.array(class_frequencies(train.labels))
    return Fitted(lambda split: (_tiled(prior, split), -split.column("volatility_20")))


def fit_minus_return(train: BaselineSplit, val: BaselineSplit | None, seed: int = 0) -> Fitted:
    """A ranking: the last 5 days' losers first. Its probabilities are the prior's."""
    _known(train.past_return)
    prior = np.array(class_frequencies(train.labels))
    return Fitted(lambda split: (_tiled(prior, split), -_known(split.past_return)))


def fit_logistic(train: BaselineSplit, val: BaselineSplit | None, seed: int = 0) -> Fitted:
    """Multinomial logistic regression on the last day's features without scores (at most LOGISTIC_ROWS train rows)."""
    from sklearn.linear_model import LogisticRegression

    x, rows = train.own_features(), np.arange(len(train.labels))
    if len(rows) > LOGISTIC_ROWS:
        rows = np.sort(np.random.default_rng(0).choice(rows, LOGISTIC_ROWS, replace=False))
    if len(np.unique(train.labels[rows])) < N_CLASSES:
        raise Unavailable("train lacks a class")
    mean, spread = x[rows].mean(axis=0), x[rows].std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    model = LogisticRegression(C=1.0, max_iter=1000, tol=1e-3).fit((x[rows] - mean) / spread, train.labels[rows])
    return Fitted(lambda split: model.predict_proba((split.own_features() - mean) / spread).astype(np.float64))


def fit_oracle(train: BaselineSplit, val: BaselineSplit | None, seed: int = 0) -> Fitted:
    """The synthetic market's own class probabilities."""
    train_columns = set(train.samples.columns) if train.samples is not None else set()
    if not set(ORACLE_COLUMNS) <= train_columns:
        raise Unavailable("only a synthetic market states its probabilities")
    return Fitted(lambda split: normalised(np.stack([split.column(c) for c in ORACLE_COLUMNS], axis=1)))


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
    "lightgbm_plain": fit_plain,
    "lightgbm_second": fit_second,
    "mlp": fit_mlp,
    "oracle": fit_oracle,
}
SEEDED = ("lightgbm", "lightgbm_second", "mlp")
"""Those that another seed makes another forecast of: as many are averaged as the network has seeds."""
CONTROLS = ("lightgbm_second",)
"""Those that only a control of the blend is made of."""
QUICK_BASELINES = ("majority", "prior", "sector_prior", "volatility_bins", "oracle")
"""Those that cost no fit worth waiting for."""


def fit_baselines(
    train: BaselineSplit,
    val: BaselineSplit | None,
    splits: Mapping[str, BaselineSplit],
    names: Iterable[str] = tuple(BASELINES),
    seed: int = 0,
    facts: dict[str, Mapping[str, int]] | None = None,
) -> dict[str, dict[str, Forecast]]:
    """Fit the named baselines on train and forecast every split: {name: {split: forecast}}.

    A baseline that the data cannot feed is left out with a warning (the oracle silently). `facts` gets what early
    stopping decided, by name.

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
            fitted = BASELINES[name](train, val, seed)
            own = seed if name in SEEDED else None
            out[name] = {
                key: _forecast(fitted.predict(split), split).named(name, key, own) for key, split in splits.items()
            }
            if facts is not None:
                facts[name] = fitted.facts
        except Unavailable as reason:
            if name != "oracle":
                logger.warning(f"baseline {name} left out: {reason}")
    return out


def _forecast(found: Array | tuple[Array, Array], split: BaselineSplit) -> Forecast:
    p, score = found if isinstance(found, tuple) else (found, None)
    return Forecast.from_probabilities(p, split.labels, split.sector_ids, samples=split.samples, score=score)
