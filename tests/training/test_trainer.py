"""Phases 1 and 3: they learn, choose, stop, repeat to the bit, resume to the bit, and stop before a bad step."""

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from loguru import logger
from torch.utils.data import DataLoader

from lasps.evaluation.focal_calibration import calibrated_probabilities
from lasps.models.sector_aware_model import SectorAwareFusionModel
from lasps.tracking import NullTracker
from lasps.training.batches import BatchLoader
from lasps.training.inference import predict
from lasps.training.loss_functions import FocalLoss
from lasps.training.resume import resume_path
from lasps.training.trainer import ThreePhaseTrainer, uses_bf16
from tests.training.tiny import TinyDataset, make_loaders, make_model, make_trainer, same, train_both

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tiny tensors gain nothing from a second thread, and bits are compared at one thread count."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def uninterrupted():
    return train_both()


class Recorder(NullTracker):
    def __init__(self):
        self.calls = []

    def log_metrics(self, metrics, step=None, dataset=None):
        self.calls.append((step, dict(metrics)))


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


class DiesAt:
    """A loader that is interrupted at the n-th batch it would give."""

    def __init__(self, loader, batch, error=KeyboardInterrupt):
        self.loader, self.left, self.error = loader, batch, error
        self.dataset, self.batch_size, self.seed = loader.dataset, loader.batch_size, loader.seed
        self.set_epoch = loader.set_epoch

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        for batch in self.loader:
            if self.left == 0:
                raise self.error
            self.left -= 1
            yield batch


# ------------------------------------------------------------------------------------------------ learning and choosing


def test_a_tiny_run_learns_and_its_losses_are_the_golden_ones():
    """Literal numbers of this seed: a refactor must not move them. (tolerance: other processors)"""
    trainer = make_trainer()
    first = trainer.train_phase1(*make_loaders(), epochs=4, lr=1e-2, patience=4)
    third = trainer.train_phase3(*make_loaders(), epochs=2, lr=1e-3, patience=2)
    assert first["train_loss"] == pytest.approx(GOLDEN["phase1 train"], abs=1e-4)
    assert first["val_loss"] == pytest.approx(GOLDEN["phase1 val"], abs=1e-4)
    assert third["train_loss"] == pytest.approx(GOLDEN["phase3 train"], abs=1e-4)
    assert third["val_log_loss"] == pytest.approx(GOLDEN["phase3 val log loss"], abs=1e-4)
    assert first["val_log_loss"][-1] < first["val_log_loss"][0] - 0.1


GOLDEN = {
    "phase1 train": [0.644394, 0.492641, 0.463891, 0.44264],
    "phase1 val": [0.536456, 0.482912, 0.457163, 0.452166],
    "phase3 train": [0.435998, 0.436524],
    "phase3 val log loss": [1.024672, 1.020804],
}


def test_an_epoch_to_stop_after_gives_the_weights_of_that_epoch_without_a_look_at_val(monkeypatch):
    seen = {}

    def remember(self, run, metrics, epochs):
        seen[run.phase, run.epoch] = self.state_dict()

    monkeypatch.setattr(ThreePhaseTrainer, "_report", remember)
    make_trainer().train_phase1(*make_loaders(), epochs=4, lr=1e-2, patience=4)
    again = make_trainer()
    history = again.train_phase1(make_loaders()[0], None, epochs=4, lr=1e-2, patience=4, stop_after=2)
    assert (len(history["train_loss"]), history["best_epoch"]) == (2, 2)
    state = again.state_dict()
    backbone = [name for name in state if not name.startswith("sector_heads.")]
    assert all(torch.equal(state[name], seen[1, 2][name]) for name in backbone)
    assert not all(torch.equal(state[name], seen[1, 4][name]) for name in backbone)


def test_the_returned_figures_are_sample_means_of_the_best_weights():
    train, val = make_loaders()
    trainer = make_trainer(class_weights=(1.0, 0.5, 2.0))
    history = trainer.train_phase1(train, val, epochs=3, lr=1e-2, patience=3)
    found = predict(trainer.model, val.dataset, phase=1, batch_size=50)  # other batches than in training
    loss = FocalLoss(3, 2.0, [1.0, 0.5, 2.0])(torch.from_numpy(found.logits), torch.from_numpy(found.labels))
    p = calibrated_probabilities(found.logits, 2.0, (1.0, 0.5, 2.0))
    best = history["best_epoch"]
    assert history["best_val_loss"] == history["val_loss"][best - 1] == pytest.approx(float(loss), rel=1e-5)
    assert history["best_val_log_loss"] == min(history["val_log_loss"]) == history["val_log_loss"][best - 1]
    assert history["best_val_log_loss"] == pytest.approx(-np.log(p[np.arange(50), found.labels]).mean(), rel=1e-5)
    assert history["val_accuracy"][best - 1] == pytest.approx((found.logits.argmax(1) == found.labels).mean())
    assert not trainer.model.training


