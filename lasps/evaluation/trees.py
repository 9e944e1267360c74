"""LightGBM beside the network: the twin, which is offered all that the network reads, and plainer ones.

Ke et al., "LightGBM: A Highly Efficient Gradient Boosting Decision Tree", NIPS 2017.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from loguru import logger
from numpy.typing import NDArray

from lasps.evaluation.fitted import Array, BaselineSplit, Fitted, Unavailable
from lasps.evaluation.metrics import N_CLASSES

if TYPE_CHECKING:
    import lightgbm

Settings = Mapping[str, object]
PLAIN: Settings = {
    "objective": "multiclass",
    "num_class": N_CLASSES,
    "num_leaves": 63,
    "min_data_in_leaf": 500,
    "learning_rate": 0.05,
    "verbosity": -1,
    "deterministic": True,
    "force_row_wise": True,
    "feature_pre_filter": False,
}
TWIN: Settings = {
    **PLAIN,
    "num_leaves": 31,
    "min_data_in_leaf": 1000,
    "learning_rate": 0.1,
    "feature_fraction": 0.3,
    "bagging_fraction": 0.35,
    "bagging_freq": 1,
}
"""Chosen among four on val of krx-2020s and two on krx-2010s (see the log of experiments)."""
SECOND: Settings = {**TWIN, "num_leaves": 127, "extra_trees": True}
"""A differently set one, for a blend of trees with trees: larger trees with random thresholds (Geurts et al. 2006)."""
ROUNDS, PATIENCE = 1000, 50  # early stopping decides; the limit has not been reached on KRX data
ROWS_PER_THREAD = 20_000


def fit_lightgbm(train: BaselineSplit, val: BaselineSplit | None, seed: int = 0) -> Fitted:
    """The twin: trees on the means of all features, scores included, over 1, 5 and 20 days; stopped on val."""
    return _fitted("all_means", train, val, TWIN, seed)


def fit_second(train: BaselineSplit, val: BaselineSplit | None, seed: int = 0) -> Fitted:
    """As the twin, differently set."""
    return _fitted("all_means", train, val, SECOND, seed)


def fit_plain(train: BaselineSplit, val: BaselineSplit | None, seed: int = 0) -> Fitted:
    """Trees on the last day's features without scores, stopped on val; all columns and rows for each tree."""
    return _fitted("own_features", train, val, PLAIN, seed)


def _fitted(inputs: str, train: BaselineSplit, val: BaselineSplit | None, settings: Settings, seed: int) -> Fitted:
    if val is None:
        raise Unavailable("early stopping needs val")
    booster = boosted(inputs, train, val, settings, seed)
    trees = booster.best_iteration
    logger.debug(f"LightGBM stopped at {trees} trees per class")
    return Fitted(lambda split: probabilities(booster, inputs, split), {"trees": trees})


def boosted(
    inputs: str, train: BaselineSplit, val: BaselineSplit | None, settings: Settings, seed: int, trees: int = ROUNDS
) -> lightgbm.Booster:
    """Trees fitted on train; stopped on val or, without val, at `trees` per class.

    Args:
        inputs: the method of `BaselineSplit` that gives the columns.
    """
    import lightgbm

    n = len(train.labels)
    own = {
        **settings,
        "seed": seed,
        "min_data_in_leaf": min(int(str(settings["min_data_in_leaf"])), max(20, n // 100)),  # less for tiny data sets
        # threads wait for each other longer than they work on small data; 0 is one per core
        "num_threads": 1 if n < ROWS_PER_THREAD else 0,
    }
    x = _binned(inputs, train, own)
    if val is None:
        return lightgbm.train(own, x, trees)
    stop = lightgbm.early_stopping(PATIENCE, verbose=False)
    return lightgbm.train(own, x, trees, valid_sets=[_binned(inputs, val, own, x)], callbacks=[stop])


def _binned(
    inputs: str, split: BaselineSplit, settings: Settings, reference: lightgbm.Dataset | None = None
) -> lightgbm.Dataset:
    """The columns in bins, made once for all settings and seeds that see the same rows."""
    import lightgbm

    key = f"lightgbm {inputs} {id(reference)}"
    if key not in split.cache:
        columns = getattr(split, inputs)()
        split.cache[key] = lightgbm.Dataset(columns, split.labels, reference, params=dict(settings)).construct()
    found: lightgbm.Dataset = split.cache[key]
    return found


def probabilities(booster: lightgbm.Booster, inputs: str, split: BaselineSplit) -> Array:
    """(N, 3) of every sample of a split."""
    return normalised(np.asarray(booster.predict(getattr(split, inputs)())))


def normalised(p: NDArray[np.float64]) -> Array:
    """Rows that sum to 1."""
    return p / p.sum(axis=1, keepdims=True)
