"""Whose a trial is, whether that worker still lives, and what becomes of the trials of those that do not."""

from __future__ import annotations

import time
from contextlib import nullcontext
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
"""On a storage that the claim's lock does not cover (a server's), a trial without an owner is left alone that long."""


def claim(study: optuna.Study) -> optuna.Trial:
    """Ask for a trial and say whose it is; under the study's lock, so that a trial without an owner is nobody's."""
    with _claiming(study):
        trial = study.ask()
        mark_own(trial)
    return trial


def _claiming(study: optuna.Study) -> Any:
    return getattr(study.sampler, "claim_lock", None) or nullcontext()


def mark_own(trial: optuna.Trial) -> None:
    """Say which process runs the trial, in one write."""
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
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    if any(not _owner(trial) for trial in running):
        with _claiming(study):  # whoever lives has said by now whose it is
            running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    patience = 0.0 if getattr(study.sampler, "lock_covers_all", False) else FIRST_WORD_SECONDS
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
        logger.warning(f"study {study.study_name}: trials {taken} were left by a worker that is gone; queued again")
    return taken


def queue_again(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
    """A waiting trial with the values of one that could not end."""
    kept = {key: trial.user_attrs[key] for key in ("known",) if key in trial.user_attrs}
    study.enqueue_trial(
        trial.params or dict(trial.system_attrs.get("fixed_params", {})), user_attrs=kept | {"retry_of": trial.number}
    )


def _owner(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    """The worker's `process_tags` with its last word; empty where it died before its first."""
    attributes = trial.user_attrs  # earlier versions kept the tags one by one
    owner = dict(attributes.get(OWNER, attributes if "lasps.pid" in attributes else {}))
    return owner | {SEEN: attributes[BEAT]} if owner and BEAT in attributes else owner


def _is_dead(trial: optuna.trial.FrozenTrial, now: float, patience: float) -> bool:
    owner = _owner(trial)
    if owner:
        return is_dead(owner, now)
    started = trial.datetime_start.timestamp() if trial.datetime_start else now
    return now - started >= patience


def tell(study: optuna.Study, trial: optuna.Trial, value: float | None = None, state: TrialState | None = None) -> None:
    """Tell the study how a trial ended.

    Raises:
        UpdateFinishedTrialError: another worker has ended it, which held this one for gone.
    """
    try:
        study.tell(trial, value, state)
    except ValueError as error:
        if study.get_trials(deepcopy=False)[trial.number].state.is_finished():
            raise UpdateFinishedTrialError(f"trial {trial.number} was ended by another worker") from error
        raise
