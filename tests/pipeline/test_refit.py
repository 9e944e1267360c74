"""What val decided, frozen in a file, and trained again without val."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from lasps.data.datasets.dataset import Dataset
from lasps.data.datasets.joined import JoinedDataset
from lasps.evaluation.forecast import Forecast
from lasps.pipeline.baseline_cache import BaselineCache, cached_baselines
from lasps.pipeline.recipe import HeadsRecipe, PhaseRecipe, Recipe, frozen
from lasps.pipeline.refit import check_recipe, refit, refit_heads, refit_network, rows_of, with_steps_for
from lasps.training.checkpoints import Checkpoint, load_checkpoint
from lasps.training.ensembles import Ensemble
from lasps.window_parts import Reads


@pytest.fixture(scope="module")
def data(job) -> Dataset:
    return Dataset.open(job.data_dir)


@pytest.fixture(scope="module")
def recipe(job, data, tmp_path_factory) -> Recipe:
    cache = tmp_path_factory.mktemp("cache")
    cached_baselines(data, ("val", "test"), cache, ["lightgbm"], {"lightgbm": 1})
    return frozen([job.output_dir], len(data.train), BaselineCache.of(data, cache))


def test_it_holds_what_the_cards_say_was_decided(job, data, recipe) -> None:
    (own,) = recipe.networks
    cards = {name: job.meta(name) for name in ("phase1_best", "phase3_final", "phase2_best")}
    assert own.phase1.stop_after == cards["phase1_best"]["history"]["best_epoch"]
    assert own.phase1.epochs == cards["phase1_best"]["phase"]["epochs"]
    assert (own.phase3 is None) == (cards["phase3_final"]["history"]["best_epoch"] == 0)
    assert own.epoch_samples == len(data.train) and own.focal_gamma == 2.0
    assert recipe.chosen_on == data.fingerprint and recipe.samples == len(data.train)
    assert with_steps_for(own, 100, 125).epoch_samples == round(1.25 * own.epoch_samples)
    assert set(recipe.trees) == {0} and recipe.trees[0] >= 1


def test_trained_again_on_the_same_rows_it_gives_the_same_weights(job, data, recipe, tmp_path) -> None:
    (own,) = recipe.networks
    path = refit_network(replace(own, phase2=None), data.train, data.description, tmp_path, "cpu")
    expected, found = load_checkpoint(job.output_dir / "phase3_final.pt")[0], load_checkpoint(path)[0]
    differ = [name for name, value in expected.items() if not torch.equal(value, found[name])]
    assert differ == []


def test_an_epoch_has_as_many_samples_as_the_recipe_says(data, recipe, tmp_path) -> None:
    own = replace(recipe.networks[0], phase1=PhaseRecipe(1, 1e-3, 1), phase3=None, phase2=None)
    states = []
    for n in (64, len(data.train)):
        path = refit_network(replace(own, epoch_samples=n), data.train, data.description, tmp_path / str(n), "cpu")
        states.append(load_checkpoint(path)[0])
    assert any(not torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_what_is_finished_is_not_trained_again(data, recipe, tmp_path) -> None:
    own = replace(recipe.networks[0], phase1=PhaseRecipe(2, 1e-3, 1), phase3=None, phase2=None)
    first = refit_network(own, data.train, data.description, tmp_path, "cpu").stat().st_mtime_ns
    assert refit_network(own, data.train, data.description, tmp_path, "cpu").stat().st_mtime_ns == first
    other = replace(own, seed=own.seed + 1)
    assert refit_network(other, data.train, data.description, tmp_path, "cpu").stat().st_mtime_ns > first


def test_the_heads_of_accepted_sectors_alone_are_trained_again(job, data, recipe) -> None:
    own = recipe.networks[0]
    model = Checkpoint.open(job.output_dir / "phase3_final.pt").model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config = job.meta("phase2_best")["phase"] | {"min_samples": 1}
    sector = int(np.bincount(data.train.sector_ids).argmax())
    refit_heads(model, own, HeadsRecipe(config, None, 1, (sector,)), data.train, "cpu")
    moved = {
        name for name, value in model.state_dict().items() if name not in before or not torch.equal(value, before[name])
    }
    assert moved and all(name.startswith(f"sector_heads.{sector}.") for name in moved)


def test_a_common_change_that_was_accepted_moves_every_trained_sector(job, data, recipe) -> None:
    model = Checkpoint.open(job.output_dir / "phase3_final.pt").model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config = job.meta("phase2_best")["phase"] | {"min_samples": 1}
    refit_heads(model, recipe.networks[0], HeadsRecipe(config, 1, 1, ()), data.train, "cpu")
    state = model.state_dict()
    moved = {int(n.split(".")[1]) for n, v in state.items() if n not in before or not torch.equal(v, before[n])}
    assert moved == set(np.unique(data.train.sector_ids).tolist())


def test_everything_is_trained_on_train_and_val_and_forecast_on_test(data, recipe, tmp_path) -> None:
    seeds = [replace(recipe.networks[0], seed=seed, phase1=PhaseRecipe(2, 1e-3, 1), phase3=None) for seed in (1, 2)]
    both = replace(recipe, networks=tuple(seeds), trees={0: 3, 1: 4})
    written = refit(both, data, "train+val", tmp_path, "cpu")
    network, twin, blend = (Forecast.read(path) for path in written)
    assert [f.model for f in (network, twin, blend)] == ["ensemble_refitted", "lightgbm_refitted", "blend_refitted"]
    np.testing.assert_allclose(blend.p, (network.p + twin.p) / 2, atol=1e-6)
    expected = Ensemble.open(tmp_path / "ensemble.json").predict(data.test, "test")
    np.testing.assert_allclose(network.p, expected.p, atol=1e-6)
    assert Checkpoint.open(tmp_path / "seed1" / "refitted.pt").card.phase["samples"] == len(data.train) + len(data.val)


def test_rows_of_train_and_val_end_before_test_begins(data) -> None:
    rows = rows_of(data, "train+val")
    assert isinstance(rows, JoinedDataset) and len(rows) == len(data.train) + len(data.val)
    assert rows.samples["label_end"].max() < data.test.samples["date"].min()
    with pytest.raises(ValueError, match="train or train\\+val"):
        rows_of(data, "test")


def test_a_recipe_is_read_as_it_was_written_and_refused_when_changed(recipe, tmp_path) -> None:
    heads = HeadsRecipe({"rank": 12, "lr": 1e-3}, None, 3, (1, 4))
    full = replace(recipe.networks[0], phase3=PhaseRecipe(5, 1e-5, 2), phase2=heads)
    recipe = replace(recipe, networks=(recipe.networks[0], full))
    recipe.write(tmp_path / "r.json")
    assert Recipe.read(tmp_path / "r.json") == recipe
    content = json.loads((tmp_path / "r.json").read_text())
    content["networks"][0]["phase1"]["stop_after"] += 1
    (tmp_path / "r.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="changed after it was frozen"):
        Recipe.read(tmp_path / "r.json")
    (tmp_path / "r.json").write_text("{}")
    with pytest.raises(ValueError, match="cannot read it"):
        Recipe.read(tmp_path / "r.json")


def test_a_dataset_of_other_features_is_refused(data, recipe) -> None:
    check_recipe(recipe, data)
    with pytest.raises(ValueError, match="expected the window that the recipe was decided with"):
        check_recipe(replace(recipe, data={**recipe.data, "window": 61}), data)


def test_joined_samples_are_those_of_the_parts_in_any_order(data) -> None:
    joined = JoinedDataset([data.val, data.test])
    order = np.random.default_rng(0).permutation(len(joined))[:50].tolist()
    first = len(data.val)
    expected = [data.val.batch([i]) if i < first else data.test.batch([i - first]) for i in order]
    for found, parts in zip(joined.batch(order), zip(*expected, strict=True), strict=True):
        assert torch.equal(found, torch.cat(parts))
    reads = Reads((1, 2, 3), charts=False)
    read, (whole, *_) = joined.read(order, reads), joined.batch(order)
    assert torch.equal(read[0].days, whole[:, :, 1:4]) and read[1].shape == (50, 0)
    means = np.concatenate([data.val.last_days_means(), data.test.last_days_means()])
    assert np.array_equal(joined.last_days_means(), means)
    assert joined.samples.equals(pl.concat([data.val.samples, data.test.samples], how="diagonal"))
