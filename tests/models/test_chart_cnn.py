"""Charts of any size become one vector."""

import pytest
import torch

from lasps.models.chart_cnn import ChartCNN


def make_cnn():
    torch.manual_seed(5)
    return ChartCNN(conv_channels=(4, 8), output_dim=6).eval()


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (32, 32), (32, 60), (96, 180), (97, 181), (224, 224)])
def test_any_height_and_width_gives_one_vector(size):
    out = make_cnn()(torch.rand(2, 3, *size))
    assert out.shape == (2, 6)
    assert out.isfinite().all()


def test_the_newest_day_counts_even_when_the_width_is_no_multiple_of_the_stem():
    cnn, charts = make_cnn(), torch.rand(1, 3, 33, 61)
    changed = charts.clone()
    changed[..., -1] = 1 - changed[..., -1]
    assert not torch.equal(cnn(charts), cnn(changed))


def test_where_something_stands_in_the_chart_matters():
    cnn, charts = make_cnn(), torch.zeros(2, 3, 96, 180)
    charts[0, :, 40:50, 10:16] = 1
    charts[1, :, 40:50, 166:172] = 1
    assert not torch.allclose(*cnn(charts), atol=1e-3)


def test_a_sample_does_not_depend_on_the_rest_of_its_batch_even_in_train_mode():
    cnn, charts = make_cnn().train(), torch.rand(4, 3, 32, 60)
    torch.testing.assert_close(cnn(charts)[:1], cnn(charts[:1]))


@pytest.mark.parametrize("shape", [(2, 1, 32, 32), (3, 32, 32), (2, 3, 0, 32)])
def test_a_wrong_shape_is_an_error_that_names_it(shape):
    with pytest.raises(ValueError, match="charts: expected"):
        make_cnn()(torch.zeros(shape))
