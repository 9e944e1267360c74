from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from experiments.benchmarks.heads_reference import plain_loops
from lasps.training.heads.data import HeadData, as_samples
from lasps.training.heads.gradients import HeadBatch, vmap_gradients, written_out_gradients
from lasps.training.heads.independent import train_heads
from lasps.training.heads.stack import HeadLayout, HeadStack, SectorBatches, epoch_order
from tests.training.heads import BASE, head_market

UNEVEN = [150, 33, 1, 64, 300]  # a short last batch, a last batch of one, a sector of one sample


def largest_difference(result, plain):
    assert set(result.losses) == set(plain)
    return max(
        max(float((result.heads[s][name] - value).abs().max()) for s in plain for name, value in plain[s][1].items()),
        max(abs(ours - theirs) for s in plain for ours, theirs in zip(result.losses[s], plain[s][0], strict=True)),
    )


def same_bits(one, other):
    return all(torch.equal(one.heads[s][n], other.heads[s][n]) for s in one.heads for n in one.heads[s])


# ------------------------------------------------------------------------------- against one head after the other


@pytest.mark.parametrize(
    "changes",
    [
        {"gamma": 0.0},
        {"gamma": 0.5},
        {"l2_sp": 5.0},
        {"weight_decay": 0.1, "l2_sp": 1.0, "batch_size": 7, "epochs": 3},
    ],
    ids=str,
)
def test_the_stack_equals_one_head_after_the_other(changes):
    data, setting = head_market(UNEVEN), replace(BASE, **changes)
    result = train_heads(data, setting)
    assert largest_difference(result, plain_loops(data, setting)) < 1e-6


def test_so_it_does_when_one_sector_is_twenty_times_another():
    data = head_market([150, 3000, 33])
    result = train_heads(data, BASE)
    assert largest_difference(result, plain_loops(data, BASE)) < 1e-6


def test_one_sector_alone_equals_its_plain_loop():
    data = head_market([130])
    result = train_heads(data, BASE)
    assert largest_difference(result, plain_loops(data, BASE)) < 1e-6


def test_in_single_precision_losses_agree_to_a_millionth_after_ten_epochs():
    data = head_market([150, 33, 700], dtype=torch.float32, width=128, hidden=64)
    result, plain = train_heads(data, BASE), plain_loops(data, BASE)
    assert all(np.allclose(result.losses[s], plain[s][0], atol=1e-6, rtol=0) for s in plain)
    assert largest_difference(result, plain) < 2e-5  # weights: rounding, amplified where Adam divides by small numbers


def test_the_readable_gradients_train_the_same_heads():
    data = head_market([70, 33, 1])
    setting = replace(BASE, epochs=2, l2_sp=1.0, dropout=0.3)
    fast, readable = train_heads(data, setting), train_heads(data, setting, gradients=vmap_gradients)
    for sector in fast.heads:
        for name, value in fast.heads[sector].items():
            assert torch.allclose(value, readable.heads[sector][name], atol=1e-10, rtol=0)


@examples(max_examples=15, deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.sampled_from([0.0, 0.3, 1.0, 5.0]), st.floats(0.1, 40), st.booleans())
def test_written_out_gradients_are_autograds_however_sure_the_logits(rows, batch, gamma, size, dropped):
    generator = torch.Generator().manual_seed(rows * 7 + batch)
    shapes = {"fc1.weight": (5, 4), "fc1.bias": (5,), "fc2.weight": (3, 5), "fc2.bias": (3,)}
    params = {n: size * torch.randn(rows, *s, generator=generator, dtype=torch.float64) for n, s in shapes.items()}
    x = torch.randn(rows, batch, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 3, (rows, batch), generator=generator)
    weight = torch.rand(rows, batch, generator=generator, dtype=torch.float64)
    keep = torch.rand(rows, batch, 5, generator=generator) > 0.4 if dropped else None
    rate = torch.full((rows, 1, 1), 0.6 if dropped else 1.0, dtype=torch.float64)
    found = []
    for gradients in (written_out_gradients, vmap_gradients):
        grads = {name: torch.zeros_like(value) for name, value in params.items()}
        loss = gradients(params, grads, HeadBatch(x, y, weight, keep, rate), gamma)
        assert all(value.isfinite().all() for value in grads.values())
        found.append([loss, *grads.values()])
    scale = max(float(value.abs().max()) for value in found[1]) + 1
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-9 * scale, rtol=1e-9)


