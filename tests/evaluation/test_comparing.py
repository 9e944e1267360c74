"""compare.py from files to a verdict: names, seeds, splits, the prior's origin, cached baselines, refusals."""

import json
import sys
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from experiments import compare as script
from experiments._cli import run_script
from lasps.config.settings import Settings
from lasps.data.datasets.dataset import Dataset
from lasps.evaluation import baselines
from lasps.evaluation.forecast import Forecast
from lasps.pipeline import baseline_cache, comparing
from tests.evaluation.conftest import make_forecast, make_split


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """The four arrays of the interchange format per split, with samples.parquet beside them."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name, days in (("train", (40, 0, 1)), ("val", (12, 50, 2)), ("test", (25, 70, 3))):
        split = make_split(*days)
        n = len(split.labels)
        (folder / name).mkdir()
        np.save(folder / name / "time_series.npy", np.repeat(split.features[:, None], 2, axis=1))
        np.save(folder / name / "chart_images.npy", rng.integers(0, 255, (n, 3, 4, 4)).astype(np.uint8))
        np.save(folder / name / "sector_ids.npy", split.sector_ids)
        np.save(folder / name / "labels.npy", split.labels)
        split.samples.write_parquet(folder / name / "samples.parquet")
    return folder


def write(folder, name, **how):
    return str(make_forecast(n_days=30, market_seed=1, **how).write(folder / name))


def load(texts, data_dir, splits=("test",)):
    return comparing.load_models(texts, comparing.Loader(splits, Dataset.open(data_dir)))


def test_a_name_of_ones_own_stands_before_the_path(tmp_path):
    path = write(tmp_path, "a=b,c.parquet", model="m")
    assert comparing.Source.parse(f"mine={path}") == comparing.Source((path,), "mine")
    assert comparing.Source.parse(path) == comparing.Source((path,))
    assert comparing.Source.parse("mine=a.pt,b.pt") == comparing.Source(("a.pt", "b.pt"), "mine")
    with pytest.raises(ValueError, match="one of them is empty"):
        comparing.Source.parse("mine=a.pt,")


def test_several_files_of_one_argument_are_seeds_even_if_nobody_knows_which(tmp_path, data_dir):
    paths = [write(tmp_path, f"{s}.parquet", seed=s) for s in (1, 2)]
    models = load([f"mine={','.join(paths)}"], data_dir)
    assert {n: [t.model for t in s["test"]] for n, s in models.items()} == {"mine": ["mine", "mine"]}
    unknown = [replace(Forecast.read(p), seed=None).write(tmp_path / f"u{i}.parquet") for i, p in enumerate(paths)]
    assert len(load([",".join(map(str, unknown))], data_dir)["m"]["test"]) == 2
    with pytest.raises(ValueError, match="trained from different seeds"):
        load([f"{paths[0]},{paths[0]}"], data_dir)


def test_the_phase1_best_beside_a_model_is_found(tmp_path):
    for name in ("phase1_best.test.parquet", "phase2_best.test.parquet", "phase1_best.pt", "other.pt"):
        (tmp_path / name).touch()
    texts = [f"a={tmp_path}/phase2_best.test.parquet,{tmp_path}/phase2_best.val.parquet", f"{tmp_path}/other.pt", "0f"]
    assert comparing.phase1_beside(texts) == [f"{tmp_path}/phase1_best.test.parquet", f"{tmp_path}/phase1_best.pt"]


def test_files_of_one_name_and_different_seeds_are_seeds(tmp_path, data_dir):
    paths = [write(tmp_path, f"{s}.parquet", seed=s) for s in (1, 2)]
    models = load(paths, data_dir)
    assert {n: len(t["test"]) for n, t in models.items()} == {"m": 2}


def test_files_of_one_name_and_one_seed_are_told_apart_by_folder(tmp_path, data_dir):
    paths = [write(tmp_path / folder, "p.parquet") for folder in ("old", "new")]
    assert list(load(paths, data_dir)) == ["old/m", "new/m"]


def test_two_splits_of_one_model_are_one_model(tmp_path, data_dir):
    test = write(tmp_path, "m.test.parquet")
    val = make_forecast(n_days=30, market_seed=1, start="2023-01-02").named(split="val")
    paths = [test, str(val.write(tmp_path / "v.parquet"))]
    models = load(paths, data_dir, ("val", "test"))
    assert set(models["m"]) == {"val", "test"}


def test_what_is_no_model_is_refused_with_what_was_expected(tmp_path, data_dir):
    with pytest.raises(ValueError, match="expected a checkpoint"):
        load([str(tmp_path / "nothing")], data_dir)
    other = make_forecast(n_days=25, start="2020-01-01", model="other")
    pl.concat([make_forecast(n_days=25).table, other.table]).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="one model on one split"):
        load([str(tmp_path / "x.parquet")], data_dir)


def test_the_prior_is_the_datasets_only_for_the_datasets_own_rows(tmp_path, data_dir):
    own = baselines.fit_baselines(make_split(40, 0, 1), None, {"test": make_split(25, 70, 3)}, ["prior"])
    prior, source = comparing.prior_of(Dataset.open(data_dir), {"m": {"test": [own["prior"]["test"]]}})
    assert prior == pytest.approx(np.bincount(np.load(data_dir / "train" / "labels.npy")) / 1600)
    assert "train" in source
    foreign = make_forecast(n_days=25, start="2010-01-01")
    assert comparing.prior_of(Dataset.open(data_dir), {"m": {"test": [foreign]}})[0] is None
    assert comparing.prior_of(Dataset.open(tmp_path / "none"), {"m": {"test": [foreign]}})[0] is None


def test_baselines_are_fitted_once_per_dataset(tmp_path, data_dir, monkeypatch):
    names = ("prior", "volatility_bins", "oracle")
    first = baseline_cache.cached_baselines(Dataset.open(data_dir), ["test"], tmp_path, names)
    monkeypatch.setattr(baselines, "fit_baselines", lambda *a, **k: pytest.fail("fitted again"))
    again = baseline_cache.cached_baselines(Dataset.open(data_dir), ["test"], tmp_path, names)
    assert set(again) == {"prior", "volatility_bins"}
    assert again["volatility_bins"]["test"][0].table.equals(first["volatility_bins"]["test"][0].table)


@pytest.mark.parametrize("damage", ["altered", "gone"])
def test_a_cached_baseline_that_is_damaged_or_gone_is_fitted_again(tmp_path, data_dir, damage):
    names = ("prior", "volatility_bins", "oracle")
    first = baseline_cache.cached_baselines(Dataset.open(data_dir), ["test"], tmp_path, names)
    (path,) = tmp_path.rglob("volatility_bins.test.parquet")
    if damage == "gone":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 3] ^= 1
        path.write_bytes(content)
    again = baseline_cache.cached_baselines(Dataset.open(data_dir), ["test"], tmp_path, names)
    assert set(again) == {"prior", "volatility_bins"}
    assert again["volatility_bins"]["test"][0].table.equals(first["volatility_bins"]["test"][0].table)
    assert comparing.Forecast.read(path).table.equals(first["volatility_bins"]["test"][0].table)


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["compare.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        run_script(script.main)
    return end.value.code


def test_the_script_prints_the_verdict_and_writes_json_and_html(tmp_path, data_dir, monkeypatch, capsys):
    monkeypatch.setattr(script, "settings", Settings(REPORT_DIR=tmp_path / "reports"))
    rng = np.random.default_rng(5)
    split = make_split(25, 70, 3)
    oracle = np.stack([np.where(split.labels == c, 0.4, 0.3) for c in range(3)], axis=1)
    for name, weight in (("a", 0.2), ("b", 1.0)):
        p = weight * oracle + (1 - weight) * rng.dirichlet([5, 5, 5], len(oracle))
        forecast = Forecast.from_probabilities(p, split.labels, split.sector_ids, samples=split.samples)
        forecast.named(name, "test").write(tmp_path / f"{name}.parquet")
    code = run(
        monkeypatch,
        tmp_path / "a.parquet",
        tmp_path / "b.parquet",
        "--data-dir",
        data_dir,
        "--no-track",
        "--json",
        tmp_path / "r.json",
        "--html",
        tmp_path / "r.html",
    )
    out = capsys.readouterr().out
    result = json.loads((tmp_path / "r.json").read_text())
    assert code == 0 and out.startswith("b is better than a on test;")
    assert result["verdict"].startswith("b is better than a on test (log loss -")
    page = (tmp_path / "r.html").read_text()
    assert page.startswith("<!doctype html>") and "b is better than a on test" in page
    assert "training frequencies" in page
    assert out.split("Made")[1].split()[0] == str(tmp_path / "r.html")


def test_the_script_refuses_with_code_2(tmp_path, data_dir, monkeypatch, capsys):
    assert run(monkeypatch, tmp_path / "none.parquet", "--data-dir", data_dir, "--no-track") == 2
    assert run(monkeypatch, "x", "--prior", "1,1,1") == 2


class Keeper:
    """A tracker that keeps the tags and artifacts of its one run."""

    def __init__(self) -> None:
        self.tags: dict[str, str] = {}
        self.artifacts: dict[str, str] = {}

    @contextmanager
    def run(self, name, tags):
        self.tags = tags
        yield self

    def log_metrics(self, metrics) -> None:
        assert all("/" in name for name in metrics)

    def log_artifact(self, path) -> None:
        self.artifacts[path.name] = path.read_text()


def test_mlflow_shows_the_verdict_as_the_run_s_description_and_the_page_as_an_artifact() -> None:
    from lasps.evaluation.comparison import compare
    from tests.evaluation.conftest import make_forecast

    forecasts = {
        name: {"test": [make_forecast(skill=skill, n_days=40, n_stocks=30, market_seed=2)]}
        for name, skill in (("phase3_final", 0.1), ("phase2_best", 0.9))
    }
    comparison, keeper = compare(forecasts, prior=(0.3, 0.4, 0.3)), Keeper()
    script.log_comparison(comparison, "<!doctype html>", keeper)
    note = keeper.tags["mlflow.note.content"]
    assert note.startswith(comparison.verdict[0].split(" ")[0].replace("_", "\\_")) and "comparison.html" in note
    assert keeper.tags["verdict"].splitlines() == list(comparison.verdict)
    assert keeper.artifacts["comparison.html"] == "<!doctype html>" and "comparison.json" in keeper.artifacts
