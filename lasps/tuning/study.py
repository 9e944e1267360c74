"""The study itself: its storage, its search space, and the trials of workers that died.

JournalStorage by default: an append-only file that several workers may share and that survives kill -9. It has no
heartbeat, so every trial says which process runs it, and whoever comes next fails and re-queues those of the dead.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from loguru import logger
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from lasps.config.settings import settings as project_settings
from lasps.tracking.environment import is_dead, process_tags
from lasps.training.heads.data import HeadData
from lasps.training.heads.settings import HeadSettings

DEFAULT = HeadSettings()
TUNED = ("lr", "epochs", "min_samples", "rank", "penalty")

LR = (1e-5, 1e-2)
EPOCHS = (1, 30)
FEWEST_SAMPLES = 20  # the lower end of min_samples; guess, not tuned
RANK = (2, 32)  # of at most 3 x 20 directions; one more costs little, the penalty empties those that are not needed
PENALTY = (1.0, 1e3)  # a prior worth 1 to 1,000 samples' curvature; the lower end is hardly any

SILENT_SECONDS = 900.0
"""A trial on another machine is taken for dead after this long without a word; an epoch takes seconds."""

STARTUP_TRIALS = 10  # random ones before TPE, and complete ones before the median prunes: Optuna's own default for TPE
WARMUP_EPOCHS = 2  # guess, not tuned


def journal_path(name: str) -> Path:
    """The file of the study `name`, where no storage URL is given."""
    return project_settings.CHECKPOINT_DIR / "studies" / f"{name}.journal"


def conclusion_path(name: str, storage: str | None = None) -> Path:
    """Where the study's conclusion is kept: beside its journal, or, for a storage URL, where the journal would be."""
    path = Path(storage) if storage is not None and "://" not in storage else journal_path(name)
    return path.with_suffix(".json")


class KernelLock:
    """A journal's lock that the kernel lets go of when its holder is killed (Optuna's own waits 30 s then)."""

    def __init__(self, path: str) -> None:
        self._lock = FileLock(f"{path}.lock")

    def acquire(self) -> bool:
        """Wait for the lock."""
        self._lock.acquire()
        return True

    def release(self) -> None:
        """Let it go."""
        self._lock.release()


def storage_of(name: str, storage: str | None) -> optuna.storages.BaseStorage | str:
    """The journal of the study; or of a path ending in .journal; or any Optuna storage URL as it is."""
    if storage is not None and "://" in storage:
        return storage
    path = Path(storage) if storage is not None else journal_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    return optuna.storages.JournalStorage(JournalFileBackend(str(path), lock_obj=KernelLock(str(path))))  # type: ignore[arg-type]


def open_study(name: str, storage: str | None = None, *, made_on: str, space: dict[str, Any],
               seed: int = DEFAULT.seed) -> optuna.Study:
    """Create the study, or join it; known defaults are the first trials of a new one.

    Args:
        made_on: digest of checkpoint and data; a study belongs to one.
        space: `space_of` the data; kept with the study, so that its workers agree.

    Raises:
        ValueError: a study of this name was made on another checkpoint or other data.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(storage=storage_of(name, storage), study_name=name, direction="minimize",
                                load_if_exists=True, sampler=SeededSampler(seed),
                                pruner=optuna.pruners.MedianPruner(STARTUP_TRIALS, WARMUP_EPOCHS))
    known = study.user_attrs
    if known.get("made_on", made_on) != made_on:
        raise ValueError(f"study {name!r}: it was made on another checkpoint or other data ({known['made_on'][:12]}, "
                         f"these are {made_on[:12]}). Give this one another name: make tune STUDY=...")
    if "made_on" not in known:
        study.set_user_attr("space", space)
        for label, params in known_defaults(space).items():
            study.enqueue_trial(params, user_attrs={"known": label}, skip_if_exists=True)
        study.set_user_attr("made_on", made_on)
    return study


def load_study(name: str, storage: str | None = None) -> optuna.Study:
    """An existing study, to be read.

    Raises:
        ValueError: there is none.
    """
    path = Path(storage) if storage is not None else journal_path(name)
    try:
        if (storage is None or "://" not in storage) and not path.is_file():
            raise KeyError
        return optuna.load_study(study_name=name, storage=storage_of(name, storage))
    except KeyError as error:
        where = storage if storage is not None else path
        raise ValueError(f"expected a study {name!r} in {where}, found none: make one with 'make tune STUDY={name}'") \
            from error


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
    """TPE whose draws depend on the seed and the trial's number only: repeatable, and workers never draw alike."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed, n_startup_trials=STARTUP_TRIALS, multivariate=True)
        self._seed = seed

    def before_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        """Start this trial's own stream of random numbers."""
        for position, stream in enumerate((self._rng, self._random_sampler._rng)):
            stream.rng.seed([self._seed, trial.number, position])
        super().before_trial(study, trial)