def test_with_dropout_the_loss_has_the_plain_loops_mean_and_spread_over_seeds():
    data = head_market([120, 60], seed=5)
    setting = replace(BASE, dropout=0.3, epochs=2)
    ours, theirs = [], []
    for seed in range(16):
        torch.manual_seed(1000 + seed)
        result = train_heads(data, replace(setting, seed=seed))
        ours.append(result.losses[0][-1])
        theirs.append(plain_loops(data, replace(setting, seed=seed))[0][0][-1])
    spread = float(np.std(ours, ddof=1))
    assert abs(np.mean(ours) - np.mean(theirs)) < 3 * np.hypot(np.std(ours), np.std(theirs)) / np.sqrt(16)
    assert 0.5 < spread / float(np.std(theirs, ddof=1)) < 2
    without = train_heads(data, replace(setting, dropout=0.0))
    assert abs(without.losses[0][-1] - np.mean(ours)) > 3 * spread / np.sqrt(16)  # dropout is really there


# ------------------------------------------------------------------------------- rows do not touch each other


def test_a_finished_sectors_head_and_optimiser_do_not_move():
    data = head_market([8, 40])
    start, rows = HeadLayout(data.start).pack(data.start, torch.float64), data.train.rows_by_sector()
    batches = SectorBatches(data.train, [rows[1], rows[0]], [1, 0], (1, 1, 1), replace(BASE, batch_size=8), 0)
    stack = HeadStack(HeadLayout(data.start), start[[1, 0]], batches, replace(BASE, batch_size=8))
    seen = []
    original = stack.adamw

    def watched(active, scale, offset):
        original(active, scale, offset)
        seen.append([value[1].clone() for value in (stack.params, stack.first, stack.second)])

    stack.adamw = watched
    stack.train_epoch(1)
    assert len(seen) == 5
    assert not torch.equal(seen[0][0], stack.start[1])
    assert all(torch.equal(a, b) for later in seen[1:] for a, b in zip(seen[0], later, strict=True))


def test_a_sector_trains_alike_alone_and_beside_others():
    data, setting = head_market(UNEVEN), replace(BASE, dropout=0.2, epochs=3)
    together = train_heads(data, setting)
    own = data.train.rows_by_sector()[3]
    alone = HeadData(
        as_samples(data.train.features[own], data.train.labels[own], data.train.sector_ids[own]),
        data.start,
        None,
        data.class_weights,
    )
    single = train_heads(alone, setting)
    assert list(single.heads) == [3]
    for name, value in single.heads[3].items():
        assert torch.allclose(value, together.heads[3][name], atol=1e-10, rtol=0)


def test_the_number_of_threads_changes_no_bit_and_is_as_before_afterwards():
    data = head_market([300, 150, 33, 7], dtype=torch.float32)
    setting = replace(BASE, epochs=3, dropout=0.2)
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(train_heads(data, setting))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert same_bits(*found)


def test_each_epoch_has_an_order_of_its_own_that_depends_on_seed_sector_and_epoch_alone():
    order = epoch_order(1, 2, 3, 50)
    assert sorted(order) == list(range(50))
    assert np.array_equal(order, epoch_order(1, 2, 3, 50))
    assert not any(np.array_equal(order, epoch_order(*other, 50)) for other in ((0, 2, 3), (1, 3, 3), (1, 2, 4)))


# ------------------------------------------------------------------------------- choosing, stopping


def test_the_pull_towards_the_start_holds_a_small_sector_and_frees_a_large_one():
    data = head_market([40, 1500], seed=2)
    moved = {}
    for strength in (0.0, 100.0):
        result = train_heads(data, replace(BASE, l2_sp=strength, epochs=20))
        moved[strength] = [
            float(sum((result.heads[s][n] - data.start[n][s]).square().sum() for n in data.start)) for s in (0, 1)
        ]
    small, large = (moved[100.0][s] / moved[0.0][s] for s in (0, 1))
    assert small < 0.1 < 3 * small < large