def test_the_training_loss_weighs_a_short_last_batch_by_its_samples():
    dataset = TinyDataset(17)  # batches of 16 and 1
    trainer = make_trainer(without_dropout(make_model()), warmup_fraction=0.0)
    found = predict(trainer.model, dataset, phase=1)
    expected = FocalLoss()(torch.from_numpy(found.logits), torch.from_numpy(found.labels))
    history = trainer.train_phase1(BatchLoader(dataset, 16), None, epochs=1, lr=1e-12, patience=1)
    assert history["train_loss"][0] == pytest.approx(float(expected), rel=1e-5)


def test_training_stops_when_val_does_not_gain_and_goes_back_to_the_best_weights(monkeypatch):
    scores = iter([0.9, 0.8, 0.8, 0.85, 0.7])
    trainer, seen = make_trainer(), []

    def evaluated(self, phase, val_loader, bar):
        seen.append(trainer.state_dict())
        score = next(scores)
        return {"val_loss": score / 2, "val_log_loss": score, "val_accuracy": 0.5}

    monkeypatch.setattr(ThreePhaseTrainer, "evaluate", evaluated)
    history = trainer.train_phase3(*make_loaders(), epochs=9, lr=1e-2, patience=2)
    assert (history["best_epoch"], history["best_val_loss"], history["best_val_log_loss"]) == (2, 0.4, 0.8)
    assert len(history["train_loss"]) == 4  # a tie is no gain
    assert same(trainer.state_dict(), seen[1])


def test_at_phase_1s_end_every_sector_head_is_the_common_head_and_not_before():
    model = make_model()
    with torch.no_grad():
        model.sector_heads[1].fc1.weight.add_(1)
    trainer = make_trainer(model)
    trainer.train_phase1(*make_loaders(), epochs=1, lr=1e-2, patience=1)
    for head in model.sector_heads:
        assert same(head.state_dict(), model.common_head.state_dict())


@pytest.mark.parametrize(("phase", "still"), [(1, "sector_heads"), (3, "common_head")])
def test_a_phase_moves_everything_but_the_heads_it_does_not_use(phase, still, monkeypatch):
    monkeypatch.setattr(SectorAwareFusionModel, "init_sector_heads_from_common", lambda self: None)
    model = make_model()
    model.freeze_backbone()  # as Phase 2 may have left it
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trainer = make_trainer(model)
    getattr(trainer, f"train_phase{phase}")(*make_loaders(), epochs=1, lr=1e-2, patience=1)
    moved = {name.split(".")[0] for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"ts_encoder", "cnn", "shared_fusion", "common_head", "sector_heads"} - {still}


def test_without_val_all_epochs_are_trained_with_one_warning():
    seen = []
    handler = logger.add(lambda message: seen.append(message), level="WARNING")
    history = make_trainer().train_phase1(make_loaders()[0], None, epochs=2, lr=1e-3, patience=1)
    logger.remove(handler)
    assert (len(seen), history["best_epoch"], history["best_val_loss"], history["val_loss"]) == (1, 2, None, [])


def test_a_kill_between_an_epoch_s_state_and_its_report_costs_the_tracker_no_metric(tmp_path):
    class Killed(Recorder):
        def log_metrics(self, metrics, step=None, dataset=None):
            if step == 2:
                raise KeyboardInterrupt
            super().log_metrics(metrics, step)

    class Resumed(Recorder):
        def fill_metric_rows(self, rows):
            self.calls += [(step, dict(metrics)) for step, metrics in rows.items() if metrics]

    with pytest.raises(KeyboardInterrupt):
        make_trainer(tracker=Killed(), resume_dir=tmp_path).train_phase1(*make_loaders(), epochs=3, lr=1e-3, patience=3)
    tracker = Resumed()
    trainer = make_trainer(tracker=tracker, resume_dir=tmp_path, resume=True)
    history = trainer.train_phase1(*make_loaders(), epochs=3, lr=1e-3, patience=3)
    assert [step for step, _ in tracker.calls] == [1, 2, 3]
    assert [metrics["phase1/val_loss"] for _, metrics in tracker.calls] == history["val_loss"]


