"""The focal loss against its definition, in the limits where naive code breaks."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from lasps.training.loss_functions import FocalLoss


def by_definition(logits, labels, gamma, weight):
    """Lin et al. 2017, equation 5, one sample after the other in float64."""
    total = 0.0
    for row, label in zip(logits.double(), labels.tolist(), strict=True):
        p = float(row.softmax(0)[label])
        total += weight[label] * (1 - p) ** gamma * -math.log(p)
    return total / len(labels)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]), st.tuples(*[st.floats(0.1, 5.0)] * 3))
def test_the_loss_is_its_definition(seed, gamma, weight):
    generator = torch.Generator().manual_seed(seed)
    logits, labels = 3 * torch.randn(6, 3, generator=generator), torch.randint(0, 3, (6,), generator=generator)
    loss = FocalLoss(3, gamma, weight)(logits, labels)
    assert float(loss) == pytest.approx(by_definition(logits, labels, gamma, weight), rel=1e-4, abs=1e-6)


def test_gamma_zero_is_cross_entropy_with_its_gradient():
    logits, labels = torch.randn(8, 3, requires_grad=True), torch.randint(0, 3, (8,))
    (ours,) = torch.autograd.grad(FocalLoss(3, 0.0)(logits, labels), logits)
    (theirs,) = torch.autograd.grad(functional.cross_entropy(logits, labels), logits)
    torch.testing.assert_close(ours, theirs)


def test_class_weights_scale_terms_and_do_not_enter_p_t():
    logits, labels = torch.randn(4, 3), torch.tensor([0, 0, 0, 0])
    plain = FocalLoss(3, 2.0)(logits, labels)
    weighted = FocalLoss(3, 2.0, torch.tensor([3.0, 1.0, 1.0]))(logits, labels)
    torch.testing.assert_close(weighted, 3 * plain)


def test_the_sum_is_divided_by_the_batch_and_not_by_the_weights():
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    weight = torch.tensor([0.2, 1.0, 4.0])
    terms = FocalLoss(3, 2.0, weight, reduction="none")(logits, labels)
    torch.testing.assert_close(FocalLoss(3, 2.0, weight)(logits, labels), terms.sum() / 5)
    torch.testing.assert_close(FocalLoss(3, 2.0, weight, reduction="sum")(logits, labels), terms.sum())


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("scale", [30.0, 200.0, 1e4])
def test_certain_logits_give_a_finite_loss_and_gradient(gamma, scale):
    logits = torch.tensor([[scale, 0.0, -scale], [scale, 0.0, -scale]], requires_grad=True)
    loss = FocalLoss(3, gamma)(logits, torch.tensor([0, 2]))  # surely right and surely wrong
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    assert float(loss.detach()) == pytest.approx(scale, rel=1e-3)  # the wrong one alone: 2 * scale / 2


def test_the_gradient_is_that_of_the_definition():
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 0])
    p = logits.softmax(1)[torch.arange(4), labels]
    (expected,) = torch.autograd.grad(((1 - p) ** 2 * -p.log()).sum() / 4, logits)
    (ours,) = torch.autograd.grad(FocalLoss()(logits, labels), logits)
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{"gamma": -1.0}, {"gamma": math.nan}, {"weight": [1.0, 1.0]}, {"weight": [1.0, 0.0, 1.0]}, {"reduction": "avg"}],
)
def test_settings_without_a_meaning_are_an_error(options):
    with pytest.raises(ValueError, match="expected"):
        FocalLoss(**options)


@pytest.mark.parametrize(("logits", "labels"), [((2, 4), (2,)), ((2, 3), (3,)), ((3,), (3,)), ((0, 3), (0,))])
def test_other_shapes_and_an_empty_batch_are_an_error(logits, labels):
    with pytest.raises(ValueError, match="expected|empty"):
        FocalLoss()(torch.zeros(logits), torch.zeros(labels, dtype=torch.int64))
