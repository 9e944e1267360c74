"""The study itself: what it belongs to, its search space, and its sampler.

JournalStorage by default: an append-only file that several workers may share and that survives kill -9.
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from lasps.tracking.error_messages import reason_of
from lasps.training.heads.data import HeadData
from lasps.training.heads.settings import HeadSettings
from lasps.tuning.postgres import is_server
from lasps.tuning.storage import file_of, shown, storage_of, study_lock

DEFAULT = HeadSettings()
TUNED = ("lr", "epochs", "min_samples", "rank", "penalty")

LR = (1e-5, 1e-2)
EPOCHS = (1, 30)
FEWEST_SAMPLES = 20  # the lower end of min_samples; guess, not tuned
RANK = (2, 32)  # of at most 3 x 20 directions; one more costs little, the penalty empties those that are not needed
PENALTY = (1.0, 1e3)  # a prior worth 1 to 1,000 samples' curvature; the lower end is hardly any

STARTUP_TRIALS = 10  # random ones before TPE, and complete ones before the median prunes: Optuna's own default for TPE
WARMUP_EPOCHS = 2  # guess, not tuned


def open_study(
    name: str, storage: str | None = None, *, made_on: str, space: dict[str, Any], seed: int = DEFAULT.seed
) -> optuna.Study:
    """Create the study, or join it; known defaults are the first trials of a new one.

    Args:
        made_on: digest of checkpoint and data; a study belongs to one.
        space: `space_of` the data; kept with the study, so that its workers agree.

    Raises:
        ValueError: a study of this name is another one (direction, checkpoint, data, search space, or not of lasps), or
            its storage cannot be opened; nothing was written.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    kept = opened(name, storage)
    there = existing(name, storage, kept)
    if there is not None:
        check_identity(there, shown(name, storage), made_on, space)
    sampler = SeededSampler(
        seed,
        study_lock(name, storage, "claim"),
        lock_covers_all=file_of(name, storage) is not None or (storage is not None and is_server(storage)),
    )
    study = optuna.create_study(
        storage=kept,
        study_name=name,
        direction="minimize",
        load_if_exists=True,
        sampler=sampler,
        pruner=optuna.pruners.MedianPruner(STARTUP_TRIALS, WARMUP_EPOCHS),
    )
    if "made_on" not in study.user_attrs:
        study.set_user_attr("space", space)
        for label, params in known_defaults(space).items():
            study.enqueue_trial(params, user_attrs={"known": label}, skip_if_exists=True)
        study.set_user_attr("made_on", made_on)
    return study


def existing(name: str, storage: str | None, kept: Any) -> optuna.Study | None:
    """The study as it is, or None.

    Raises:
        ValueError: the storage cannot be opened.
    """
    try:
        return optuna.load_study(study_name=name, storage=kept)
    except KeyError:
        return None
    except Exception as error:
        raise cannot_open(name, storage, error) from error


def opened(name: str, storage: str | None) -> optuna.storages.BaseStorage | str:
    """As `storage_of`.

    Raises:
        ValueError: it cannot be opened; says why.
    """
    try:
        return storage_of(name, storage)
    except SQLAlchemyError as error:
        raise cannot_open(name, storage, error) from error


def cannot_open(name: str, storage: str | None, error: Exception) -> ValueError:
    """What to say where a storage cannot be opened."""
    return ValueError(
        f"the storage {shown(name, storage)} cannot be opened: {reason_of(error)}. Expected a "
        ".journal file or an Optuna storage URL, e.g. sqlite:///studies.db"
    )


def check_identity(study: optuna.Study, place: str, made_on: str, space: dict[str, Any]) -> None:
    """Raise ValueError where the study that is there is not this one."""
    name, known = study.study_name, study.user_attrs
    other = "Give this one another name: make tune STUDY=..."
    if study.directions != [StudyDirection.MINIMIZE]:
        raise ValueError(
            f"study {name!r} in {place} has the direction {[d.name for d in study.directions]}; this one "
            f"minimizes a log loss. {other}"
        )
    if "made_on" not in known:
        half_made = known.keys() <= {"space"} and all(
            trial.state == TrialState.WAITING and "known" in trial.user_attrs for trial in study.get_trials()
        )
        if not half_made:
            raise ValueError(f"study {name!r} in {place} holds trials of something else, not of lasps. {other}")
        return
    if known["made_on"] != made_on:
        raise ValueError(
            f"study {name!r}: it was made on another checkpoint or other data ({known['made_on'][:12]}, "
            f"these are {made_on[:12]}). {other}"
        )
    if json.dumps(known.get("space"), sort_keys=True) != json.dumps(space, sort_keys=True):
        raise ValueError(
            f"study {name!r} in {place}: expected the search space {space}, it has {known.get('space')}. {other}"
        )


