"""The study: its halves of val, its objective, its workers, and what it concludes."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import TrialState

from lasps import tracking
from lasps.config.settings import settings
from lasps.evaluation.focal_calibration import calibrated_probabilities
from lasps.tracking import NullTracker
from lasps.tracking.environment import process_tags
from lasps.tracking.location import connect, local_location
from lasps.training.heads.acceptance import logits_of
from lasps.training.heads.data import HeadData, as_samples
from lasps.training.heads.nested import accepted_gains, train_head
from lasps.training.heads.settings import HeadSettings
from lasps.tuning import best_settings, conclude, open_study, requeue_dead, run_trials, space_of, split_val, study
from lasps.tuning.conclusion import Conclusion, forecast, log_loss_of
from lasps.tuning.liveness import mark_own
from lasps.tuning.storage import journal_path
from lasps.tuning.study import DEFAULT, TUNED
from lasps.tuning.trials import kept_log_loss


@pytest.fixture(autouse=True)
def short_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "EPOCHS", (1, 4))
    monkeypatch.setattr(study, "STARTUP_TRIALS", 4)
    monkeypatch.setattr(study, "DEFAULT", replace(study.DEFAULT, epochs=3))


@pytest.fixture
def halves(data: HeadData):
    assert data.val is not None
    studied, unseen = split_val(data.val)
    return HeadData(data.train, data.start, studied, data.class_weights), unseen


def opened(tmp_path: Path, data: HeadData, **changes) -> optuna.Study:
    arguments = {"storage": str(tmp_path / "s.journal"), "made_on": "abc", "space": space_of(data)} | changes
    return open_study("s", **arguments)


# ------------------------------------------------------------------------------------------------ halves


def test_the_halves_alternate_in_blocks_of_ten_days_and_share_no_day():
    days = np.repeat(np.arange(100), 3)
    val = as_samples(np.zeros((300, 2)), np.zeros(300), np.zeros(300), days)
    studied, unseen = split_val(val)
    assert sorted(set(studied.days)) == [d for d in range(100) if d // 10 % 2 == 0]
    assert sorted(set(unseen.days)) == [d for d in range(100) if d // 10 % 2 == 1]


def test_a_short_val_is_split_finer_with_a_warning_and_one_day_not_at_all():
    val = as_samples(np.zeros((30, 2)), np.zeros(30), np.zeros(30), np.repeat(np.arange(15), 2))
    studied, unseen = split_val(val)
    assert sorted(set(studied.days)) == [0, 1, 4, 5, 8, 9, 12, 13] and len(studied) + len(unseen) == 30
    with pytest.raises(ValueError, match="at least two days"):
        split_val(as_samples(np.zeros((5, 2)), np.zeros(5), np.zeros(5), np.zeros(5)))


def test_samples_without_dates_are_cut_in_file_order():
    studied, unseen = split_val(as_samples(np.arange(100.0)[:, None], np.zeros(100), np.zeros(100)))
    assert studied.features[:, 0].tolist() == [i for i in range(100) if i // 10 % 2 == 0]
    assert len(unseen) == 50


# ------------------------------------------------------------------------------------------------ objective


def test_the_objective_is_the_log_loss_over_all_sectors_small_and_refused_ones_with_their_start(halves):
    data, _ = halves
    result = train_head(data, HeadSettings(lr=1e-2, epochs=3, min_samples=100))
    accepted = accepted_gains(data, result)
    assert 3 not in result.best_heads and len(accepted) > 1
    kept = dict(list(accepted.items())[:1])  # as if the others had been refused
    p = np.empty(len(data.val))
    for i, (x, y, s) in enumerate(zip(data.val.features, data.val.labels, data.val.sector_ids, strict=True)):
        sector = int(s)
        head = result.best_heads[sector] if sector in kept else {k: v[sector] for k, v in data.start.items()}
        p[i] = calibrated_probabilities(logits_of(head, x[None]).double().numpy(), 2.0)[0, int(y)]
    assert kept_log_loss(data, result, kept) == pytest.approx(-np.log(p).mean(), abs=1e-6)


def test_training_no_sector_well_cannot_beat_training_all(halves):
    data, _ = halves
    few, all_of_them = (train_head(data, HeadSettings(1e-2, 3, min_samples=n)) for n in (400, 20))
    assert kept_log_loss(data, few, accepted_gains(data, few)) > kept_log_loss(
        data, all_of_them, accepted_gains(data, all_of_them)
    )


# ------------------------------------------------------------------------------------------------ the study


def test_known_defaults_come_first_and_the_values_found_are_those_of_the_best_trial(halves, tmp_path):
    data, _ = halves
    found = opened(tmp_path, data)
    assert run_trials(found, data, 6, NullTracker()) == 6
    assert [t.user_attrs.get("known") for t in found.trials[:3]] == ["default", "no penalty", None]
    assert found.trials[0].params == {
        "lr": 5e-4,
        "epochs": 3,
        "min_samples": 100,
        "rank": DEFAULT.rank,
        "penalty": DEFAULT.penalty,
    }
    assert all(t.state == TrialState.COMPLETE for t in found.trials[:2]), "defaults are never pruned"
    best = min((t for t in found.trials if t.state == TrialState.COMPLETE), key=lambda t: t.value)
    assert best_settings("s", str(tmp_path / "s.journal")) == best.params


def test_a_study_goes_on_where_it_was_and_repeats_itself_with_its_seed(halves, tmp_path):
    data, _ = halves
    run_trials(opened(tmp_path / "a", data), data, 3, NullTracker())
    again = opened(tmp_path / "a", data)
    assert run_trials(again, data, 6, NullTracker()) == 3
    whole = opened(tmp_path / "b", data)
    run_trials(whole, data, 6, NullTracker())
    assert [t.params for t in again.trials] == [t.params for t in whole.trials]
    assert len({t.params["lr"] for t in whole.trials[2:]}) == 4, "every trial draws anew"


def test_a_study_of_another_checkpoint_is_refused_by_name(halves, tmp_path):
    opened(tmp_path, halves[0])
    with pytest.raises(ValueError, match="STUDY="):
        opened(tmp_path, halves[0], made_on="xyz")


def test_a_missing_or_empty_study_says_how_to_make_one(halves, tmp_path):
    with pytest.raises(ValueError, match="make tune STUDY=none"):
        best_settings("none", str(tmp_path / "none.journal"))
    assert not (tmp_path / "none.journal").exists()
    opened(tmp_path, halves[0])
    with pytest.raises(ValueError, match="no completed trial"):
        best_settings("s", str(tmp_path / "s.journal"))


def test_any_optuna_storage_url_will_do(halves, tmp_path):
    data, _ = halves
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    run_trials(opened(tmp_path, data, storage=url), data, 2, NullTracker())
    assert set(best_settings("s", url)) == set(TUNED)


def test_a_dead_workers_trial_is_failed_and_its_values_are_tried_again(halves, tmp_path):
    data, _ = halves
    found = opened(tmp_path, data)
    left = found.ask()
    study.suggest(left, space_of(data))
    left.set_user_attr("owner", process_tags() | {"lasps.pid": "999999999"})
    left.set_user_attr("seen", time.time())
    alive = found.ask()
    study.suggest(alive, space_of(data))
    mark_own(alive)
    assert requeue_dead(found) == [left.number]
    assert requeue_dead(found) == []
    assert found.trials[left.number].state == TrialState.FAIL
    assert found.trials[alive.number].state == TrialState.RUNNING
    found.tell(alive, 1.0)
    run_trials(found, data, 2, NullTracker())
    (retried,) = [t for t in found.trials if t.user_attrs.get("retry_of") == left.number]
    assert retried.state == TrialState.COMPLETE and retried.params == found.trials[left.number].params
    assert retried.user_attrs["known"] == "default"


def test_a_silent_worker_of_another_machine_counts_as_dead_after_a_while(halves, tmp_path):
    found = opened(tmp_path, halves[0])
    trial = found.ask()
    trial.set_user_attr("owner", process_tags() | {"lasps.host": "elsewhere"})
    trial.set_user_attr("seen", 1000.0)
    assert requeue_dead(found, now=1000.0 + 60) == []
    assert requeue_dead(found, now=1000.0 + 3600) == [trial.number]


def test_a_trial_whose_loss_is_not_finite_fails_and_the_study_goes_on(halves, tmp_path, monkeypatch):
    data, _ = halves
    found = opened(tmp_path, data)

    def explode(*_, **__):
        raise ValueError("expected a finite loss")

    monkeypatch.setattr("lasps.tuning.trials.train_head", explode)
    run_trials(found, data, 2, NullTracker())
    assert [t.state for t in found.trials] == [TrialState.FAIL] * 2


def test_trials_are_nested_mlflow_runs_with_their_true_status_and_ids_both_ways(halves, tmp_path, monkeypatch):
    data, _ = halves
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(study, "EPOCHS", (3, 4))  # the last epoch is never pruned
    found = opened(tmp_path, data)
    monkeypatch.setattr(optuna.trial.Trial, "should_prune", lambda self: self.number == 2)
    with tracking.open_tracker(root=tmp_path, system_metrics=False).run("study_s") as run:
        run_trials(found, data, 4, run)
    location = local_location(tmp_path)
    nested = tracking.nested_runs(tracking.latest_run("study_s", location=location), location=location)
    assert len(nested) == 4
    client = connect(location)
    for trial in found.trials:
        logged = client.get_run(trial.user_attrs["mlflow_run_id"])
        assert nested[logged.info.run_name] == logged.info.run_id
        assert logged.data.tags["optuna.trial"] == str(trial.number)
        assert logged.data.tags["optuna.state"] == trial.state.name
        assert logged.info.status == ("KILLED" if trial.state == TrialState.PRUNED else "FINISHED")
        if trial.state == TrialState.COMPLETE:
            assert logged.data.metrics["study/kept_val_log_loss"] == trial.value
    assert [t.state for t in found.trials].count(TrialState.PRUNED) == 1
    assert found.trials[2].state == TrialState.PRUNED


def work_until_killed(path: Path, data: HeadData, space, connection) -> None:
    torch.set_num_threads(1)
    found = open_study("s", str(path), made_on="abc", space=space)
    trial = found.ask()
    mark_own(trial)
    study.suggest(trial, space)
    connection.send(trial.number)
    os.kill(os.getpid(), 9)


def work(path: Path, data: HeadData, space) -> None:
    torch.set_num_threads(1)
    run_trials(open_study("s", str(path), made_on="abc", space=space), data, 12, NullTracker())


@pytest.mark.slow
def test_three_workers_of_which_one_is_killed_finish_the_study(halves, tmp_path):
    data, _ = halves
    space = space_of(data)  # a spawned process does not see what this one patches
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    victim = context.Process(target=work_until_killed, args=(tmp_path / "s.journal", data, space, theirs))
    victim.start()
    killed = ours.recv()
    victim.join()
    workers = [context.Process(target=work, args=(tmp_path / "s.journal", data, space)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    found = opened(tmp_path, data)
    assert found.trials[killed].state == TrialState.FAIL
    assert sum(t.user_attrs.get("retry_of") == killed for t in found.trials) == 1
    assert not [t for t in found.trials if t.state == TrialState.RUNNING]
    draws = [tuple(t.params.values()) for t in found.trials if not t.user_attrs.get("known")]
    assert len(set(draws)) == len(draws), "workers never draw alike"


# ------------------------------------------------------------------------------------------------ the conclusion


def concluded(halves, tmp_path: Path, n_trials: int = 5) -> tuple[Conclusion, optuna.Study]:
    data, unseen = halves
    found = opened(tmp_path, data)
    run_trials(found, data, n_trials, NullTracker())
    return conclude(found, data, unseen), found


def test_the_conclusion_compares_best_and_default_on_days_the_study_did_not_see(halves, tmp_path):
    data, unseen = halves
    assert not set(unseen.days) & set(data.val.days)
    found, of_study = concluded(halves, tmp_path)
    assert found.difference.n == len(unseen) and found.difference.n_days == len(set(unseen.days.tolist()))
    assert found.difference.difference == pytest.approx(found.log_loss["best"] - found.log_loss["default"])
    assert found.best == {k: of_study.best_trial.params[k] for k in TUNED}
    assert found.command == "make train-phase2 STUDY=s"
    json.dumps(found.to_dict())


def test_a_gain_within_noise_is_called_so_and_one_beyond_it_is_not(halves, tmp_path):
    found, _ = concluded(halves, tmp_path)
    found = replace(found, best=found.best | {"lr": 2 * DEFAULT.lr})
    close = replace(found, difference=replace(found.difference, difference=-0.001, low=-0.004, high=0.002))
    clear = replace(found, difference=replace(found.difference, difference=-0.01, low=-0.013, high=-0.007))
    unknown = replace(found, difference=replace(found.difference, low=None, high=None))
    assert any("WITHIN NOISE" in line for line in close.lines()) and not close.is_better
    assert not any("WITHIN NOISE" in line for line in clear.lines()) and clear.is_better
    assert any("WITHIN NOISE" in line for line in unknown.lines())
    assert clear.command in clear.lines()[-1]
    default = replace(clear, best={name: getattr(DEFAULT, name) for name in TUNED})
    assert default.is_default and default.lines()[-1].startswith("KEEP THE DEFAULTS")


def test_the_start_heads_forecast_is_that_of_the_start_heads(halves):
    data, unseen = halves
    start = forecast(data, unseen, None)
    head = {name: value[0] for name, value in data.start.items()}
    p = calibrated_probabilities(logits_of(head, unseen.features).double().numpy(), 2.0)
    expected = -np.log(p[np.arange(len(unseen)), unseen.labels.numpy()]).mean()
    assert log_loss_of(start) == pytest.approx(expected) and (np.diff(start.day) >= 0).all()


def test_the_default_place_of_a_study_is_the_checkpoint_folder():
    assert journal_path("phase2") == settings.CHECKPOINT_DIR / "studies" / "phase2.journal"
