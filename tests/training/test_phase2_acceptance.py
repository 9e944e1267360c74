import numpy as np
import pytest
import torch

from lasps.training.heads.acceptance import accept_heads, acceptance_of, blocks_of, equal_blocks, log_losses
from lasps.training.heads.data import HeadData, HeadResult, as_samples
from lasps.training.heads.settings import HeadSettings
from lasps.training.phase2 import train_phase2
from tests.training.market import Market, heads_of, loaders, make_trainer


def val_samples(days, n=None):
    n = len(days) if n is None else n
    return as_samples(torch.zeros(n, 4), torch.zeros(n), torch.zeros(n), days)


def test_blocks_are_ten_trading_days_and_a_short_rest_joins_the_last():
    calendar = np.arange(37) * 3 + 100  # gaps in the calendar are no trading days
    blocks = blocks_of(val_samples(np.repeat(calendar, 2)))
    assert [int((blocks == b).sum()) for b in np.unique(blocks)] == [20, 20, 34]
    assert len(np.unique(blocks_of(val_samples(np.arange(9))))) == 1
    assert blocks_of(val_samples(None, 9)) is None


def test_without_dates_blocks_are_contiguous_and_equal():
    blocks = equal_blocks(103)
    assert np.all(np.diff(blocks) >= 0)
    assert set(np.bincount(blocks)) == {10, 11} and len(np.bincount(blocks)) == 10
    assert len(np.unique(equal_blocks(3))) == 3


def test_the_standard_error_is_that_of_block_means_when_blocks_are_equal():
    gains = np.random.default_rng(0).normal(size=60)
    blocks = np.repeat(np.arange(6), 10)
    means = gains.reshape(6, 10).mean(axis=1)
    found = acceptance_of(gains, blocks)
    assert found.gain == pytest.approx(gains.mean())
    assert found.standard_error == pytest.approx(means.std(ddof=1) / np.sqrt(6))


def test_days_that_move_together_are_not_taken_for_independent_samples():
    gains = np.repeat([1.0, -0.9, 1.0, -0.9], 250)
    together, apart = acceptance_of(gains, np.repeat(np.arange(4), 250)), acceptance_of(gains, np.arange(1000))
    assert not together.accepted and apart.accepted


@pytest.mark.parametrize(
    ("gains", "accepted"), [([0.2, 0.3, 0.2], True), ([0.2, -0.2, 0.1], False), ([-0.2] * 3, False)]
)
def test_a_head_is_accepted_if_its_gain_exceeds_one_standard_error(gains, accepted):
    assert acceptance_of(np.array(gains), np.arange(3)).accepted is accepted


def test_one_block_or_no_sample_proves_nothing():
    assert not acceptance_of(np.ones(5), np.zeros(5)).accepted
    assert not acceptance_of(np.empty(0), np.empty(0)).accepted


def test_losses_are_of_calibrated_probabilities():
    logits, labels = torch.tensor([[2.0, 0.0, -1.0]]), np.array([0])
    plain = log_losses(logits, labels, 0.0, (1.0, 1.0, 1.0))
    assert plain == pytest.approx(-float(logits.log_softmax(1)[0, 0]))
    assert log_losses(logits, labels, 2.0, (1.0, 1.0, 1.0)) < plain  # a focal model is surer than its softmax
    assert log_losses(logits, labels, 0.0, (3.0, 1.0, 1.0)) > plain


def accepted_on(val, start, better, gamma=2.0, start_gamma=2.0):
    """Two sectors' heads `better` (trained with gamma) against `start` (with start_gamma)."""
    stacked = {name: torch.stack([value, value]) for name, value in start.items()}
    data = HeadData(val, stacked, val, (1.0, 1.0, 1.0), start_gamma)
    return accept_heads(data, HeadResult(HeadSettings(gamma=gamma), best_heads={0: better, 1: better}))


HEAD = {
    "fc1.weight": torch.zeros(2, 4),
    "fc1.bias": torch.zeros(2),
    "fc2.weight": torch.zeros(3, 2),
    "fc2.bias": torch.zeros(3),
}


def test_a_sector_without_val_samples_keeps_its_start():
    found = accepted_on(val_samples(np.arange(40)), HEAD, {**HEAD, "fc2.bias": torch.tensor([1.0, 0.0, 0.0])})
    assert found[0].accepted and found[0].blocks == 4
    assert not found[1].accepted and found[1].n == 0


def test_start_and_head_are_each_corrected_for_the_loss_they_were_trained_with():
    logits = {**HEAD, "fc2.bias": torch.tensor([1.0, 0.0, 0.0])}
    val, labels = val_samples(np.arange(40)), np.zeros(1, dtype=int)
    loss = {g: log_losses(logits["fc2.bias"][None], labels, g, (1.0, 1.0, 1.0))[0] for g in (0.0, 2.0)}
    assert accepted_on(val, logits, logits)[0].gain == 0
    assert accepted_on(val, logits, logits, gamma=0.0)[0].gain == pytest.approx(loss[2.0] - loss[0.0])
    assert accepted_on(val, logits, logits, start_gamma=[0.0, 2.0])[0].gain == pytest.approx(loss[0.0] - loss[2.0])


def test_accepted_heads_are_the_pooled_best_epochs_and_the_others_their_start(lines):
    trainer = make_trainer()
    before = heads_of(trainer.model)
    history = train_phase2(
        trainer,
        loaders(Market((300, 200, 0, 9))),
        4,
        1e-2,
        val_loaders=loaders(Market((120, 0, 0, 9), seed=2)),
        cache=False,
        rank=0,
    )
    after = heads_of(trainer.model)
    assert len({entry["best_epoch"] for entry in history.values()}) == 1
    assert not history[0]["kept_start"] and history[0]["val_gain"] > history[0]["val_standard_error"]
    assert history[1]["kept_start"] and history[1]["val_losses"] == [] and history[1]["val_gain"] is None
    for sector, entry in history.items():
        names = [name for name in before if name.startswith(f"sector_heads.{sector}.")]
        assert all(torch.equal(before[n], after[n]) for n in names) == entry["kept_start"]
    assert any(f"accepted on val: {history.accepted} of 3 " in line and "blocks of 10 days" in line for line in lines)
    assert not any("improved" in line for line in lines)


def test_without_dates_the_log_says_how_blocks_were_made(lines):
    val = Market(seed=2)
    val.samples = None
    train_phase2(make_trainer(), loaders(Market()), 1, val_loaders=val, cache=False)
    assert any("equal blocks of samples" in line for line in lines)


def test_the_loss_of_every_head_is_known_when_new_heads_are_trained_with_another_one():
    sizes, val = (300, 200, 0, 9), loaders(Market((120, 0, 0, 9), seed=2))
    mixed = train_phase2(
        make_trainer(focal_gamma=2.0), loaders(Market(sizes)), 4, 1e-2, val_loaders=val, gamma=0.0, cache=False, rank=0
    )
    assert not mixed[0]["kept_start"] and mixed[1]["kept_start"]
    assert mixed.focal_gamma == [0.0 if s in mixed and not mixed[s]["kept_start"] else 2.0 for s in range(4)]
    same = train_phase2(make_trainer(), loaders(Market(sizes)), 1, val_loaders=val, cache=False, rank=0)
    assert same.focal_gamma == 2.0
    assert mixed[0]["val_losses"][0] == pytest.approx(same[0]["val_losses"][0])  # the start is found by its own loss
