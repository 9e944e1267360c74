"""Which worker owns a trial, whether that worker is alive, and requeueing the trials of dead ones."""

from __future__ import annotations

import time
from typing import Any

import optuna
from loguru import logger
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from lasps.tracking.environment import SEEN, is_dead, process_tags

OWNER = "owner"
"""User attribute of a trial: `process_tags` of its worker, written at once."""
BEAT = "seen"
FIRST_WORD_SECONDS = 60.0
"""On a storage whose workers may not share the lock (a server's), a trial without an owner is left alone that long."""


def claim(study: optuna.Study) -> optuna.Trial:
    """Ask for a trial and record its owner, under the study's lock: a trial without an owner is then abandoned."""
    sampler: Any = study.sampler  # a SeededSampler
    with sampler.claim_lock:
        trial = study.ask()
        mark_own(trial)
    return trial


def mark_own(trial: optuna.Trial) -> None:
    """Record which process runs the trial, in one write."""
    trial.set_user_attr(OWNER, process_tags())


def mark_alive(trial: optuna.Trial) -> None:
    """The heartbeat: the time of the last epoch."""
    trial.set_user_attr(BEAT, time.time())


def requeue_dead(study: optuna.Study, now: float | None = None) -> list[int]:
    """Fail the trials whose worker is gone, and queue their values anew (several workers may do so at once).

    Returns:
        The numbers of the trials that this call took out.
    """
    now = time.time() if now is None else now
    sampler: Any = study.sampler
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    if any(not _owner(trial) for trial in running):
        with sampler.claim_lock:  # every living worker has recorded itself by now
            running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    patience = 0.0 if sampler.lock_covers_all else FIRST_WORD_SECONDS
    taken = []
    for trial in running:
        if not _is_dead(trial, now, patience):
            continue
        try:
            study.tell(trial.number, state=TrialState.FAIL)
        except (ValueError, RuntimeError, optuna.exceptions.OptunaError):  # another worker was faster
            continue
        queue_again(study, trial)
        taken.append(trial.number)
    if taken:
        logger.warning(f"study {study.study_name}: trials {taken} were left by a dead worker; queued again")
    return taken


def queue_again(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
    """A waiting trial with the values of one that could not end."""
    kept = {key: trial.user_attrs[key] for key in ("known",) if key in trial.user_attrs}
    study.enqueue_trial(
        trial.params or dict(trial.system_attrs.get("fixed_params", {})), user_attrs=kept | {"retry_of": trial.number}
    )


def _owner(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    """The worker's `process_tags` with its last heartbeat; empty where it died before it recorded them."""
    owner = dict(trial.user_attrs.get(OWNER, {}))
    return owner | {SEEN: trial.user_attrs[BEAT]} if owner and BEAT in trial.user_attrs else owner


def _is_dead(trial: optuna.trial.FrozenTrial, now: float, patience: float) -> bool:
    owner = _owner(trial)
    if owner:
        return is_dead(owner, now)
    started = trial.datetime_start.timestamp() if trial.datetime_start else now
    return now - started >= patience


def tell(study: optuna.Study, trial: optuna.Trial, value: float | None = None, state: TrialState | None = None) -> None:
    """Tell the study how a trial ended.

    Raises:
        UpdateFinishedTrialError: another worker has ended it, taking this one for dead.
    """
    try:
        study.tell(trial, value, state)
    except ValueError as error:
        if study.get_trials(deepcopy=False)[trial.number].state.is_finished():
            raise UpdateFinishedTrialError(f"trial {trial.number} was ended by another worker") from error
        raise
