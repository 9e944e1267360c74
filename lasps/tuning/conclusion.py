"""The conclusion of a study: best against default settings on the half of val that no trial saw."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import optuna
import torch
from optuna.trial import TrialState

from lasps.evaluation.focal_calibration import calibrated_probabilities
from lasps.evaluation.forecast import Forecast
from lasps.evaluation.significance import Difference, day_difference
from lasps.training.heads.acceptance import logits_of
from lasps.training.heads.data import HeadData, HeadResult, HeadSamples
from lasps.training.heads.nested import accepted_gains, train_head
from lasps.training.heads.settings import HeadSettings
from lasps.tuning.storage import conclusion_path
from lasps.tuning.study import DEFAULT, TUNED, settings_of

FEWEST_FOR_IMPORTANCE = 10  # completed trials; guess, not tuned
ENOUGH_FOR_IMPORTANCE = 30  # completed trials, of which PED-ANOVA looks at the best tenth; guess, not tuned


@dataclass(frozen=True)
class Conclusion:
    """Best against default settings on the evaluation half of val, and what the study says about each hyperparameter.

    Attributes:
        best: the best trial's values.
        states: state name -> number of trials.
        log_loss: on the evaluation half, nats: "start" (initial heads), "default", "best".
        difference: best minus default (below zero is better) with its 95 % interval over days.
        importance: share of each hyperparameter; empty with few trials.
        plateau: name -> (low, high) among the trials within one standard error of the best; plateau_size: their number.
        variables: further variables that `make train-phase2` needs, as " STORAGE=...".
        made_on: digest of the checkpoint and data that the study belongs to.
    """

    study: str
    best_trial: int
    best: dict[str, Any]
    states: dict[str, int]
    log_loss: dict[str, float]
    difference: Difference
    importance: dict[str, float]
    plateau: dict[str, tuple[float, float]]
    plateau_size: int
    variables: str = ""
    made_on: str = ""

    @property
    def is_better(self) -> bool:
        """The whole interval of best minus default lies below zero."""
        return self.difference.high is not None and self.difference.high < 0

    @property
    def is_default(self) -> bool:
        """No trial did better than the configured default."""
        return all(self.best[name] == getattr(DEFAULT, name) for name in TUNED)

    @property
    def verdict(self) -> str:
        """The conclusion in one sentence."""
        if self.is_default:
            return "KEEP THE DEFAULTS: no trial did better than they, not even on the days that trials were chosen on."
        if self.is_better:
            return f"The gain stands out from the noise. Train with the best values: {self.command}"
        return (
            "WITHIN NOISE: on days that the study did not see, the best values are not distinguishable from the "
            f"defaults. Keeping the defaults is as good a choice as {self.command}"
        )

    @property
    def command(self) -> str:
        """What trains with the best values."""
        return f"make train-phase2 STUDY={self.study}{self.variables}"

    def lines(self) -> list[str]:
        """The conclusion in words."""
        d = self.difference
        states = ", ".join(f"{n} {name.lower()}" for name, n in self.states.items())
        interval = (
            f"95 % interval over {d.n_days} days {d.low:+.4f} .. {d.high:+.4f}"
            if d.interval
            else f"no interval: {d.n_days} days are too few"
        )
        share = ", ".join(f"{name} {100 * value:.0f} %" for name, value in self.importance.items())
        ranges = ", ".join(f"{name} {low:.3g} .. {high:.3g}" for name, (low, high) in self.plateau.items())
        completed = self.states.get("COMPLETE", 0)
        hint = "" if completed >= ENOUGH_FOR_IMPORTANCE else f" (a hint: {completed} completed trials are few)"
        return [
            f"Study {self.study}: {states}; best is trial {self.best_trial}",
            "Best:        " + ", ".join(f"{name} {value:.4g}" for name, value in self.best.items()),
            "Default:     " + ", ".join(f"{name} {getattr(DEFAULT, name):.4g}" for name in TUNED),
            "Log loss on the other half of val: " + ", ".join(f"{k} {v:.4f}" for k, v in self.log_loss.items()),
            f"Best minus default: {d.difference:+.4f} ({interval}; below zero is better)",
            f"Importance:  {share + hint if share else 'too few completed trials to say'}",
            f"Plateau:     {self.plateau_size} of {completed} trials within one standard error of the best: {ranges}",
            self.verdict,
        ]

    def to_dict(self) -> dict[str, Any]:
        """For --json and MLflow."""
        d = self.difference
        return {
            "study": self.study,
            "best_trial": self.best_trial,
            "best": self.best,
            "states": self.states,
            "log_loss": self.log_loss,
            "difference": d.difference,
            "interval": d.interval,
            "n_days": d.n_days,
            "n": d.n,
            "within_noise": not self.is_better,
            "is_default": self.is_default,
            "verdict": self.verdict,
            "importance": self.importance,
            "plateau": {k: list(v) for k, v in self.plateau.items()},
            "plateau_size": self.plateau_size,
            "command": self.command,
            "made_on": self.made_on,
        }


def read_conclusion(study: optuna.Study, storage: str | None = None) -> dict[str, Any] | None:
    """The study's conclusion as `to_dict` wrote it; None where there is none yet.

    Raises:
        ValueError: the file holds the conclusion of another study.
    """
    path = conclusion_path(study.study_name, storage)
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    made_on = study.user_attrs.get("made_on")
    if found.get("study") != study.study_name or found.get("made_on", made_on) != made_on:
        raise ValueError(
            f"{path} holds the conclusion of another study ({found.get('study')!r}): expected that of "
            f"{study.study_name!r}. Move it away and run make tune again"
        )
    return found


def conclude(
    study: optuna.Study, data: HeadData, unseen: HeadSamples, device: str | torch.device = "cpu", variables: str = ""
) -> Conclusion:
    """Train default and best settings once more and compare the heads that each would save on the evaluation half.

    Args:
        data: as in the study, with the study's half of val.
        unseen: the evaluation half.
        variables: see `Conclusion`.

    Raises:
        ValueError: no trial was completed.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        raise ValueError(f"study {study.study_name!r} has no completed trial to conclude from")
    best = study.best_trial
    compared = fitting_default(data), settings_of(best.params)
    results = [train_head(data, setting, device=device) for setting in compared]
    forecasts = {"start": forecast(data, unseen, None)}
    forecasts |= {name: forecast(data, unseen, r) for name, r in zip(("default", "best"), results, strict=True)}
    difference = day_difference(forecasts["default"], forecasts["best"], "log_loss")
    within = plateau_of(study, difference.standard_error or 0.0)
    return Conclusion(
        study.study_name,
        best.number,
        {key: best.params[key] for key in TUNED},
        count_states(study),
        {name: log_loss_of(f) for name, f in forecasts.items()},
        difference,
        importance_of(study),
        {key: (min(t.params[key] for t in within), max(t.params[key] for t in within)) for key in TUNED},
        len(within),
        variables,
        str(study.user_attrs.get("made_on", "")),
    )