def test_the_tracker_gets_one_call_per_epoch():
    tracker = Recorder()
    history = make_trainer(tracker=tracker).train_phase1(*make_loaders(), epochs=2, lr=1e-3, patience=2)
    assert [step for step, _ in tracker.calls] == [1, 2]
    assert {name.removeprefix("phase1/") for name in tracker.calls[0][1]} == {
        "train_loss",
        "val_loss",
        "val_log_loss",
        "val_accuracy",
        "lr",
        "seconds",
        "samples_per_second",
    }
    assert [metrics["phase1/val_loss"] for _, metrics in tracker.calls] == history["val_loss"]


def test_plain_tuple_loaders_of_any_dataset_train_as_the_fast_loader_does():
    dataset, val = TinyDataset(40), TinyDataset(20, 1)
    fast, plain = (make_trainer(without_dropout(make_model())) for _ in range(2))  # a DataLoader draws a number itself
    fast.train_phase1(BatchLoader(dataset, 16), BatchLoader(val, 16), epochs=2, lr=1e-3, patience=2)
    plain.train_phase1(DataLoader(dataset, 16), DataLoader(val, 16), epochs=2, lr=1e-3, patience=2)
    assert same(fast.state_dict(), plain.state_dict())


def test_bf16_autocast_trains_close_to_float32():
    exact = make_trainer().train_phase1(*make_loaders(), epochs=2, lr=1e-3, patience=2)
    fast = make_trainer(autocast="bf16").train_phase1(*make_loaders(), epochs=2, lr=1e-3, patience=2)
    assert fast["train_loss"] == pytest.approx(exact["train_loss"], abs=0.02)
    assert fast["train_loss"] != exact["train_loss"]


# ------------------------------------------------------------------------------------------------ determinism


def test_one_seed_gives_the_same_bits_whatever_ran_before(uninterrupted):
    torch.rand(17)
    np.random.default_rng(3)
    assert same(train_both(), uninterrupted)


def test_another_seed_gives_other_weights(uninterrupted):
    trainer = make_trainer(seed=8)
    trainer.train_phase1(*make_loaders(), epochs=2, lr=3e-3, patience=2)
    assert not same(trainer.state_dict(), uninterrupted)


# ------------------------------------------------------------------------------------------------ resuming


@pytest.mark.parametrize("batch", [0, 2, 6])
def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path, uninterrupted, batch):
    """4 batches an epoch: before the first epoch's end, and in the second epoch of Phase 1."""
    train, _ = make_loaders()
    with pytest.raises(KeyboardInterrupt):
        train_both(tmp_path, train=DiesAt(train, batch))
    assert same(train_both(tmp_path, resume=True), uninterrupted)


def test_a_phase_that_is_over_is_not_trained_again(tmp_path, uninterrupted):
    train_both(tmp_path)
    train, _ = make_loaders()
    assert same(train_both(tmp_path, resume=True, train=DiesAt(train, 0)), uninterrupted)


def test_a_shuffling_dataloader_resumes_to_the_same_bits_too(tmp_path):
    def loader():
        return DataLoader(TinyDataset(), batch_size=16, shuffle=True, generator=torch.Generator().manual_seed(2))

    expected = train_both(train=loader())
    trainer = make_trainer(resume_dir=tmp_path)
    interrupted = loader()
    trainer.criterion.forward = failing_after(trainer.criterion.forward, 6)
    with pytest.raises(KeyboardInterrupt):
        trainer.train_phase1(interrupted, make_loaders()[1], epochs=2, lr=3e-3, patience=2)
    assert same(train_both(tmp_path, resume=True, train=loader()), expected)


def failing_after(function, calls):
    left = [calls]

    def wrapped(*args):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return function(*args)

    return wrapped


