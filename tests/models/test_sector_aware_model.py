"""The contract of the whole network: shapes, routing, freezing, sizes from a bare state, refusals."""

import pytest
import torch

from lasps.config.model_config import MODEL_CONFIG
from lasps.models.sector_aware_model import (
    BACKBONE,
    SKIP_LINEAR_UP_TO,
    ClassificationHead,
    SectorAwareFusionModel,
    sizes_of,
    skip_of,
)
from lasps.window_parts import means_of_last_days


def spread_heads(model):
    """Make every sector's head different."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in model.sector_heads.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))


def copy_of(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_the_seeds_constructor_call_gives_the_contracts_outputs():
    model = SectorAwareFusionModel(
        num_sectors=MODEL_CONFIG["num_sectors"],
        ts_input_dim=MODEL_CONFIG["linear_transformer"]["input_dim"],
    )
    series = torch.randn(2, 60, MODEL_CONFIG["linear_transformer"]["input_dim"])
    out = model(series, torch.rand(2, 3, 96, 180), torch.tensor([0, 19]))
    assert {name: tuple(value.shape) for name, value in out.items()} == {
        "logits": (2, 3),
        "probabilities": (2, 3),
        "shared_features": (2, 128),
    }
    assert {name for name, _ in model.named_children()} == {*BACKBONE, "sector_heads"}
    torch.testing.assert_close(out["probabilities"], out["logits"].softmax(dim=1))


@pytest.mark.parametrize("phase", [2, 3])
def test_each_sample_goes_through_its_own_sectors_head(tiny_model, tiny_batch, phase):
    spread_heads(tiny_model)
    tiny_model.eval()
    out = tiny_model(*tiny_batch, phase=phase)
    for row, sector in enumerate(tiny_batch[2].tolist()):
        torch.testing.assert_close(out["logits"][row], tiny_model.sector_heads[sector](out["shared_features"][row]))


def test_phase_1_uses_the_common_head_and_needs_no_sectors(tiny_model, tiny_batch):
    spread_heads(tiny_model)
    tiny_model.eval()
    out = tiny_model(*tiny_batch[:2], phase=1)
    torch.testing.assert_close(out["logits"], tiny_model.common_head(out["shared_features"]))


def test_a_head_is_128_to_64_to_3():
    head = ClassificationHead()
    assert (head.fc1.weight.shape, head.fc2.weight.shape) == ((64, 128), (3, 64))
    x = torch.randn(5, 128)
    expected = torch.clamp(x @ head.fc1.weight.T + head.fc1.bias, min=0) @ head.fc2.weight.T + head.fc2.bias
    torch.testing.assert_close(head.eval()(x), expected)


def test_only_the_heads_of_sectors_in_the_batch_get_a_gradient(tiny_model, tiny_batch):
    sectors = torch.tensor([2, 0, 0, 2, 2, 0, 0])
    tiny_model(*tiny_batch[:2], sectors)["logits"].square().sum().backward()
    moved = [any(p.grad is not None for p in tiny_model.get_sector_head_params(s)) for s in range(3)]
    assert moved == [True, False, True]


def test_uint8_charts_equal_float_charts_divided_by_255(tiny_model, tiny_batch):
    tiny_model.eval()
    series, charts, _ = tiny_batch
    assert torch.equal(tiny_model.encode(series, charts), tiny_model.encode(series, charts.float() / 255))


def test_the_batch_is_left_as_it_was(tiny_model, tiny_batch):
    series, charts, sectors = (tensor.clone() for tensor in tiny_batch)
    tiny_model(series, charts.float() / 255, sectors)
    tiny_model(series, charts, sectors)
    assert torch.equal(series, tiny_batch[0])
    assert torch.equal(charts, tiny_batch[1])


def test_under_autocast_the_outputs_are_float32(tiny_model, tiny_batch):
    tiny_model.eval()
    exact = tiny_model(*tiny_batch)
    with torch.autocast("cpu", torch.bfloat16):
        out = tiny_model(*tiny_batch)
    assert {value.dtype for value in out.values()} == {torch.float32}
    torch.testing.assert_close(out["logits"], exact["logits"], atol=0.1, rtol=0.1)


# ------------------------------------------------------------------------------------------------ the skip


def test_the_skip_carries_last_day_week_and_month(tiny_batch):
    series = tiny_batch[0] / 100
    expected = torch.cat([series[:, -1], series[:, -5:].mean(1), series[:, -20:].mean(1)], dim=1)
    torch.testing.assert_close(skip_of(means_of_last_days(series)), expected, rtol=1e-3, atol=1e-5)


def test_the_skip_keeps_prices_of_another_scale_finite_and_small():
    assert float(skip_of(torch.full((1, 3), 5e4)).max()) < 10 * SKIP_LINEAR_UP_TO


def test_the_transformer_reads_its_columns_only_and_the_skip_the_last_month_of_all(tiny_batch):
    model = SectorAwareFusionModel(num_sectors=3, ts_input_dim=5, encoder_columns=[1, 4]).eval()
    series, charts, _ = tiny_batch
    series = torch.cat([series, series, series], dim=1)  # 60 days
    other, own = series.clone(), series.clone()
    other[:, :40, [0, 2, 3]] += 1
    own[:, :40, 4] += 1
    before = model.encode(series, charts)
    assert torch.equal(model.encode(other, charts), before) and not torch.equal(model.encode(own, charts), before)
    other[:, -1, 0] += 1
    assert not torch.equal(model.encode(other, charts), before)


def test_a_model_without_charts_does_not_look_at_them_and_its_state_says_so(tiny_batch):
    series, charts, _ = tiny_batch
    model = SectorAwareFusionModel(num_sectors=3, ts_input_dim=5, uses_charts=False).eval()
    twin = SectorAwareFusionModel.from_state_dict(model.state_dict())
    assert torch.equal(twin.encode(series, charts), model.encode(series, 255 - charts))
    seeing = SectorAwareFusionModel(num_sectors=3, ts_input_dim=5).eval()
    assert not torch.equal(seeing.encode(series, charts), seeing.encode(series, 255 - charts))


@pytest.mark.parametrize("columns", [[], [1, 1], [5], [-1]])
def test_columns_that_are_not_there_are_an_error(columns):
    with pytest.raises(ValueError, match="encoder_columns"):
        SectorAwareFusionModel(num_sectors=3, ts_input_dim=5, encoder_columns=columns)


def test_a_bare_state_tells_the_transformers_columns():
    model = SectorAwareFusionModel(num_sectors=3, ts_input_dim=5, encoder_columns=[4, 1])
    twin = SectorAwareFusionModel.from_state_dict(model.state_dict())
    assert twin.encoder_columns.tolist() == [4, 1] and twin.ts_input_dim == 5


def test_the_skips_part_of_the_shared_features_is_linear_and_orthogonal(tiny_model):
    weight = tiny_model.shared_fusion.skip_projection.weight
    short = min(weight.shape)
    gram = weight @ weight.T if weight.shape[0] == short else weight.T @ weight
    torch.testing.assert_close(gram, torch.eye(short), atol=1e-5, rtol=0)


# ------------------------------------------------------------------------------------------------ freezing


def test_a_frozen_backbone_neither_moves_nor_drops_out_even_after_train(tiny_model, tiny_batch):
    tiny_model.train()
    tiny_model.freeze_backbone()
    tiny_model.train()
    before = {name: copy_of(tiny_model.get_submodule(name)) for name in BACKBONE}
    optimizer = torch.optim.AdamW([p for p in tiny_model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    features = []
    for rows in (slice(0, 6), slice(6, 7)):  # the last batch is of one
        out = tiny_model(*(tensor[rows] for tensor in tiny_batch), phase=2)
        out["logits"].square().sum().backward()
        optimizer.step()
        features.append(out["shared_features"])
    for name in BACKBONE:
        for key, tensor in tiny_model.get_submodule(name).state_dict().items():
            assert torch.equal(tensor, before[name][key]), (name, key)
    assert torch.equal(torch.cat(features)[:6], tiny_model.encode(tiny_batch[0][:6], tiny_batch[1][:6]))
    assert tiny_model.sector_heads.training
    assert not any(module.training for name in BACKBONE for module in tiny_model.get_submodule(name).modules())


def test_unfreezing_gives_gradients_and_the_models_mode_back(tiny_model):
    tiny_model.train()
    tiny_model.freeze_backbone()
    tiny_model.unfreeze_backbone()
    assert all(p.requires_grad for p in tiny_model.parameters())
    assert all(module.training for module in tiny_model.modules())


def test_init_sector_heads_from_common_copies_and_does_not_share(tiny_model):
    spread_heads(tiny_model)
    tiny_model.init_sector_heads_from_common()
    for sector in range(3):
        mine, common = tiny_model.get_sector_head_params(sector), list(tiny_model.common_head.parameters())
        assert all(torch.equal(a, b) and a.data_ptr() != b.data_ptr() for a, b in zip(mine, common, strict=True))


@pytest.mark.parametrize("sector", [-1, 3])
def test_an_unknown_sectors_head_is_an_error(tiny_model, sector):
    with pytest.raises(ValueError, match=r"expected 0\.\.2"):
        tiny_model.get_sector_head_params(sector)


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("phase", [0, 4, "3", None])
def test_an_unknown_phase_is_an_error(tiny_model, tiny_batch, phase):
    with pytest.raises(ValueError, match="phase: expected 1"):
        tiny_model(*tiny_batch, phase=phase)


@pytest.mark.parametrize("bad", [-1, 3])
def test_a_sector_outside_the_model_is_an_error(tiny_model, tiny_batch, bad):
    series, charts, sectors = tiny_batch
    with pytest.raises(ValueError, match=r"expected 0\.\.2, got"):
        tiny_model(series, charts, torch.cat([sectors[:-1], torch.tensor([bad])]))


def test_missing_or_miscounted_sectors_are_an_error(tiny_model, tiny_batch):
    series, charts, sectors = tiny_batch
    for wrong in (None, sectors[:-1], sectors.float()):
        with pytest.raises(ValueError, match="sector ids: expected"):
            tiny_model(series, charts, wrong)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_input_that_is_not_finite_is_an_error_naming_the_sample(tiny_model, tiny_batch, poison):
    series, charts, sectors = tiny_batch[0].clone(), tiny_batch[1].float() / 255, tiny_batch[2]
    series[4, 3, 2] = poison
    with pytest.raises(ValueError, match="time series: .* sample 4"):
        tiny_model(series, charts, sectors)
    charts[5, 0, 0, 0] = poison
    with pytest.raises(ValueError, match="charts: .* sample 5"):
        tiny_model(tiny_batch[0], charts, sectors)


# ------------------------------------------------------------------------------------------------ sizes from a state


def test_from_state_dict_reads_all_sizes_off_the_shapes(tiny_model, tiny_batch):
    spread_heads(tiny_model)
    twin = SectorAwareFusionModel.from_state_dict(tiny_model.state_dict())
    assert (twin.num_sectors, twin.ts_input_dim, twin.ts_encoder.patch_days) == (3, 5, 5)
    assert not twin.training
    assert torch.equal(twin(*tiny_batch)["logits"], tiny_model.eval()(*tiny_batch)["logits"])
    assert sizes_of(tiny_model.state_dict())["encoder"]["num_heads"] == 2


@pytest.mark.parametrize("state", [{}, {"weight": torch.zeros(3)}])
def test_a_state_of_something_else_is_an_error(state):
    with pytest.raises(ValueError, match="expected the state_dict of a SectorAwareFusionModel"):
        SectorAwareFusionModel.from_state_dict(state)


def test_a_state_with_a_missing_or_misshapen_tensor_is_an_error_that_names_it(tiny_model):
    state = dict(tiny_model.state_dict())
    del state["cnn.output.bias"]
    with pytest.raises(ValueError, match=r"cnn\.output\.bias"):
        SectorAwareFusionModel.from_state_dict(state)
    state = dict(tiny_model.state_dict())
    state["sector_heads.1.fc2.weight"] = torch.zeros(4, 64)
    with pytest.raises(ValueError, match=r"sector_heads\.1\.fc2\.weight"):
        SectorAwareFusionModel.from_state_dict(state)


def test_loading_another_models_state_says_what_to_do(tiny_model):
    with pytest.raises(ValueError, match="from_state_dict"):
        SectorAwareFusionModel(num_sectors=3, ts_input_dim=5).load_state_dict(tiny_model.state_dict())
