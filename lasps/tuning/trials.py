"""A worker: ask, train, tell, until the study has its trials."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import optuna
import torch
from loguru import logger
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState
from tqdm import tqdm

from lasps.tracking import Tracker
from lasps.training.heads.acceptance import Acceptance
from lasps.training.heads.data import HeadData, HeadResult
from lasps.training.heads.nested import accepted_gains, train_head
from lasps.training.heads.settings import HeadSettings
from lasps.tuning.liveness import claim, mark_alive, queue_again, requeue_dead, tell
from lasps.tuning.postgres import is_cut_off
from lasps.tuning.study import suggest

REPLACED = "queued again"
"""User attribute of a trial that could not end and whose values wait anew: it does not count."""


def run_trials(
    study: optuna.Study, data: HeadData, n_trials: int, tracker: Tracker, device: str | torch.device = "cpu"
) -> int:
    """Run trials until the study has `n_trials` of them, those of other workers and earlier starts counted.

    Args:
        study: from `open_study`.
        data: with the study's half of val (`split_val`).
        tracker: the open run of the study; every trial becomes a nested run with its true status.

    Returns:
        The number of trials that this worker ran.
    """
    done = 0
    with tqdm(total=n_trials, desc=f"study {study.study_name}", unit="trial", disable=None) as bar:
        while True:
            requeue_dead(study)
            taken = count_taken(study)
            bar.update(taken - bar.n)
            if taken >= n_trials:
                return done
            done += _one_trial(study, data, tracker, torch.device(device))


def _one_trial(study: optuna.Study, data: HeadData, tracker: Tracker, device: torch.device) -> int:
    """Claim a trial and run it; 1, or 0 where the database was cut off and the trial's values wait anew."""
    trial: optuna.Trial | None = None
    try:
        trial = claim(study)
        TrialRun(study, trial, data, tracker, device).run()
    except Exception as error:
        if not is_cut_off(error):
            raise
        logger.warning("the study's database was cut off and is asked again")
        if trial is not None:
            end_cut_off(study, trial.number)
        return 0
    return 1


def end_cut_off(study: optuna.Study, number: int) -> None:
    """Fail a trial during which the database went away, and queue its values anew, unless it had ended already."""
    while True:
        try:
            trial = study.get_trials(deepcopy=False)[number]
            if not trial.state.is_finished():
                with suppress(UpdateFinishedTrialError):
                    study.tell(number, state=TrialState.FAIL)
                    queue_again(study, trial)
            return
        except Exception as error:
            if not is_cut_off(error):
                raise


def count_taken(study: optuna.Study) -> int:
    """Trials that have ended or are running; failed ones whose values were queued again do not count."""
    trials = study.get_trials(deepcopy=False)
    retried = {trial.user_attrs.get("retry_of") for trial in trials}
    return sum(trial.state != TrialState.WAITING and trial.number not in retried for trial in trials)


def running_elsewhere(study: optuna.Study) -> int:
    """Trials that other workers still run."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))


@dataclass
class TrialRun:
    """One trial: its heads are trained on train, its epochs and its value come from the study's half of val."""

    study: optuna.Study
    trial: optuna.Trial
    data: HeadData
    tracker: Tracker
    device: torch.device
    best: float = float("inf")
    pruned: bool = False
    settings: HeadSettings = field(init=False)

    def run(self) -> None:
        """Train, tell Optuna, close the MLflow run the same way.

        A trial that another worker has ended, because it took this one for dead, is dropped.
        """
        try:
            self._run()
        except UpdateFinishedTrialError:
            logger.warning(
                f"trial {self.trial.number} was taken by another worker, which took this one for dead: dropped here"
            )

    def _run(self) -> None:
        self.settings = suggest(self.trial, self.study.user_attrs["space"])
        tags = {
            "optuna.study": self.study.study_name,
            "optuna.trial": self.trial.number,
            "optuna.known": self.trial.user_attrs.get("known"),
        }
        with self.tracker.run(f"trial_{self.trial.number:03d}", params=self.trial.params, tags=tags) as run:
            try:
                self.trial.set_user_attr("mlflow_run_id", run.run_id)
                self._train(run)
            except UpdateFinishedTrialError:
                run.set_tags({"optuna.state": "TAKEN"})
                run.set_status("KILLED")
                raise

    def _train(self, run: Tracker) -> None:
        try:
            result = train_head(self.data, self.settings, self._on_epoch, device=self.device)
        except ValueError as error:  # a loss that is not finite: lr too high, say
            self._end(run, TrialState.FAIL, "FAILED")
            run.set_tags({"error": error})
            logger.warning(f"trial {self.trial.number} failed: {error}")
            return
        except (KeyboardInterrupt, SystemExit):  # Ctrl-C, and a polite kill
            with suppress(UpdateFinishedTrialError):
                self._end(run, TrialState.FAIL, "KILLED")
                queue_again(self.study, self.study.trials[self.trial.number])
            raise
        run.log_metric_rows({epoch: {"study/val_log_loss": loss} for epoch, loss in enumerate(result.val_log_loss)})
        if self.pruned:
            self._end(run, TrialState.PRUNED, "KILLED")
            return
        value = self._tell(result)
        run.log_metrics({"study/kept_val_log_loss": value, "study/best_epoch": result.best_epoch})
        run.set_tags({"optuna.state": "COMPLETE"})

    def _tell(self, result: HeadResult) -> float:
        kept = accepted_gains(self.data, result)
        value = kept_log_loss(self.data, result, kept)
        self.trial.set_user_attr("best_epoch", result.best_epoch)
        self.trial.set_user_attr("accepted", len(kept))
        tell(self.study, self.trial, value)
        return value

    def _end(self, run: Tracker, state: TrialState, status: str) -> None:
        tell(self.study, self.trial, state=state)
        run.set_tags({"optuna.state": state.name})
        run.set_status(status)

    def _on_epoch(self, epoch: int, losses: np.ndarray) -> set[int]:
        self.best = min(self.best, float(losses[0]))
        mark_alive(self.trial)
        self.trial.report(self.best, epoch)
        self.pruned = (
            "known" not in self.trial.user_attrs and epoch < self.settings.epochs and self.trial.should_prune()
        )
        return {0} if self.pruned else set()


def kept_log_loss(data: HeadData, result: HeadResult, kept: dict[int, Acceptance]) -> float:
    """Calibrated val log loss over *all* sectors of the heads that Phase 2 would save.

    Args:
        kept: sector -> what val accepted (`accepted_gains`). A sector under min_samples or without an accepted head
            counts with its initial head: a study over the trained sectors alone would win by training few.
    """
    assert data.val is not None
    return result.val_log_loss[0] - sum(verdict.gain * verdict.n for verdict in kept.values()) / len(data.val)
