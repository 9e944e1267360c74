import pytest
import torch

from lasps.models.dropout import ByteDropout


@pytest.mark.parametrize(("rate", "effective"), [(0.1, 26 / 256), (0.5, 0.5), (0.25, 0.25)])
def test_the_rate_is_the_nearest_multiple_of_one_in_256_and_what_stays_is_divided_by_the_rest(rate, effective) -> None:
    torch.manual_seed(0)
    x = torch.ones(501, 401)
    found = ByteDropout(rate).train()(x)
    dropped = (found == 0).double().mean().item()
    assert dropped == pytest.approx(effective, abs=4 * (effective * (1 - effective) / x.numel()) ** 0.5)
    assert found.unique().tolist() == pytest.approx([0, 1 / (1 - effective)])


def test_neighbours_are_dropped_independently_of_each_other() -> None:
    torch.manual_seed(1)
    kept = (ByteDropout(0.5).train()(torch.ones(1_000_000)) > 0).double() - 0.5
    for lag in (*range(1, 9), 64):
        assert abs((kept[lag:] * kept[:-lag]).mean().item()) < 0.25 * 4 / 1_000_000**0.5


def test_one_seed_gives_one_mask_and_another_another() -> None:
    masks = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        masks.append(ByteDropout(0.1).train()(torch.ones(7, 11, 3)))
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])


def test_gradients_pass_where_values_stay() -> None:
    x = torch.ones(1000, requires_grad=True)
    found = ByteDropout(0.3).train()(x)
    found.sum().backward()
    assert torch.equal(x.grad, found.detach())


@pytest.mark.parametrize("rate", [0.0, 0.001, 0.1, 1.0])
def test_in_eval_mode_nothing_is_dropped(rate) -> None:
    x = torch.randn(50)
    assert torch.equal(ByteDropout(rate).eval()(x), x)


def test_rates_of_zero_and_one_are_those_of_torch() -> None:
    x = torch.ones(50)
    assert torch.equal(ByteDropout(0.0).train()(x), x)
    assert torch.equal(ByteDropout(1.0).train()(x), torch.zeros(50))
