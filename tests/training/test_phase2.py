"""The whole of Phase 2: what changes, what is said, which loaders it takes, what a kill leaves."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset, SubsetRandomSampler, TensorDataset

from lasps.reproducibility import tensor_fingerprint
from lasps.training.heads import shared_features as feature_cache
from lasps.training.phase2 import assert_untouched, train_phase2
from tests.training.market import Market, heads_of, loaders, make_trainer, same


class Tracker:
    """Keeps every call."""

    def __init__(self):
        self.calls = []

    def fill_metric_rows(self, rows):
        self.calls += [(step, dict(metrics)) for step, metrics in rows.items()]


def rest_of(model):
    return tensor_fingerprint({n: v for n, v in model.state_dict().items() if not n.startswith("sector_heads.")})


# ------------------------------------------------------------------------------- what changes and what does not


@pytest.mark.parametrize("rank", [0, 3])
def test_only_trained_sectors_heads_change_even_from_train_mode_and_with_a_last_batch_of_one(rank):
    trainer = make_trainer()
    model = trainer.model
    model.train()
    before, heads = rest_of(model), heads_of(model)
    train_phase2(trainer, loaders(Market()), 2, 1e-3, cache=False, rank=rank)
    assert rest_of(model) == before
    assert model.training and model.cnn.training
    after = heads_of(model)
    moved = [name for name, value in after.items() if name not in heads or not torch.equal(heads[name], value)]
    changed = {int(name.split(".")[1]) for name in moved}
    assert changed == {0, 1, 3}


def test_frozen_flags_and_gradients_stay_as_they_were():
    trainer = make_trainer()
    trainer.model.freeze_backbone()
    flags = {name: parameter.requires_grad for name, parameter in trainer.model.named_parameters()}
    train_phase2(trainer, loaders(Market()), 1, cache=False)
    after = {name: parameter.requires_grad for name, parameter in trainer.model.named_parameters()}
    assert flags == {name: flag for name, flag in after.items() if ".linear." not in name}
    assert not any(flag for name, flag in after.items() if ".linear." in name)
    assert all(parameter.grad is None for parameter in trainer.model.parameters())


def test_a_change_of_anything_but_the_named_heads_is_refused():
    before = make_trainer().model.state_dict()
    assert_untouched(before, {n: v + 1 if n.startswith("sector_heads.1.") else v for n, v in before.items()}, [1])
    for name in ("sector_heads.3.fc2.bias", "sector_heads.1.fc1.bias", "common_head.fc1.weight", "cnn.output.bias"):
        after = {n: v.clone() for n, v in before.items()}
        after[name].view(-1)[-1] += 1e-6
        with pytest.raises(AssertionError, match=name):
            assert_untouched(before, after, [0])


def test_an_error_leaves_the_model_as_it_was():
    trainer = make_trainer()
    before = heads_of(trainer.model)
    with pytest.raises(ValueError, match="finite"):
        train_phase2(trainer, loaders(Market()), 3, lr=1e38, cache=False)
    assert same(before, heads_of(trainer.model))


# ------------------------------------------------------------------------------- what is said and returned


def test_the_plans_lines_come_sector_by_sector(lines):
    history = train_phase2(make_trainer(), loaders(Market()), 2, cache=False)
    assert lines[0] == "Phase 2: Sector Heads (backbone frozen)"
    assert "Sector 2: 0 samples (skipping)" in lines
    epochs = [line for line in lines if line.startswith("Phase2 Sector")]
    assert [line.split(" loss=")[0] for line in epochs] == [
        f"Phase2 Sector {sector} [{epoch}/2]" for sector in (0, 1, 3) for epoch in (1, 2)
    ]
    assert float(epochs[0].split("loss=")[1]) == pytest.approx(history[0]["losses"][0], abs=1e-4)
    assert sum("no val_loaders" in line for line in lines) == 1


def test_history_has_n_losses_best_epoch_and_whether_the_start_was_kept():
    history = train_phase2(make_trainer(), loaders(Market()), 3, cache=False)
    assert {sector: entry["n"] for sector, entry in history.items()} == {0: 30, 1: 17, 3: 9}
    assert all(len(entry["losses"]) == 3 and entry["best_epoch"] == 3 for entry in history.values())
    assert not any(entry["kept_start"] for entry in history.values())


def test_the_logged_loss_is_the_criterions_sample_mean():
    trainer = make_trainer()
    series, charts, sectors, labels = Market().tensors
    own = sectors == 0
    with torch.no_grad():
        logits = trainer.model.eval()(series[own], charts[own], sectors[own])["logits"]
    p = logits.softmax(1).gather(1, labels[own][:, None])[:, 0]
    expected = float(((1 - p) ** 2 * -p.log()).mean())
    history = train_phase2(trainer, loaders(Market()), 1, lr=1e-12, dropout=0.0, rank=0, cache=False)
    assert history[0]["losses"][0] == pytest.approx(expected, rel=1e-5)


def test_metrics_go_to_the_tracker_in_one_call_per_epoch():
    tracker, trainer = Tracker(), make_trainer()
    trainer.tracker = tracker
    val = Market(seed=2)
    history = train_phase2(trainer, loaders(Market()), 2, val_loaders=val, cache=False)
    assert [step for step, _ in tracker.calls] == [0, 1, 2]
    assert tracker.calls[1][1]["phase2/sector_03/train_loss"] == history[3]["losses"][0]
    assert tracker.calls[0][1]["phase2/sector_00/val_loss"] == history[0]["val_losses"][0]


def test_sectors_under_min_samples_are_named_and_keep_their_heads(lines):
    trainer = make_trainer()
    before = heads_of(trainer.model)
    history = train_phase2(trainer, loaders(Market()), 1, min_samples=10, cache=False)
    assert set(history) == {0, 1}
    assert "Sector 3: 9 samples (skipping)" in lines
    after = heads_of(trainer.model)
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith("sector_heads.3."))


@pytest.mark.parametrize(("given", "options"), [({}, {}), (None, {"min_samples": 1000})])
def test_no_sector_with_enough_samples_is_an_error(given, options):
    with pytest.raises(ValueError, match="at least one sector"):
        train_phase2(make_trainer(), loaders(Market()) if given is None else given, 1, cache=False, **options)


def test_a_sample_of_another_sector_in_a_loader_is_an_error():
    market = Market()
    swapped = {0: DataLoader(market.of_sector(1), batch_size=8)}
    with pytest.raises(ValueError, match="only samples of sector 0.*got one of sector 1"):
        train_phase2(make_trainer(), swapped, 1, cache=False)


# ------------------------------------------------------------------------------- any loader


@pytest.mark.parametrize("rank", [0, 3])
def test_every_kind_of_loader_gives_the_same_heads(rank):
    market = Market()
    plain = TensorDataset(*market.tensors)
    keys = ("time_series", "chart_image", "sector_id", "label")
    rows = {s: torch.nonzero(market.tensors[2] == s)[:, 0].tolist() for s in (0, 1, 3)}

    def as_dicts(items):
        return dict(zip(keys, torch.utils.data.default_collate(items), strict=True))

    kinds = [
        {s: DataLoader(market.of_sector(s), batch_size=8, shuffle=True) for s in rows},
        {s: DataLoader(Subset(plain, rows[s]), batch_size=8, shuffle=True) for s in rows},
        {s: DataLoader(Subset(plain, rows[s]), batch_size=8, shuffle=True, collate_fn=as_dicts) for s in rows},
        {s: DataLoader(plain, batch_size=8, sampler=SubsetRandomSampler(rows[s])) for s in rows},
        {s: [tuple(t[rows[s]] for t in market.tensors)] for s in rows},
    ]
    found = []
    for kind in kinds:
        trainer = make_trainer()
        train_phase2(trainer, kind, 2, 1e-3, cache=False, batch_size=8, dropout=0.0, rank=rank)
        found.append(heads_of(trainer.model))
    for other in found[1:]:
        assert all(torch.allclose(found[0][name], other[name], atol=1e-5) for name in other)


# ------------------------------------------------------------------------------- killed and repeated


KILLED = """
import os, signal, sys
import torch
from lasps.training.heads import independent, joint
from lasps.training.phase2 import train_phase2
from tests.training.market import Market, loaders, make_trainer
torch.set_num_threads(1)
rank = int(sys.argv[2])
training = joint.JointTraining if rank else independent.HeadTraining
original = training.train_epoch
def train_epoch(self):
    if self.epoch == 3 and not getattr(self, "common", False):
        os.kill(os.getpid(), signal.SIGKILL)
    original(self)
