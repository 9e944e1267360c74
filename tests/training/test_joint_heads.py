"""Shared directions: exact against a plain loop, trained as they are used, reloaded to the same loss."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from experiments.benchmarks.heads_reference import plain_joint_loop
from lasps.evaluation.focal_calibration import calibrated_log_probabilities
from lasps.models.sector_aware_model import ClassificationHead
from lasps.training.checkpoints import load_checkpoint, save_checkpoint
from lasps.training.heads.acceptance import Acceptance, accept_together, acceptance_of
from lasps.training.heads.data import HeadData, stacked_heads_of
from lasps.training.heads.directions import autograd_gradients, calibrated_loss_and_gradient, calibrated_losses
from lasps.training.heads.joint import JOINT, train_directions
from lasps.training.heads.nested import train_nested
from lasps.training.heads.settings import HeadSettings
from lasps.training.phase2 import train_phase2
from tests.training.heads import head_market
from tests.training.market import Market, loaders, make_trainer

SETTINGS = HeadSettings(rank=3, penalty=2.0, lr=2e-3, epochs=4, batch_size=4, min_samples=20)


def low_rank_market(sizes=(900, 700, 500, 400), effect=1.5, seed=3, gamma=2.0):
    """Two of 16 features matter, with weights of each sector's own; the initial heads know nothing of it."""
    generator = torch.Generator().manual_seed(seed)
    base = head_market(list(sizes), [n // 2 for n in sizes], seed=seed, signal=0.0)
    loadings = effect * torch.randn(len(sizes), 2, generator=generator, dtype=torch.float64)
    loadings -= loadings.mean(dim=0)

    def labelled(samples):
        push = (samples.features[:, :2] * loadings[samples.sector_ids]).sum(1)
        noise = torch.randn(len(push), generator=generator, dtype=torch.float64)
        return replace(samples, labels=torch.bucketize(push + noise, torch.tensor([-0.6, 0.6], dtype=torch.float64)))

    flat = {name: torch.zeros_like(value) for name, value in base.start.items()}
    return replace(
        base,
        train=labelled(base.train),
        val=labelled(base.val),
        start=flat,
        start_gamma=gamma,
        class_weights=(1.0, 1.0, 1.0),
    )


@pytest.mark.parametrize("common", [False, True])
def test_the_fast_path_equals_a_plain_loop_with_autograd_and_torchs_adam(common):
    data = replace(head_market([150, 33, 1, 70], [60, 40, 5, 9]), start_gamma=[2.0, 0.0, 2.0, 1.0])
    expected = plain_joint_loop(data, SETTINGS, common)
    for options in ({}, {"gradients": autograd_gradients}):
        found = train_directions(data, SETTINGS, common=common, **options)
        assert set(found.losses) == set(expected) == {0, 1, 3}
        for sector, (losses, weight, bias) in expected.items():
            assert np.allclose(found.losses[sector], losses, atol=1e-6, rtol=0)
            assert torch.allclose(found.heads[sector]["linear.weight"], weight, atol=1e-6, rtol=0)
            assert torch.allclose(found.heads[sector]["linear.bias"], bias, atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_the_calibrated_loss_is_the_evaluations_and_its_gradient_autograds(scale):
    generator = torch.Generator().manual_seed(0)
    logits = (scale * torch.randn(50, 3, generator=generator, dtype=torch.float64)).requires_grad_()
    y = torch.randint(0, 3, (50,), generator=generator)
    gamma, weights = torch.tensor([[0.0], [2.0]], dtype=torch.float64).repeat(25, 1), (1.0, 0.8, 1.2)
    log_weights = torch.tensor(weights, dtype=torch.float64).log()
    losses, slope = calibrated_loss_and_gradient(logits.detach(), y, gamma, log_weights)
    expected = -calibrated_log_probabilities(logits.detach().numpy(), gamma[:, 0].numpy(), weights)
    assert np.allclose(losses, expected[np.arange(50), y], rtol=1e-9, atol=1e-12)
    (reference,) = torch.autograd.grad(calibrated_losses(logits, y, gamma, log_weights).sum(), logits)
    assert torch.allclose(slope, reference, rtol=1e-5, atol=1e-9)


def test_a_step_over_all_sectors_takes_joint_times_a_sectors_batch_and_rate():
    data = head_market([JOINT * 4, JOINT * 4])
    one_step = replace(SETTINGS, epochs=1, batch_size=8, penalty=0.0, lr=1e-3)
    found = train_directions(data, one_step).directions
    assert found.loadings.abs().max() == pytest.approx(JOINT * 1e-3, rel=1e-3)  # Adam's first step is the rate


def test_sectors_find_together_what_none_finds_alone_and_a_common_change_cannot():
    data = low_rank_market()
    settings = replace(SETTINGS, min_samples=1, epochs=8)
    joint, common = train_directions(data, settings), train_directions(data, settings, common=True)
    alone = train_nested(data, replace(settings, rank=0)).sectors
    assert joint.best_val_log_loss < alone.best_val_log_loss - 0.02
    assert joint.best_val_log_loss < common.best_val_log_loss - 0.1


def test_the_sector_part_is_accepted_where_it_was_planted_and_the_common_change_is_not():
    nested = train_nested(low_rank_market(), replace(SETTINGS, min_samples=1, epochs=8))
    assert nested.sector_gain.significant and len(nested.accepted) >= 3
    assert nested.sectors.val_log_loss[0] == pytest.approx(
        nested.common.val_log_loss[nested.common.best_epoch if nested.common_accepted else 0], abs=1e-9
    )


def test_a_common_effect_is_the_common_changes_and_not_the_sectors():
    data = low_rank_market(effect=0.0)
    push = data.train.features[:, 0], data.val.features[:, 0]
    borders = torch.tensor([-0.6, 0.6], dtype=torch.float64)
    train, val = (
        replace(s, labels=torch.bucketize(p.contiguous(), borders))
        for s, p in zip((data.train, data.val), push, strict=True)
    )
    nested = train_nested(replace(data, train=train, val=val), replace(SETTINGS, min_samples=1, epochs=8))
    assert nested.common_accepted
    assert nested.common_gain.gain > 10 * max(nested.sector_gain.gain, 0)
    assert set(nested.common_heads) == {0, 1, 2, 3} == set(nested.heads)


def test_without_an_effect_nothing_is_accepted_and_no_head_changes():
    data = low_rank_market(effect=0.0, seed=5, gamma=0.0)
    prior = torch.tensor([0.274, 0.452, 0.274], dtype=torch.float64).log()  # of noise cut at -0.6 and 0.6
    data = replace(data, start={**data.start, "fc2.bias": prior.expand(4, 3).clone()})
    nested = train_nested(data, replace(SETTINGS, min_samples=1))
    assert not nested.common_accepted and nested.accepted == [] and nested.heads == {}


def test_the_whole_is_accepted_at_one_sided_5_percent_over_blocks():
    gains, blocks = np.repeat([1.0, -0.4, 0.9, 0.2], 5), np.repeat(np.arange(4), 5)
    found = acceptance_of(gains, blocks)
    assert found.accepted and not found.significant  # above one standard error, below 2.35 of them
    assert Acceptance(20, 4, 1.0, 0.4).significant and not Acceptance(20, 1, 1.0, 0.0).significant


def test_accepted_together_is_the_mean_gain_over_all_val_samples():
    data = low_rank_market()
    result = train_directions(data, replace(SETTINGS, min_samples=1))
    assert accept_together(data, result).gain == pytest.approx(result.val_log_loss[0] - result.best_val_log_loss)


def test_the_saved_file_gives_the_trained_val_loss(tmp_path):
    sizes = (300, 200, 0, 90)
    trainer, val = make_trainer(), Market((120, 80, 0, 40), seed=2)
    trainer.model.eval()
    history = train_phase2(trainer, loaders(Market(sizes)), 6, 3e-3, val_loaders=val, cache=False, rank=3, penalty=0.1)
    assert history.accepted
    save_checkpoint(tmp_path / "phase2_best.pt", trainer.model.state_dict(), {})
    model = make_trainer().model.eval()
    model.load_state_dict(load_checkpoint(tmp_path / "phase2_best.pt")[0])
    series, charts, sectors, labels = val.tensors
    with torch.no_grad():
        logits = model(series, charts, sectors)["logits"]
    losses = -calibrated_log_probabilities(logits.numpy(), 2.0)[np.arange(len(labels)), labels.numpy()]
    for sector, entry in history.items():
        epoch = 0 if entry["kept_start"] else entry["best_epoch"]
        assert losses[(sectors == sector).numpy()].mean() == pytest.approx(entry["val_losses"][epoch], abs=1e-6)


def test_a_head_without_a_linear_path_has_no_such_names_and_loading_takes_a_path_away():
    head, other = ClassificationHead(8, 4), ClassificationHead(8, 4)
    names = {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}
    assert set(head.state_dict()) == names
    with torch.no_grad():
        head.add_linear().weight.fill_(0.5)
    assert set(head.state_dict()) == names | {"linear.weight", "linear.bias"}
    x = torch.randn(5, 8)
    before = other(x)
    old = other.state_dict()
    other.load_state_dict(head.state_dict())
    assert torch.equal(other.eval()(x), head.eval()(x)) and not torch.equal(other(x), before)
    other.load_state_dict(old)
    assert other.linear is None
    other.load_state_dict(old | {"linear.weight": torch.zeros(3, 8), "linear.bias": torch.zeros(3)})
    assert other.linear is None  # zeros are no path


def test_heads_with_and_without_a_path_stack_and_train_further():
    data = head_market([60, 50], [30, 30])
    heads = [ClassificationHead(16, 8).double() for _ in range(2)]
    with torch.no_grad():
        heads[1].add_linear().bias.fill_(0.3)
    stacked = stacked_heads_of(heads)
    assert not stacked["linear.bias"][0].any() and stacked["linear.bias"][1].eq(0.3).all()
    found = train_directions(HeadData(data.train, stacked, data.val), replace(SETTINGS, epochs=1))
    assert set(found.best_heads) == {0, 1}
    with pytest.raises(ValueError, match="phase3_final"):
        train_nested(HeadData(data.train, stacked, data.val), replace(SETTINGS, rank=0))


@pytest.mark.parametrize(
    ("rank", "given", "named"),
    [(3, {"dropout": 0.5, "l2_sp": 1.0}, "dropout, l2_sp"), (0, {"penalty": 2.0}, "penalty")],
)
def test_a_setting_without_effect_is_named(lines, rank, given, named):
    train_phase2(make_trainer(), loaders(Market()), 1, cache=False, rank=rank, **given)
    assert any(line.startswith(f"{named}: no effect") for line in lines)
