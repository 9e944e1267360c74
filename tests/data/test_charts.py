"""The rasteriser against a loop over pixels, at every size and in every corner case."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.benchmarks import reference_charts
from lasps.data import charts

RED, BLUE, WHITE = (255, 0, 0), (0, 96, 255), (255, 255, 255)


def market(windows: int, days: int = 60, seed: int = 0, tick: float = 10.0) -> torch.Tensor:
    """Random walks with coarse ticks, halt-like flat days, days without volume and closes outside low..high."""
    rng = np.random.default_rng(seed)
    close = np.exp(np.cumsum(rng.normal(0, 0.03, (windows, days)), 1)) * rng.uniform(500, 90_000, (windows, 1))
    opening = close * np.exp(rng.normal(0, 0.015, close.shape))
    high = np.maximum(opening, close) * np.exp(np.abs(rng.normal(0, 0.01, close.shape)))
    low = np.minimum(opening, close) * np.exp(-np.abs(rng.normal(0, 0.01, close.shape)))
    prices = np.stack([opening, high, low, close], 2)
    prices = np.where(rng.random((windows, days, 1)) < 0.05, close[..., None], prices)
    prices[..., 3] += np.where(rng.random(close.shape) < 0.02, 3 * tick, 0)
    volume = np.where(rng.random(close.shape) < 0.05, 0, rng.lognormal(9, 2, close.shape))
    bars = np.concatenate([(prices / tick).round() * tick, volume[..., None].round()], 2)
    bars[0] = bars[0, :1]  # a day that repeats
    bars[1, :, :4] = 5000  # no range at all
    bars[2, :, 4] = 0  # no volume at all
    return torch.from_numpy(bars.astype(np.float32))


def flat(days: int = 60, price: float = 1000, volume: float = 0) -> torch.Tensor:
    return torch.tensor([[[price, price, price, price, volume]] * days], dtype=torch.float32)


def assert_same(bars: torch.Tensor, size: tuple[int, int]) -> None:
    np.testing.assert_array_equal(charts.render(bars, size).numpy(), reference_charts.draw_all(bars.numpy(), *size))


def test_512_windows_equal_the_pixel_loop():
    assert_same(market(512), (96, 180))


@pytest.mark.parametrize("size", [(224, 224), (16, 180), (97, 181), (255, 183), (256, 180), (300, 777)])
def test_other_sizes_equal_the_pixel_loop_and_stand_centred(size):
    assert_same(market(12), size)


@pytest.mark.parametrize("days", [1, 2, 19, 20, 21, 120])
def test_other_window_lengths_equal_the_pixel_loop(days):
    assert_same(market(12, days, seed=days), (64, 3 * days + 1))


@settings(max_examples=30, deadline=None, database=None)
@given(
    st.lists(st.tuples(*[st.integers(1, 12)] * 4, st.integers(0, 3)), min_size=1, max_size=30), st.floats(2**-20, 2**20)
)
def test_any_bars_however_inconsistent_equal_the_pixel_loop(rows, unit):
    assert_same(torch.tensor([rows], dtype=torch.float32) * unit, (40, 3 * len(rows)))


def test_chunks_and_blocks_leave_no_seam(monkeypatch):
    bars = market(40)
    whole = charts.render(bars, (224, 224))
    monkeypatch.setattr(charts, "COLUMN_CHUNK", 7)
    monkeypatch.setattr(charts, "RASTER_BYTES", 3 * 224 * 224)
    assert torch.equal(charts.render(bars, (224, 224)), whole)


def test_every_pixel_of_out_is_overwritten_and_out_is_returned():
    bars = market(5)
    out = torch.full((5, 3, 100, 200), 77, dtype=torch.uint8)
    assert charts.render(bars, (100, 200), out).data_ptr() == out.data_ptr()
    assert torch.equal(out, charts.render(bars, (100, 200)))


def column(picture: torch.Tensor, day: int, place: int) -> list[tuple[int, ...]]:
    return [tuple(pixel) for pixel in picture[:, :, 3 * day + place].T.tolist()]


def two_days(first: list[float], second: list[float]) -> torch.Tensor:
    """20 price rows, a gap, 5 volume rows."""
    return charts.render(torch.tensor([[first, second]], dtype=torch.float32), (26, 6))[0]


def test_rising_is_red_falling_is_blue_with_ticks_left_and_right_and_a_volume_bar():
    # 20 rows for 100..119: a price p lies in row 119 - p
    picture = two_days([100, 119, 100, 110, 50], [110, 112, 103, 105, 100])
    red, blue = RED, BLUE
    assert column(picture, 0, 0)[19] == red and column(picture, 0, 2)[9] in (red, (255, 255, 0))
    assert [row for row, p in enumerate(column(picture, 0, 1)[:20]) if p[0]] == list(range(20))
    assert column(picture, 1, 0)[9][2] == 255 and column(picture, 1, 2)[14][2] == 255
    assert [row for row, p in enumerate(column(picture, 1, 1)[:20]) if p[2]] == list(range(7, 17))
    assert column(picture, 0, 1)[20:] == [(0, 0, 0)] * 3 + [red] * 3  # half of the largest: 2.5 rounds to 3
    assert column(picture, 1, 1)[20:] == [(0, 0, 0)] + [blue] * 5
    assert column(picture, 0, 0)[20:] == column(picture, 1, 2)[20:] == [(0, 0, 0)] * 6


def test_an_open_equal_to_the_close_takes_the_colour_of_the_move_since_yesterday():
    for before, colour in ((90, RED), (120, BLUE), (100, WHITE)):
        picture = two_days([before, 130, 80, before, 10], [100, 110, 90, 100, 10])
        assert column(picture, 1, 1)[-1] == colour
        assert column(picture, 0, 1)[-1] == WHITE  # the first day has no yesterday


def test_a_window_without_range_is_one_line_in_the_middle_row():
    picture = charts.render(flat(volume=3), (96, 180))[0]
    lit = picture[:, :76].amax((0, 2)).nonzero().flatten().tolist()
    assert lit == [37] and int(picture[:, 37].amin()) == 255  # 76 price rows; all days unchanged: white
    assert picture.unique().tolist() == [0, 255]


def test_a_day_without_volume_has_no_bar_and_a_tiny_volume_has_one_pixel():
    bars = flat(3, volume=0)
    bars[0, :, 4] = torch.tensor([0.0, 1.0, 1e6])
    strip = charts.render(bars, (96, 9))[0, 0, 77:]
    assert strip.amax(1).nonzero().flatten().tolist() == list(range(19))
    assert [(strip[:, 3 * day + 1] > 0).sum().item() for day in range(3)] == [0, 1, 19]
    assert not charts.render(flat(3, volume=0), (96, 9))[0, :, 76:].any()


def test_the_average_is_a_connected_line_over_the_last_20_closes():
    closes = torch.cat([torch.full((30,), 100.0), torch.full((30,), 200.0)])
    bars = torch.stack([closes] * 4 + [torch.ones(60)], 1)[None]
    green = charts.render(bars, (96, 180))[0, 1, :76]
    blue = charts.render(bars, (96, 180))[0, 2, :76]
    line = (green > 0) & (blue == 0)
    assert green[75, 1] == 255 and green[0, 179] == 255  # 100 before the step, 200 twenty days after it
    assert line[:, 3 * 39 + 1].nonzero().flatten().tolist() == [38]  # ten of twenty: row 37.5
    rows = [set(green[:, c].nonzero().flatten().tolist()) for c in range(180)]
    assert all(min(abs(a - b) for a in rows[c] for b in rows[c + 1]) <= 1 for c in range(179))


def test_margins_are_black():
    picture = charts.render(market(4), (224, 224))
    assert not picture[..., :22].any() and not picture[..., 202:].any() and picture[..., 22:202].any()


def test_scaling_all_prices_by_a_power_of_two_changes_no_pixel():
    bars = market(50)
    assert torch.equal(charts.render(bars * torch.tensor([4.0, 4, 4, 4, 0.5])), charts.render(bars))


@pytest.mark.parametrize(
    ("bars", "size", "message"),
    [
        (flat()[0], (96, 180), r"float32 \(B,T,5\)"),
        (flat().double(), (96, 180), "float64"),
        (flat()[:, :, :4], (96, 180), r"\(1, 60, 4\)"),
        (flat(), (96, 179), r"at least 16 x 180 for 60 days.*got 96 x 179\. Use 96 x 180"),
        (flat(), (15, 180), "got 15 x 180"),
        (flat().index_fill(1, torch.tensor([7]), torch.nan), (96, 180), r"nan at \[0, 7, 0\]"),
        (flat().index_fill(2, torch.tensor([4]), torch.inf), (96, 180), r"inf at \[0, 0, 4\]"),
    ],
)
def test_what_cannot_be_drawn_is_refused(bars, size, message):
    with pytest.raises(ValueError, match=message):
        charts.render(bars, size)


def test_an_out_that_does_not_fit_is_refused():
    for out in (
        torch.empty(1, 3, 96, 181, dtype=torch.uint8),
        torch.empty(1, 3, 96, 180),
        torch.empty(1, 3, 180, 96, dtype=torch.uint8).transpose(2, 3),
    ):
        with pytest.raises(ValueError, match="out: expected contiguous uint8"):
            charts.render(flat(), (96, 180), out)


def test_no_windows_are_no_charts():
    assert charts.render(torch.empty(0, 60, 5)).shape == (0, 3, 96, 180)


@pytest.mark.gpu
@pytest.mark.parametrize("size", [(96, 180), (224, 224), (300, 200)])
def test_a_gpu_draws_the_same_pixels(size):
    bars = market(2000)
    assert torch.equal(charts.render(bars.cuda(), size).cpu(), charts.render(bars, size))
