"""Forecasts made of forecasts: the mean of calibrated probabilities of several models.

`ensemble` is the network's seeds, `blend` that and LightGBM, half each. What trees alone gain from being averaged are
the controls: only what the blend gains beyond the best of them is owed to the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from lasps.evaluation.baselines import SEEDED
from lasps.evaluation.forecast import Forecast, align
from lasps.evaluation.verdict import BLEND, CONTROLS, ENSEMBLE, TWIN

Forecasts = dict[str, list[Forecast]]
"""split -> one forecast per seed"""


def mean_of(forecasts: Sequence[Forecast], name: str) -> Forecast:
    """The mean of calibrated (and of raw) probabilities on the rows that all have; one is itself, under the name.

    Raises:
        ValueError: none, no row in common, or labels that differ on one.
    """
    if not forecasts:
        raise ValueError(f"{name}: expected at least one forecast to average, got none")
    common = forecasts[0]
    for other in forecasts[1:]:
        common = align(common, other, (name, name))[0]
    aligned = [align(f, common, (name, name))[0] for f in forecasts]
    p = np.mean([f.p for f in aligned], axis=0)
    raws = [f.raw_p for f in aligned if f.raw_p is not None]
    raw = np.mean(raws, axis=0) if len(raws) == len(aligned) else None
    return replace(common, p=p, raw_p=raw, own_score=None, seed=None, cache={}).named(name)


def with_combinations(
    network: Mapping[str, Sequence[Forecast]], baselines: Mapping[str, Mapping[str, Sequence[Forecast]]]
) -> dict[str, Forecasts]:
    """The baselines, the seeds of each averaged; ensemble, blend and the controls that can be made of them.

    Args:
        network: split -> one forecast per seed of the model that is for use.
        baselines: name -> split -> forecasts; of those in SEEDED as many as the network has seeds, LightGBM twice as
            many where its control is wanted.
    """
    out: dict[str, Forecasts] = {
        name: {split: list(found) for split, found in by_split.items()}
        for name, by_split in baselines.items()
        if name not in SEEDED
    }
    for split, own in network.items():
        found = {name: list(by_split[split]) for name, by_split in baselines.items() if split in by_split}
        for name, forecast in _of_split(list(own), found).items():
            out.setdefault(name, {})[split] = [forecast]
    return out


def _of_split(network: list[Forecast], found: Mapping[str, list[Forecast]]) -> dict[str, Forecast]:
    n, ensemble = len(network), mean_of(network, ENSEMBLE)
    rows = {name: mean_of(found[name][:n], name) for name in SEEDED if found.get(name)}
    second = rows.pop("lightgbm_second", None)
    if n > 1:
        rows[ENSEMBLE] = ensemble
    if TWIN not in rows:
        return rows
    twin, logistic = rows[TWIN], _only(found, "logistic_regression")
    rows[BLEND] = mean_of([ensemble, twin], BLEND)
    doubled, with_second, with_logistic = CONTROLS
    if second is not None:
        rows[with_second] = mean_of([twin, second], with_second)
        rows |= {} if logistic is None else {with_logistic: mean_of([twin, logistic], with_logistic)}
    if len(found[TWIN]) >= 2 * n:
        rows[doubled] = mean_of(found[TWIN][: 2 * n], doubled)
    return rows


def _only(found: Mapping[str, list[Forecast]], name: str) -> Forecast | None:
    return found[name][0] if found.get(name) else None
