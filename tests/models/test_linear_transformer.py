"""The encoder against the quadratic formula, and on windows of any length."""

import math

import pytest
import torch

from lasps.models.linear_transformer import LinearTransformerEncoder, linear_attention, positions_from_end


def phi(x: float) -> float:
    return (x if x > 0 else math.expm1(x)) + 1


def quadratic_attention(queries, keys, values):
    """Equation 7 of Katharopoulos et al. 2020 as it is written, one number after the other."""
    batch, heads, length, width = queries.shape
    out = torch.zeros(batch, heads, length, width, dtype=torch.float64)
    for b in range(batch):
        for m in range(heads):
            for i in range(length):
                weights = [
                    sum(phi(float(queries[b, m, i, e])) * phi(float(keys[b, m, j, e])) for e in range(width))
                    for j in range(length)
                ]
                for e in range(width):
                    weighted = sum(weights[j] * float(values[b, m, j, e]) for j in range(length))
                    out[b, m, i, e] = weighted / sum(weights)
    return out


def make_encoder(**changes):
    torch.manual_seed(3)
    return LinearTransformerEncoder(
        **{"input_dim": 4, "hidden_dim": 16, "num_layers": 2, "num_heads": 2, "dropout": 0.0, "patch_days": 5} | changes
    ).eval()


def test_linear_attention_equals_the_quadratic_formula():
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = (torch.randn(2, 3, 6, 4, generator=generator) for _ in range(3))
    torch.testing.assert_close(
        linear_attention(queries, keys, values).double(),
        quadratic_attention(queries, keys, values),
        rtol=1e-5,
        atol=1e-5,
    )


def test_attention_weights_sum_to_one():
    queries, keys = torch.randn(2, 2, 9, 4), torch.randn(2, 2, 9, 4)
    torch.testing.assert_close(linear_attention(queries, keys, torch.ones(2, 2, 9, 4)), torch.ones(2, 2, 9, 4))


def test_attention_is_over_tokens_and_not_over_heads_or_samples():
    encoder, x = make_encoder(), torch.randn(3, 20, 4)
    changed = x.clone()
    changed[1] += 1
    before, after = encoder(x), encoder(changed)
    torch.testing.assert_close(before[[0, 2]], after[[0, 2]])
    assert not torch.allclose(before[1], after[1])


@pytest.mark.parametrize("days", [1, 4, 5, 7, 60, 61])
def test_any_number_of_days_gives_one_vector(days):
    assert make_encoder()(torch.randn(2, days, 4)).shape == (2, 16)


def test_a_short_window_is_padded_with_its_first_day_in_front():
    x = torch.randn(2, 8, 4)
    padded = torch.cat([x[:, :1], x[:, :1], x], dim=1)
    torch.testing.assert_close(make_encoder()(x), make_encoder()(padded))


def test_positions_are_counted_from_the_newest_token():
    torch.testing.assert_close(positions_from_end(12, 16)[-4:], positions_from_end(4, 16))
    assert len({tuple(row) for row in positions_from_end(50, 16).tolist()}) == 50
    assert positions_from_end(3, 7).shape == (3, 7)


def test_the_order_of_the_days_matters():
    encoder, x = make_encoder(), torch.randn(2, 20, 4)
    weeks_swapped = torch.cat([x[:, 5:10], x[:, :5], x[:, 10:]], dim=1)
    assert not torch.allclose(encoder(x), encoder(weeks_swapped), atol=1e-3)


@pytest.mark.parametrize("shape", [(2, 20, 3), (20, 4), (2, 0, 4)])
def test_a_wrong_shape_is_an_error_that_names_it(shape):
    with pytest.raises(ValueError, match="time series: expected"):
        make_encoder()(torch.zeros(shape))


def test_a_width_that_the_heads_do_not_divide_is_an_error():
    with pytest.raises(ValueError, match="multiple of num_heads"):
        LinearTransformerEncoder(input_dim=4, hidden_dim=10, num_layers=1, num_heads=4)
