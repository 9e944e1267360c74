import json

import numpy as np
import pytest
from loguru import logger

from lasps.data.scaling import RobustScaler

NAMES = ("return_1", "gap", "rank_return_1", "observed")


def rows(n: int = 4000) -> np.ndarray:
    rng = np.random.default_rng(0)
    columns = [rng.normal(0.02, 0.5, n), rng.normal(-3, 2, n), rng.uniform(-0.5, 0.5, n), rng.random(n) < 0.7]
    return np.stack(columns, axis=1).astype(np.float32)


@pytest.fixture
def warnings_logged():
    messages: list[str] = []
    number = logger.add(lambda message: messages.append(str(message)), level="WARNING", format="{message}")
    yield messages
    logger.remove(number)


def test_features_come_out_with_median_0_and_spread_1_and_ranks_and_mask_as_they_are() -> None:
    x = rows()
    scaled = RobustScaler.fit(x, NAMES).transform(x)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(np.median(scaled[:, :2], axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(scaled[:, :2].std(axis=0), 1, atol=0.05)
    assert (scaled[:, 2:] == x[:, 2:]).all()


def test_missing_values_do_not_count_and_become_0_and_extremes_are_clipped() -> None:
    x = rows()
    scaler = RobustScaler.fit(x, NAMES)
    holed = np.concatenate([x, np.full((500, 4), np.nan, dtype=np.float32)])
    assert RobustScaler.fit(holed, NAMES).to_dict() == scaler.to_dict()
    extreme = np.array([[1e9, -np.inf, np.nan, 1]], dtype=np.float32)
    assert scaler.transform(extreme).tolist() == [[5, -5, 0, 1]]


def test_a_constant_and_a_missing_feature_get_scale_1_and_a_warning(warnings_logged) -> None:
    x = rows()
    x[:, 0], x[:, 1] = 7.0, np.nan
    scaler = RobustScaler.fit(x, NAMES)
    assert scaler.scale.tolist() == [1, 1, 1, 1] and scaler.center.tolist() == [7, 0, 0, 0]
    assert any("return_1 is constant" in m for m in warnings_logged)
    assert any("gap has no value" in m for m in warnings_logged)


def test_a_feature_that_is_mostly_one_value_is_scaled_by_its_standard_deviation() -> None:
    x = rows()
    x[:, 0] = np.where(np.arange(len(x)) % 10 == 0, 3.0, 0.0)
    assert RobustScaler.fit(x, NAMES).scale[0] == pytest.approx(0.9)


def test_a_scaler_survives_json_to_the_last_bit() -> None:
    x = rows()
    scaler = RobustScaler.fit(x, NAMES)
    again = RobustScaler.from_dict(json.loads(json.dumps(scaler.to_dict())))
    assert (again.transform(x) == scaler.transform(x)).all()
    assert again.names == NAMES


def test_scaling_in_place_and_in_chunks_is_the_same(monkeypatch) -> None:
    x = rows()
    scaler = RobustScaler.fit(x, NAMES)
    whole = scaler.transform(x)
    monkeypatch.setattr("lasps.data.scaling.CHUNK_ROWS", 999)
    assert scaler.transform(x, out=x) is x
    assert (x == whole).all()


def test_other_widths_and_broken_states_are_refused() -> None:
    scaler = RobustScaler.fit(rows(), NAMES)
    with pytest.raises(ValueError, match="fitted on 4 features.*got \\(3, 2\\)"):
        scaler.transform(np.zeros((3, 2), dtype=np.float32))
    with pytest.raises(ValueError, match="expected training rows"):
        RobustScaler.fit(np.zeros((0, 4)), NAMES)
    with pytest.raises(ValueError, match="scale above 0"):
        RobustScaler.from_dict(scaler.to_dict() | {"scale": [1, 1, 0, 1]})
