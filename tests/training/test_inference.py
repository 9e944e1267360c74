"""Prediction leaves the model as it was and equals the model's own forward."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lasps.training.inference import predict, shared_features
from tests.training.tiny import TinyDataset, make_model, same


@pytest.mark.parametrize("phase", [1, 3])
def test_predictions_are_the_models_logits_in_the_datasets_order(phase):
    model, dataset = make_model(), TinyDataset(50)
    found = predict(model, dataset, phase=phase, batch_size=16)
    with torch.no_grad():
        expected = model.eval()(dataset.series, dataset.charts, dataset.sector_ids, phase=phase)["logits"]
    np.testing.assert_allclose(found.logits, expected.numpy(), atol=1e-5)
    assert np.array_equal(found.labels, dataset.labels)
    assert np.array_equal(found.sector_ids, dataset.sector_ids)
    assert (found.logits.dtype, found.labels.dtype, found.sector_ids.dtype) == (np.float32, np.int64, np.int64)


def test_loaders_of_any_kind_give_the_same_as_the_dataset():
    model, dataset = make_model(), TinyDataset(30)
    expected = shared_features(model, dataset, batch_size=8)
    assert np.array_equal(shared_features(model, DataLoader(dataset, batch_size=8)), expected)
    assert np.array_equal(shared_features(model, list(DataLoader(dataset, batch_size=8))), expected)
    assert expected.shape == (30, 16)


def test_shared_features_are_what_the_heads_get():
    model, dataset = make_model(), TinyDataset(20)
    features = torch.from_numpy(shared_features(model, dataset))
    with torch.no_grad():
        logits = model.eval().classify(features, dataset.sector_ids)
    np.testing.assert_allclose(predict(model, dataset).logits, logits.numpy(), atol=1e-5)


def test_every_module_is_back_in_its_own_mode_and_no_weight_moved():
    model = make_model().train()
    model.cnn.eval()
    before = [module.training for module in model.modules()]
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    predict(model, TinyDataset(10))
    assert [module.training for module in model.modules()] == before
    assert same(weights, model.state_dict())


def test_the_mode_is_restored_after_an_error_too():
    model, dataset = make_model().train(), TinyDataset(10)
    dataset.series[3, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="sample 3"):
        predict(model, dataset)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("nothing", [TinyDataset(0), [], iter([])])
def test_nothing_to_predict_is_an_error(nothing):
    with pytest.raises(ValueError, match="at least one sample"):
        predict(make_model(), nothing)