def test_the_best_epoch_is_pooled_over_sectors_and_epoch_0_may_win():
    data = head_market([200, 200], val_sizes=[300, 300], signal=1.0)
    good = train_heads(data, BASE)
    assert good.best_epoch == int(np.argmin(good.val_log_loss)) > 0
    weights = np.array([300, 300]) / 600
    pooled = weights @ np.array([good.val_losses[0], good.val_losses[1]])
    assert np.allclose(pooled, good.val_log_loss)
    bad = train_heads(data, replace(BASE, lr=3.0))
    assert bad.best_epoch == 0
    assert all(torch.equal(bad.best_heads[s][n], data.start[n][s]) for s in (0, 1) for n in data.start)


def test_the_callback_sees_every_epoch_and_may_stop():
    data = head_market([60, 30], val_sizes=[30, 30])
    seen = []

    def on_epoch(epoch, values):
        seen.append((epoch, float(values[0])))
        return {0} if epoch == 2 else set()

    first = train_heads(data, replace(BASE, epochs=4), on_epoch)
    assert seen == [(1, first.val_log_loss[1]), (2, first.val_log_loss[2])]
    assert first.stopped and len(first.losses[0]) == 2
    alone = train_heads(data, replace(BASE, epochs=2))
    assert np.allclose(first.losses[0], alone.losses[0])


def test_no_sector_with_enough_samples_is_an_error():
    with pytest.raises(ValueError, match="the largest has 30"):
        train_heads(head_market([30, 20]), replace(BASE, min_samples=31))


def test_a_loss_that_is_not_finite_names_sector_epoch_and_setting():
    data = head_market([40, 20], dtype=torch.float32)
    with pytest.raises(ValueError, match=r"epoch \d+ of sector \d.*lr=1e\+38"):
        train_heads(data, replace(BASE, lr=1e38))


@pytest.mark.parametrize("bad", [{"lr": 0.0}, {"epochs": 0}, {"dropout": 1.0}, {"batch_size": 0}, {"l2_sp": -1.0}])
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        replace(BASE, **bad)


@pytest.mark.parametrize(("what", "match"), [("nan", "row 5"), ("label", "labels in 0..2"), ("sector", "ids in 0..1")])
def test_bad_samples_are_refused(what, match):
    data = head_market([10, 10])
    features, labels, sectors = (t.clone() for t in (data.train.features, data.train.labels, data.train.sector_ids))
    if what == "nan":
        features[5, 0] = float("nan")
    (labels if what == "label" else sectors)[3] = 7 if what != "nan" else 0
    with pytest.raises(ValueError, match=match):
        HeadData(as_samples(features, labels, sectors), data.start)


# ------------------------------------------------------------------------------- resume


class Stop(Exception):
    """As if the process had ended here."""


def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(tmp_path):
    data = head_market([150, 33, 7], val_sizes=[20, 20, 20])
    setting = replace(BASE, dropout=0.2, epochs=4)
    whole = train_heads(data, setting)

    def killed(epoch, values):
        if epoch == 3:
            raise Stop

    file = tmp_path / "state.pt"
    with pytest.raises(Stop):
        train_heads(data, setting, killed, state_file=file)
    epochs = []
    resumed = train_heads(data, setting, lambda epoch, values: epochs.append(epoch), state_file=file)
    assert epochs == [3, 4]
    assert same_bits(whole, resumed)
    assert whole.losses == resumed.losses and whole.val_log_loss == resumed.val_log_loss
    assert whole.best_epoch == resumed.best_epoch


@pytest.mark.parametrize("damage", ["other settings", "truncated"])
def test_a_state_of_another_job_or_a_damaged_one_is_not_used(tmp_path, damage):
    data, file, setting = head_market([50]), tmp_path / "state.pt", replace(BASE, epochs=2)
    train_heads(data, replace(setting, lr=1e-3) if damage == "other settings" else setting, state_file=file)
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    result = train_heads(data, setting, state_file=file)
    whole = train_heads(data, setting)
    assert same_bits(whole, result)