def test_kill_9_in_the_middle_resumes_to_the_same_bits(tmp_path, uninterrupted):
    code = (
        f"import torch, time; torch.set_num_threads({torch.get_num_threads()})\n"
        "from tests.training import tiny\n"
        "from lasps.training import trainer\n"
        "step = trainer.ThreePhaseTrainer._step\n"
        "def slow(self, run, *rest):\n"
        "    if run.epoch >= 1: time.sleep(60)\n"
        "    return step(self, run, *rest)\n"
        "trainer.ThreePhaseTrainer._step = slow\n"
        f"tiny.train_both({str(tmp_path)!r})"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while not resume_path(tmp_path, 1).exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert resume_path(tmp_path, 1).exists()
    assert process.returncode == -signal.SIGKILL
    assert same(train_both(tmp_path, resume=True), uninterrupted)


@pytest.mark.parametrize(
    "changed", [{"lr": 1e-3}, {"epochs": 3}, {"seed": 8}, {"gradient_clip": 2.0}, {"data": 80}, {"start": 12}]
)
def test_a_state_of_another_run_is_an_error_that_names_the_difference(tmp_path, changed):
    numbers = {"epochs": 1, "lr": 3e-3, "patience": 2}
    make_trainer(resume_dir=tmp_path).train_phase1(*make_loaders(), **numbers)
    options = {name: value for name, value in changed.items() if name in ("seed", "gradient_clip")}
    numbers |= {name: value for name, value in changed.items() if name in numbers}
    trainer = make_trainer(make_model(changed.get("start", 11)), resume_dir=tmp_path, resume=True, **options)
    name = "train fingerprint" if "data" in changed else next(iter(changed))
    with pytest.raises(ValueError, match=f"{name} was .*Start afresh without --resume"):
        trainer.train_phase1(*make_loaders(changed.get("data", 60)), **numbers)


def test_without_resume_an_old_state_is_left_behind_even_if_the_new_run_dies_at_once(tmp_path, uninterrupted):
    make_trainer(resume_dir=tmp_path, seed=99).train_phase1(*make_loaders(), epochs=1, lr=1e-2, patience=1)
    with pytest.raises(KeyboardInterrupt):
        train_both(tmp_path, train=DiesAt(make_loaders()[0], 1))
    assert same(train_both(tmp_path, resume=True), uninterrupted)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", None])
def test_a_damaged_state_is_an_error_with_advice(tmp_path, damage):
    train_both(tmp_path, epochs=1)
    path = resume_path(tmp_path, 1)
    path.write_bytes(path.read_bytes()[:-900] if damage is None else damage)
    with pytest.raises(ValueError, match="damaged or of another version|altered or cut off"):
        train_both(tmp_path, resume=True, epochs=1)


# ------------------------------------------------------------------------------------------------ refusals


def test_a_loss_that_is_not_finite_stops_before_the_step_and_names_the_place(tmp_path):
    model = make_model()
    trainer = make_trainer(model, resume_dir=tmp_path)
    train, val = make_loaders()
    trainer.criterion.forward = poisoned_at(trainer.criterion.forward, 5, model)
    with pytest.raises(ValueError, match=r"Phase 3, epoch 2, step 6, batch 1 \(samples \d+, .*\): .*finite loss"):
        trainer.train_phase3(train, val, epochs=3, lr=1e-3, patience=3)
    assert same(model.state_dict(), poisoned_at.before)
    assert resume_path(tmp_path, 3).exists()


def poisoned_at(function, call, model):
    """`function`, NaN at its n-th call (from 0); remembers the weights at that moment."""
    calls = [0]

    def wrapped(*args):
        calls[0] += 1
        if calls[0] != call + 1:
            return function(*args)
        poisoned_at.before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        return function(*args) * math.nan

    return wrapped


def test_a_gradient_that_is_not_finite_stops_before_the_step():
    model = make_model()
    model.common_head.fc2.bias.register_hook(lambda gradient: gradient * math.inf)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match="step 1, batch 0 .*finite gradient norm"):
        make_trainer(model).train_phase1(*make_loaders(), epochs=1, lr=1e-3, patience=1)
    assert same(model.state_dict(), before)


def test_a_bad_sample_is_named_with_its_place():
    train, val = make_loaders()
    train.dataset.series[33, 2, 1] = math.nan
    where = int(np.flatnonzero(train.order(0) == 33)[0])
    with pytest.raises(
        ValueError,
        match=f"Phase 1, epoch 1, step {where // 16 + 1}, batch {where // 16} .*sample {where % 16} of the batch",
    ):
        make_trainer().train_phase1(train, val, epochs=1, lr=1e-3, patience=1)


@pytest.mark.parametrize("numbers", [{"epochs": 0}, {"patience": 0}, {"lr": 0.0}, {"lr": math.nan}])
def test_hyperparameters_that_cannot_train_are_an_error(numbers):
    with pytest.raises(ValueError, match="expected epochs >= 1"):
        make_trainer().train_phase1(*make_loaders(), **({"epochs": 1, "lr": 1e-3, "patience": 1} | numbers))


@pytest.mark.parametrize("which", [0, 1])
def test_an_empty_loader_is_an_error_before_training(which):
    loaders = list(make_loaders())
    loaders[which] = BatchLoader(TinyDataset(0), 4)
    with pytest.raises(ValueError, match=("train_loader", "val_loader")[which]):
        make_trainer().train_phase1(*loaders, epochs=1, lr=1e-3, patience=1)


def test_autocast_is_auto_bf16_or_off():
    assert uses_bf16("bf16", torch.device("cpu"))
    assert not uses_bf16("off", torch.device("cpu"))
    assert isinstance(uses_bf16("auto", torch.device("cpu")), bool)
    with pytest.raises(ValueError, match="autocast"):
        uses_bf16("fp16", torch.device("cpu"))