def space_of(data: HeadData) -> dict[str, list[float]]:
    """Bounds of the hyperparameters; min_samples ends at the largest sector, where nothing else is trained."""
    largest = max(len(rows) for rows in data.train.rows_by_sector().values())
    return {"lr": list(LR), "epochs": list(EPOCHS), "min_samples": [min(FEWEST_SAMPLES, largest), largest],
            "rank": list(RANK), "penalty": list(PENALTY)}


def known_defaults(space: dict[str, list[float]]) -> dict[str, dict[str, Any]]:
    """What is tried first: the configured values, and the same with hardly any penalty."""
    configured = {key: getattr(DEFAULT, key) for key in TUNED}
    known = {"default": configured, "no penalty": configured | {"penalty": space["penalty"][0]}}
    return {label: {key: min(max(value, space[key][0]), space[key][1]) for key, value in params.items()}
            for label, params in known.items()}


def suggest(trial: optuna.Trial, space: dict[str, list[float]]) -> HeadSettings:
    """A trial's values as head settings; all else is the configured default."""
    lr, epochs, samples, rank, penalty = (space[key] for key in TUNED)
    return HeadSettings(
        lr=trial.suggest_float("lr", lr[0], lr[1], log=True),
        epochs=trial.suggest_int("epochs", int(epochs[0]), int(epochs[1])),
        min_samples=trial.suggest_int("min_samples", int(samples[0]), int(samples[1]), log=True),
        rank=trial.suggest_int("rank", int(rank[0]), int(rank[1]), log=True),
        penalty=trial.suggest_float("penalty", penalty[0], penalty[1], log=True))


def settings_of(params: dict[str, Any]) -> HeadSettings:
    """Head settings of a finished trial's params."""
    return HeadSettings(**(asdict(DEFAULT) | {key: params[key] for key in TUNED}))


def requeue_dead(study: optuna.Study, now: float | None = None) -> list[int]:
    """Fail the trials whose worker is gone, and queue their values anew (several workers may do so at once).

    Returns:
        The numbers of the trials that this call took out.
    """
    now = time.time() if now is None else now
    taken = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not _is_dead(trial, now):
            continue
        try:
            study.tell(trial.number, state=TrialState.FAIL)
        except (ValueError, RuntimeError, optuna.exceptions.OptunaError):  # another worker was faster
            continue
        queue_again(study, trial)
        taken.append(trial.number)
    if taken:
        logger.warning(f"study {study.study_name}: trials {taken} were left by a worker that is gone; queued again")
    return taken


def queue_again(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
    """A waiting trial with the values of one that could not end."""
    kept = {key: trial.user_attrs[key] for key in ("known",) if key in trial.user_attrs}
    study.enqueue_trial(trial.params, user_attrs=kept | {"retry_of": trial.number})


def mark_own(trial: optuna.Trial) -> None:
    """Say which process runs the trial, and that it lives."""
    for key, value in process_tags().items():
        trial.set_user_attr(key, value)
    mark_alive(trial)


def mark_alive(trial: optuna.Trial) -> None:
    """The heartbeat: the time of the last epoch."""
    trial.set_user_attr("seen", time.time())


def _is_dead(trial: optuna.trial.FrozenTrial, now: float) -> bool:
    attributes = trial.user_attrs
    if "seen" not in attributes:  # it died before its first word, or will speak at once
        started = trial.datetime_start.timestamp() if trial.datetime_start else now
        return now - started > SILENT_SECONDS
    here = attributes.get("lasps.host") == process_tags()["lasps.host"]
    return is_dead(attributes) if here else now - float(attributes["seen"]) > SILENT_SECONDS