training.train_epoch = train_epoch
trainer = make_trainer()
trainer.resume_dir = sys.argv[1]
train_phase2(trainer, loaders(Market()), 6, 1e-3, val_loaders=loaders(Market(seed=2)), rank=rank)
"""


@pytest.mark.parametrize("rank", [0, 3])
def test_after_kill_9_a_repeated_call_gives_the_same_bits(tmp_path, lines, rank):
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), str(rank)],
        capture_output=True,
        timeout=120,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert ended.returncode == -9, ended.stderr.decode()
    whole, repeated = make_trainer(), make_trainer()
    repeated.resume_dir = tmp_path
    val = loaders(Market(seed=2))
    train_phase2(whole, loaders(Market()), 6, 1e-3, val_loaders=val, cache=False, rank=rank)
    assert "Phase 2: resuming after epoch 3" not in lines
    market = Market()
    train_phase2(repeated, loaders(market), 6, 1e-3, val_loaders=val, rank=rank)
    assert "Phase 2: resuming after epoch 3" in lines
    assert market.reads <= feature_cache.CHECKED_SAMPLES
    assert same(heads_of(whole.model), heads_of(repeated.model))
    assert not list(tmp_path.glob("*.state.pt"))


def test_shuffled_loaders_and_torchs_global_seed_change_nothing():
    found = []
    for seed in (1, 2):
        trainer = make_trainer()
        torch.manual_seed(seed)
        train_phase2(trainer, loaders(Market()), 2, cache=False)
        found.append(heads_of(trainer.model))
    assert same(*found)


def test_a_plain_module_with_encode_and_heads_is_enough():
    class Foreign(nn.Module):
        def __init__(self):
            super().__init__()
            self.sector_heads = make_trainer().model.sector_heads
            self.mix = nn.Linear(5, 128)

        def encode(self, series, charts):
            return self.mix(series[:, -1])

    trainer = SimpleNamespace(model=Foreign(), device="cpu")
    assert len(train_phase2(trainer, loaders(Market()), 1, cache=False)) == 3
