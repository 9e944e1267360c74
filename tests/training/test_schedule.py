"""Warm-up, cosine, and who is decayed."""

import pytest
import torch

from lasps.training.schedule import learning_rate_factor, make_optimizer, warmup_steps_of
from tests.training.tiny import make_model


def test_the_rate_rises_linearly_and_falls_along_a_cosine():
    factors = [learning_rate_factor(step, 12, 4) for step in range(12)]
    assert factors[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert factors[8] == pytest.approx(0.5)
    assert factors[4:] == sorted(factors[4:], reverse=True)
    assert min(factors) > 0  # no step is wasted on a rate of zero


@pytest.mark.parametrize(("total", "fraction", "steps"), [(100, 0.1, 10), (7, 0.1, 1), (10, 0.0, 0), (10, 1.0, 10)])
def test_the_share_of_warm_up_steps_is_rounded_up(total, fraction, steps):
    assert warmup_steps_of(total, fraction) == steps


def test_without_warm_up_the_first_step_has_the_full_rate():
    assert learning_rate_factor(0, 10, 0) == 1.0


def test_biases_norms_and_the_skip_projection_are_not_decayed():
    model = make_model()
    optimizer = make_optimizer(model.named_parameters(), 1e-3, 0.1)
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    names = {name for name, p in model.named_parameters() if id(p) in decayed}
    assert {
        "ts_encoder.patch_weight",
        "cnn.output.weight",
        "common_head.fc1.weight",
        "ts_encoder.layers.0.attention.in_weight",
    } <= names
    assert not [name for name in names if "bias" in name or "norm" in name or "skip_projection" in name]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))


def test_nothing_to_train_is_an_error():
    with pytest.raises(ValueError, match="unfreeze_backbone"):
        make_optimizer([("w", torch.nn.Parameter(torch.zeros(2), requires_grad=False))], 1e-3, 0.0)