def load_study(name: str, storage: str | None = None) -> optuna.Study:
    """An existing study, to be read.

    Raises:
        ValueError: there is none, or its storage cannot be opened.
    """
    file = file_of(name, storage)
    study = existing(name, storage, opened(name, storage)) if file is None or file.is_file() else None
    if study is None:
        flags = "" if storage is None else f" STORAGE={shown(name, storage)}"
        raise ValueError(
            f"expected a study {name!r} in {shown(name, storage)}, found none: make one with "
            f"'make tune STUDY={name}{flags}'"
        )
    return study


def best_settings(name: str, storage: str | None = None) -> dict[str, Any]:
    """The best trial's lr, epochs, min_samples, rank and penalty.

    Raises:
        ValueError: no such study, or no trial of it has been completed.
    """
    study = load_study(name, storage)
    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        raise ValueError(f"study {name!r} has no completed trial yet: go on with 'make tune STUDY={name}'")
    return {key: study.best_trial.params[key] for key in TUNED}


class SeededSampler(optuna.samplers.TPESampler):
    """TPE whose draws depend on the seed and the trial's number only: repeatable, and workers never draw alike.

    Attributes:
        claim_lock: held while a worker takes a trial (see `lasps.tuning.liveness`).
        lock_covers_all: whether all workers of the study share that lock.
    """

    def __init__(self, seed: int, claim_lock: AbstractContextManager[Any], lock_covers_all: bool) -> None:
        super().__init__(seed=seed, n_startup_trials=STARTUP_TRIALS, multivariate=True)
        self._seed = seed
        self.claim_lock, self.lock_covers_all = claim_lock, lock_covers_all

    def before_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        """Start this trial's own stream of random numbers."""
        for position, stream in enumerate((self._rng, self._random_sampler._rng)):
            stream.rng.seed([self._seed, trial.number, position])
        super().before_trial(study, trial)


def space_of(data: HeadData) -> dict[str, list[float]]:
    """Bounds of the hyperparameters; min_samples ends at the largest sector, where nothing else is trained."""
    largest = max(len(rows) for rows in data.train.rows_by_sector().values())
    return {
        "lr": list(LR),
        "epochs": list(EPOCHS),
        "min_samples": [min(FEWEST_SAMPLES, largest), largest],
        "rank": list(RANK),
        "penalty": list(PENALTY),
    }


def known_defaults(space: dict[str, list[float]]) -> dict[str, dict[str, Any]]:
    """What is tried first: the configured values, and the same with hardly any penalty."""
    configured = {key: getattr(DEFAULT, key) for key in TUNED}
    known = {"default": configured, "no penalty": configured | {"penalty": space["penalty"][0]}}
    return {
        label: {key: min(max(value, space[key][0]), space[key][1]) for key, value in params.items()}
        for label, params in known.items()
    }


def suggest(trial: optuna.Trial, space: dict[str, list[float]]) -> HeadSettings:
    """A trial's values as head settings; all else is the configured default."""
    lr, epochs, samples, rank, penalty = (space[key] for key in TUNED)
    return HeadSettings(
        lr=trial.suggest_float("lr", lr[0], lr[1], log=True),
        epochs=trial.suggest_int("epochs", int(epochs[0]), int(epochs[1])),
        min_samples=trial.suggest_int("min_samples", int(samples[0]), int(samples[1]), log=True),
        rank=trial.suggest_int("rank", int(rank[0]), int(rank[1]), log=True),
        penalty=trial.suggest_float("penalty", penalty[0], penalty[1], log=True),
    )


def settings_of(params: dict[str, Any]) -> HeadSettings:
    """Head settings of a finished trial's params."""
    return HeadSettings(**(asdict(DEFAULT) | {key: params[key] for key in TUNED}))