def fitting_default(data: HeadData) -> HeadSettings:
    """The default, its min_samples lowered to the largest sector where the data is tiny."""
    largest = max(len(rows) for rows in data.train.rows_by_sector().values())
    return replace(DEFAULT, min_samples=min(DEFAULT.min_samples, largest))


def forecast(data: HeadData, unseen: HeadSamples, result: HeadResult | None) -> Forecast:
    """Calibrated probabilities on `unseen`, rows sorted by day, from the heads that Phase 2 would save.

    Args:
        result: None for the initial heads.
    """
    accepted = {} if result is None else accepted_gains(data, result)
    p = np.empty((len(unseen), len(data.class_weights)))
    for sector, rows in unseen.rows_by_sector().items():
        head, gamma = data.initial_head(sector)
        if result is not None and sector in accepted:
            head, gamma = result.best_heads[sector], result.gammas[sector]
        p[rows] = calibrated_probabilities(
            logits_of(head, unseen.features[torch.from_numpy(rows)]).double().numpy(), gamma, data.class_weights
        )
    dates, day = (np.empty(0), None) if unseen.days is None else np.unique(unseen.days, return_inverse=True)
    order = np.arange(len(unseen)) if day is None else np.argsort(day, kind="stable")
    return Forecast(
        p[order],
        unseen.labels.numpy()[order],
        unseen.sector_ids.numpy()[order],
        None if day is None else day[order].astype(np.int64),
        list(dates),
    )


def log_loss_of(f: Forecast) -> float:
    """Mean log loss of a forecast."""
    return float(-np.log(np.clip(f.p[np.arange(f.n), f.labels], 1e-300, None)).mean())


def plateau_of(study: optuna.Study, width: float) -> list[optuna.trial.FrozenTrial]:
    """Completed trials whose value lies within `width` of the best: they cannot be told apart."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    best = min((float(t.value) for t in complete if t.value is not None), default=float("nan"))
    return [t for t in complete if t.value is not None and t.value <= best + width]


def importance_of(study: optuna.Study) -> dict[str, float]:
    """PED-ANOVA (Watanabe, Bansal & Hutter 2023): how much each hyperparameter decides who is among the best tenth."""
    if len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) < FEWEST_FOR_IMPORTANCE:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {name: float(share) for name, share in optuna.importance.get_param_importances(study).items()}


def count_states(study: optuna.Study) -> dict[str, int]:
    """State name -> number of trials; states without any are left out."""
    names = [trial.state.name for trial in study.get_trials(deepcopy=False)]
    return {name: names.count(name) for name in ("COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING") if name in names}
