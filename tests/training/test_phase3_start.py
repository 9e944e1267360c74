"""Phase 3 may leave the model as it was: if asked to, the weights it starts from are a candidate like any epoch's."""

import pytest
import torch

from lasps.training.trainer import ThreePhaseTrainer
from tests.training.tiny import make_loaders, make_trainer, same


def fit(trainer: ThreePhaseTrainer, lr: float, keep_start: bool, epochs: int = 2) -> dict:
    return trainer.train_phase3(*make_loaders(), epochs=epochs, lr=lr, patience=epochs, keep_start=keep_start)


def trained() -> ThreePhaseTrainer:
    trainer = make_trainer()
    trainer.train_phase1(*make_loaders(), epochs=6, lr=1e-2, patience=6)
    return trainer


def test_where_no_epoch_is_better_on_val_the_start_stays_to_the_bit():
    trainer = trained()
    start, before = trainer.state_dict(), trainer.evaluate(3, make_loaders()[1], "start")
    result = fit(trainer, lr=0.5, keep_start=True)
    assert min(result["val_log_loss"]) > before["val_log_loss"], "the rate must be one that makes everything worse"
    assert result["best_epoch"] == 0 and same(trainer.state_dict(), start)
    assert (result["best_val_log_loss"], result["best_val_loss"]) == (
        before["val_log_loss"],
        before["val_loss"],
    )


def test_an_epoch_that_is_better_on_val_replaces_the_start():
    trainer = trained()
    start = trainer.state_dict()
    result = fit(trainer, lr=1e-3, keep_start=True)
    assert result["best_epoch"] > 0 and not same(trainer.state_dict(), start)


def test_without_keep_start_the_best_epoch_counts_whatever_it_is():
    trainer = trained()
    start = trainer.state_dict()
    result = fit(trainer, lr=0.5, keep_start=False)
    assert result["best_epoch"] > 0 and not same(trainer.state_dict(), start)


def test_a_resumed_phase_still_knows_its_start(tmp_path, monkeypatch):
    def run(folder, resume=False):
        trainer = trained()
        trainer.resume_dir, trainer.resume = folder, resume
        return fit(trainer, lr=0.5, keep_start=True), trainer.state_dict()

    whole = run(tmp_path / "whole")
    evaluate, calls = ThreePhaseTrainer.evaluate, []

    def dies_in_its_second_phase_3_epoch(self, phase, *rest):
        calls.extend([1] * (phase == 3))
        if len(calls) == 3:  # the start, epoch 1, epoch 2
            raise KeyboardInterrupt
        return evaluate(self, phase, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ThreePhaseTrainer, "evaluate", dies_in_its_second_phase_3_epoch)
        run(tmp_path / "cut")
    trainer = trained()
    trainer.resume_dir, trainer.resume = tmp_path / "cut", True
    result = fit(trainer, lr=0.5, keep_start=True)
    assert (result["best_epoch"], result["best_val_log_loss"]) == (0, whole[0]["best_val_log_loss"])
    assert all(torch.equal(value, whole[1][name]) for name, value in trainer.state_dict().items())
