"""Means of forecasts: what they are made of, and what is said of them."""

import numpy as np
import pytest

from lasps.evaluation.combined import mean_of, with_combinations
from lasps.evaluation.comparison import compare
from lasps.evaluation.verdict import CONTROLS
from tests.evaluation.conftest import make_forecast


def seeds(name: str, skills: list[float], n_days: int = 40):
    return [
        make_forecast(n_days=n_days, skill=skill, seed=10 * len(name) + i, market_seed=1, model=name).named(seed=i)
        for i, skill in enumerate(skills)
    ]


def test_the_mean_is_of_calibrated_probabilities_on_the_rows_that_all_have() -> None:
    a, b = seeds("network", [0.8, 0.3])
    cut = b.only(np.arange(b.n) >= 100)
    found = mean_of([a, cut], "both")
    assert (found.n, found.model, found.seed) == (b.n - 100, "both", None)
    np.testing.assert_allclose(found.p, (a.p[100:] + b.p[100:]) / 2, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.p.sum(axis=1), 1)


def test_nothing_cannot_be_averaged() -> None:
    with pytest.raises(ValueError, match="at least one forecast"):
        mean_of([], "ensemble")


def test_as_many_seeds_of_the_twin_are_averaged_as_the_network_has_and_twice_as_many_in_its_control() -> None:
    network = seeds("network", [0.5, 0.6])
    twin, second, mlp = (seeds(name, [0.4] * 4) for name in ("lightgbm", "lightgbm_second", "mlp"))
    logistic = seeds("logistic_regression", [0.2])
    given = {"lightgbm": twin, "lightgbm_second": second, "mlp": mlp, "logistic_regression": logistic}
    rows = with_combinations({"test": network}, {name: {"test": found} for name, found in given.items()})
    p = {name: by["test"][0].p for name, by in rows.items()}
    expected = {
        "lightgbm": twin[:2],
        "mlp": mlp[:2],
        "ensemble": network,
        "lightgbm_doubled": twin,
        "logistic_regression": logistic,
    }
    for name, parts in expected.items():
        np.testing.assert_allclose(p[name], np.mean([f.p for f in parts], axis=0), atol=1e-12)
    np.testing.assert_allclose(p["blend"], (p["ensemble"] + p["lightgbm"]) / 2)
    np.testing.assert_allclose(p["lightgbm_and_second"], (p["lightgbm"] + (second[0].p + second[1].p) / 2) / 2)
    np.testing.assert_allclose(p["lightgbm_and_logistic"], (p["lightgbm"] + p["logistic_regression"]) / 2)
    assert set(p) == {*expected, "blend", *CONTROLS}


def test_without_more_trees_there_are_no_controls_and_one_seed_is_no_ensemble() -> None:
    rows = with_combinations({"test": seeds("network", [0.5])}, {"lightgbm": {"test": seeds("lightgbm", [0.4])}})
    assert set(rows) == {"lightgbm", "blend"}


@pytest.fixture(scope="module")
def comparison():
    network = {"test": seeds("network", [0.1, 0.1, 0.1], 120)}
    names = ("lightgbm", "lightgbm_second", "mlp", "logistic_regression")
    fitted = {name: {"test": seeds(name, [0.1 if name != "mlp" else 0.5] * 6, 120)} for name in names}
    return compare({"phase2_best": network}, baselines=with_combinations(network, fitted))


def test_the_blend_is_told_against_the_best_of_the_controls(comparison) -> None:
    (told,) = [sentence for sentence in comparison.verdict if sentence.startswith("blend")]
    losses = dict(comparison.models.select("model", "log_loss").iter_rows())
    best = min(("lightgbm", *CONTROLS), key=losses.get)
    assert f"minus {best}, the best of lightgbm and its 3 controls" in told
    assert any(word in told for word in ("better together", "together they are worse", "not distinguishable"))


@pytest.mark.parametrize("n", [1, 3])
def test_a_blend_that_the_network_alone_beats_is_not_called_better(n) -> None:
    network = {"test": seeds("phase2_best", [1.0] * n, 120)}
    fitted = {"lightgbm": {"test": seeds("lightgbm", [0.1] * n, 120)}}
    found = compare({"phase2_best": network}, baselines=with_combinations(network, fitted))
    (told,) = [sentence for sentence in found.verdict if sentence.startswith("blend")]
    alone = "ensemble" if n > 1 else "phase2_best"
    assert f"does not reach {alone} alone on test" in told and "better" not in told


def test_an_mlp_that_wins_is_named(comparison) -> None:
    assert any(s.startswith("mlp, without sequence, chart or sector heads, is better") for s in comparison.verdict)


def test_means_of_forecasts_are_neither_models_nor_baselines(comparison) -> None:
    kinds = dict(comparison.models.select("model", "kind").iter_rows())
    assert {kinds[name] for name in ("ensemble", "blend", *CONTROLS)} == {"combined"}
    assert kinds["phase2_best"] == "model" and kinds["lightgbm"] == kinds["mlp"] == "baseline"
    assert comparison.headline[:4] == ["phase2_best", "ensemble", "blend", "mlp"]


def test_what_the_blend_is_made_of_is_compared_with_it(comparison) -> None:
    pairs = set(comparison.pairs.select("a", "b").iter_rows())
    assert {(a, "blend") for a in ("lightgbm", "ensemble", "mlp", *CONTROLS)} < pairs
    assert {("lightgbm", "ensemble"), ("mlp", "ensemble")} < pairs
