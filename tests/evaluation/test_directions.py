"""Shared directions made up here, so that clusters, readings and movements are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from lasps.evaluation.directions import SharedDirections, direction_frames, movement_frame
from lasps.evaluation.focal_calibration import calibrated_probabilities
from lasps.plots.directions import clustered, most_followed, shared_directions
from lasps.plots.style import sector_name

SECTORS = (2, 3, 5, 7, 11)
LOADINGS = np.array([[1.0, 0.01], [-2.0, 0.02], [1.1, 0.01], [-2.1, 0.02], [1.05, 0.0]])
"""Sectors 2, 5 and 11 are alike, 3 and 7 are; the first direction matters, the second hardly does."""
NAMES = ["noise", "gap", "constant", "volume"]


@pytest.fixture
def shared() -> np.ndarray:
    return np.random.default_rng(0).normal(1.0, 1.0, (400, 6))


@pytest.fixture
def inputs(shared: np.ndarray) -> np.ndarray:
    """The first direction reads the gap turned round, the second the volume."""
    noise = np.random.default_rng(1).normal(size=len(shared))
    return np.stack([noise, 3 - 2 * shared[:, 0], np.full(len(shared), 0.1), shared[:, 1]], axis=1)


def made_up(scale: float = 1.0, turn: float = 1.0) -> SharedDirections:
    """Direction 0 reads feature 0 and moves SELL against BUY, direction 1 feature 1 and HOLD; scaled, same change."""
    features = np.zeros((2, 6))
    features[0, 0], features[1, 1] = scale * turn, 0.5
    classes = np.array([[-1.0, -0.5], [0.0, 1.0], [1.0, -0.5]])
    loadings = LOADINGS / np.array([scale * turn, 0.5])
    return SharedDirections.of(
        {
            "sectors": list(SECTORS),
            "loadings": loadings.tolist(),
            "features": features.tolist(),
            "classes": classes.tolist(),
            "biases": np.full((5, 3), 0.1).tolist(),
            "mean": [1.0] * 6,
        }
    )


def test_weights_and_readings_do_not_depend_on_how_a_direction_was_scaled_or_turned(
    shared: np.ndarray, inputs: np.ndarray
) -> None:
    first = direction_frames(made_up(), shared, inputs, NAMES)
    for found in (
        direction_frames(made_up(7.0), shared, inputs, NAMES),
        direction_frames(made_up(2.0, -1.0), shared, inputs, NAMES),
    ):
        for a, b in zip(first, found, strict=True):
            assert a.drop("weight", "correlation", strict=False).equals(b.drop("weight", "correlation", strict=False))
            assert np.allclose(a.select("^(weight|correlation)$").to_numpy(), b.select("^(weight|correlation)$"))


def test_more_of_the_feature_that_a_direction_follows_raises_the_class_it_names_by_the_weight(
    shared: np.ndarray, inputs: np.ndarray
) -> None:
    weights, readings = direction_frames(made_up(), shared, inputs, NAMES, refused={7})
    first = weights.filter(direction=1)
    assert first["toward"].unique().to_list() == ["BUY"]
    assert weights.filter(direction=2)["toward"].unique().to_list() == ["HOLD"]
    expected = -LOADINGS[:, 0] * shared[:, 0].std() * np.sqrt(2)  # the gap falls with feature 0
    assert np.allclose(first["weight"], expected)
    assert first.filter(refused=True)["sector"].to_list() == [7]
    followed = dict(readings.filter(direction=1).select("feature", "correlation").iter_rows())
    assert followed["gap"] == pytest.approx(1.0) and abs(followed["noise"]) < 0.2 and "constant" not in followed


def test_the_change_is_what_the_heads_of_phase_2_add_and_nothing_for_other_sectors(shared: np.ndarray) -> None:
    sectors = np.resize([2, 7, 19], len(shared))
    change = made_up().change(shared, sectors)
    assert not change[sectors == 19].any()
    own = shared[sectors == 7] - 1
    assert np.allclose(change[sectors == 7][:, 2], -2.1 * own[:, 0] - 0.5 * 0.02 * own[:, 1] + 0.1)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_a_sector_moved_by_the_divergence_of_its_calibrated_probabilities(gamma: float) -> None:
    rng = np.random.default_rng(2)
    initial, change, sectors = rng.normal(size=(50, 3)), rng.normal(size=(50, 3)), np.repeat([4, 9], 25)
    change[sectors == 9] = 1.5  # all classes alike: nothing moves
    found = movement_frame(initial, change, sectors, gamma, refused=[9])
    p, q = (calibrated_probabilities(z[:25], gamma) for z in (initial, initial + change))
    assert found["mean_kl"][0] == pytest.approx((p * np.log(p / q)).sum(axis=1).mean())
    assert found["mean_kl"][1] == pytest.approx(0, abs=1e-12)
    assert found["n"].to_list() == [25, 25] and found["refused"].to_list() == [False, True]


def test_sectors_that_are_alike_stand_side_by_side() -> None:
    tree, order = clustered(LOADINGS)
    assert tree is not None and {frozenset(order[:3]), frozenset(order[-3:])} & {frozenset({0, 2, 4})}
    assert clustered(LOADINGS[:1]) == (None, [0])


def drawn(shared: np.ndarray, inputs: np.ndarray, **changed: Any) -> Any:
    weights, readings = direction_frames(made_up(), shared, inputs, NAMES, refused={7})
    sectors = np.resize(SECTORS[:-1], len(shared))  # sector 11 has no sample on val
    movement = movement_frame(shared[:, :3], made_up().change(shared, sectors), sectors, 2.0, refused={7})
    return shared_directions(
        **{"weights": weights.to_pandas(), "readings": readings.to_pandas(), "movement": movement.to_pandas()} | changed
    )


def test_the_picture_has_a_row_per_sector_the_same_for_map_tree_and_bars(
    shared: np.ndarray, inputs: np.ndarray
) -> None:
    figure = drawn(shared, inputs)
    FigureCanvasAgg(figure).draw()
    heat, bars = figure.axes[1], figure.axes[2]
    labels = [tick.get_text() for tick in heat.get_yticklabels()]
    assert {label.removesuffix(" (refused)") for label in labels} == {sector_name(sector) for sector in SECTORS}
    row = labels.index(f"{sector_name(7)} (refused)")
    image = heat.images[0].get_array()
    assert image[row, 0] == pytest.approx(2.1 * shared[:, 0].std() * np.sqrt(2))
    assert bars.patches[row].get_facecolor()[:3] == (1.0, 1.0, 1.0)
    assert bars.patches[labels.index(sector_name(11))].get_width() == 0
    assert [tick.get_text() for tick in heat.get_xticklabels()] == ["1\nBUY", "2\nHOLD"]


def test_features_are_listed_for_directions_that_are_used(shared: np.ndarray, inputs: np.ndarray) -> None:
    readings = direction_frames(made_up(), shared, inputs, NAMES)[1].to_pandas()
    assert list(most_followed(readings, {1}, 1).index) == ["gap"]
    assert list(most_followed(readings, {1, 2}, 1).index) == ["gap", "volume"]
    listed = [tick.get_text() for tick in drawn(shared, inputs).axes[4].get_yticklabels()]
    assert listed[0] == "gap" and len(listed) == 3
