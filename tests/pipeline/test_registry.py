"""The live folder in MLflow's registry: one version per refit, aliases that follow, and a model that anybody loads."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from loguru import logger

from experiments import promote
from lasps.data.datasets.panel_samples import PanelRows
from lasps.data.panel import Panel
from lasps.data.universe import select_universe
from lasps.evaluation.significance import Difference
from lasps.live import registry
from lasps.live.evening import forecasts_on
from lasps.live.folder import LiveFolder
from lasps.live.model import CHAMPION, EveningModel, train, with_seeds, write_without_pickle
from lasps.live.pyfunc import market_table
from lasps.live.registry import Registry, follow, publish
from lasps.live.succession import PROMOTION, Succession
from lasps.pipeline.forecast import gated
from lasps.tracking.location import local_location, location_of
from tests.pipeline.conftest import call

pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType")  # where MLflow is imported


@pytest.fixture(scope="module")
def panel(job) -> Panel:
    return Panel(select_universe(job.market.panel, job.market.listing, "common")[0])


@pytest.fixture(scope="module")
def days(panel) -> list[date]:
    return [panel.calendar[i].item() for i in (-60, -40)]


@pytest.fixture(scope="module")
def models(panel, days, tiny_recipe, tmp_path_factory) -> Path:
    """Two refits."""
    root, rows = tmp_path_factory.mktemp("live"), PanelRows(panel, tiny_recipe.data)
    for day in days:
        train(with_seeds(tiny_recipe, 1), rows, day, root / "models" / day.isoformat())
    return root


@pytest.fixture
def live(models, days, tmp_path) -> LiveFolder:
    root = tmp_path / "live"
    root.mkdir()
    (root / "models").symlink_to(models / "models")
    folder = LiveFolder(root)
    folder.write_succession(Succession().refitted(str(days[0]), days[0]).refitted(str(days[1]), days[1]))
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture(scope="module")
def shown(store) -> Registry:
    return Registry(local_location(store))


@pytest.fixture
def warned() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lines.append, level="WARNING", format="{message}")
    yield lines
    logger.remove(sink)


def aliases(shown: Registry) -> dict[str, str]:
    return {a: shown.client.get_model_version(shown.name, v).tags["lasps.folder"] for a, v in shown.aliases().items()}


def versions(shown: Registry) -> dict[str, str]:
    """folder -> version number."""
    found = shown.client.search_model_versions(f"name = '{shown.name}'")
    assert len({v.tags["lasps.folder"] for v in found}) == len(found)
    return {v.tags["lasps.folder"]: str(v.version) for v in found}


def files_of(store: Path) -> dict[Path, int]:
    """Every artifact, and when it was written."""
    return {path: path.stat().st_mtime_ns for path in (store / "mlruns").rglob("*") if path.is_file()}


def move(shown: Registry, folder: date) -> None:
    """What a person does in MLflow's pages."""
    shown.client.set_registered_model_alias(shown.name, CHAMPION, versions(shown)[str(folder)])


def whole_market(job, until: date) -> pd.DataFrame:
    return market_table(job.market.panel.filter(pl.col("date") <= until), job.market.listing)


def test_each_refit_is_published_once_with_a_run_of_its_own(live, shown, store, days, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    assert publish(live, shown)
    written = files_of(store)
    stamp = shown.client.get_registered_model(shown.name).last_updated_timestamp
    assert publish(live, Registry(shown.location)) and sorted(versions(shown)) == [str(day) for day in days]
    assert shown.client.get_registered_model(shown.name).last_updated_timestamp == stamp
    assert files_of(store) == written
    assert aliases(shown) == {"champion": str(days[1]), "shadow": str(days[0])}
    version = shown.client.get_model_version(shown.name, versions(shown)[str(days[1])])
    run, about = shown.client.get_run(version.run_id), live.model(str(days[1])).about
    assert run.info.status == "FINISHED" and {"git_commit", "lasps.pid"} <= run.data.tags.keys()
    expected = {key: str(about[key]) for key in ("as_of", "recipe", "samples", "last_label_end", "rows", "stocks")}
    assert expected.items() <= run.data.params.items() and run.data.params["seeds"] == "1"
    assert version.tags["lasps.version"] == about["name"] and about["name"] in version.description
    assert not (tmp_path / "mlruns").exists() and Path(run.info.artifact_uri).is_relative_to(store / "mlruns")


def test_a_rollback_stands_in_the_fallen_model_s_run_and_version(live, shown, days) -> None:
    worse = Difference("log_loss", 0.01, 0.002, 0.018, 0.001, n_days=20, n=800)
    live.write_succession(live.succession().rolled_back(days[1], "worse over 20 due days", worse))
    assert publish(live, shown) and aliases(shown) == {"champion": str(days[0])}
    version = shown.client.get_model_version(shown.name, versions(shown)[str(days[1])])
    run = shown.client.get_run(version.run_id)
    for tags in (run.data.tags, version.tags):
        assert tags["lasps.rollback"] == str(days[1]) and tags["lasps.rollback.reason"] == "worse over 20 due days"
        assert [tags[f"lasps.rollback.{key}"] for key in ("difference", "low", "high")] == ["0.01", "0.002", "0.018"]
    assert "worse over 20 due days (log loss +0.0100, 95 % interval +0.0020 to +0.0180)" in version.description
    decisions = json.loads(Path(run.info.artifact_uri, "decisions.json").read_text())
    assert [(d["what"], d["champion"]) for d in decisions] == [("refit", str(days[1])), ("rollback", str(days[0]))]
    again = live.succession().promoted(str(days[1]), days[1], "once more").rolled_back(days[1], "a second time")
    live.write_succession(again)
    assert publish(live, shown) and publish(live, shown)
    assert shown.client.get_run(run.info.run_id).data.tags["lasps.rollback.reason"] == "a second time"


def test_a_champion_that_was_moved_in_mlflow_is_followed_once(live, shown, days) -> None:
    publish(live, shown, decided=True)
    assert follow(live, shown) is None
    move(shown, days[0])
    assert follow(live, shown) == str(days[0])
    assert live.succession().decisions[-1].what == PROMOTION and live.succession().predecessor == str(days[1])
    live.write_succession(live.succession().refitted(str(days[1]), days[1]))  # and the evening ends before it publishes
    assert follow(live, shown) is None
    publish(live, shown)
    assert follow(live, shown) is None and aliases(shown) == {"champion": str(days[1]), "shadow": str(days[0])}


def test_one_that_was_moved_while_an_evening_was_at_work_waits_for_the_next_evening(live, shown, days, warned) -> None:
    publish(live, shown, decided=True)
    move(shown, days[0])
    assert publish(live, shown) and aliases(shown)["champion"] == str(days[0]) and "next evening" in warned[-1]
    assert follow(live, shown) == str(days[0])
    live.write_succession(live.promoted(str(days[1]), "by hand"))
    assert publish(live, shown, decided=True) and aliases(shown)["champion"] == str(days[1])
    assert follow(live, shown) is None


def test_a_version_that_is_no_model_of_the_folder_is_not_followed(live, shown, days, warned) -> None:
    publish(live, shown, decided=True)
    foreign = shown.client.create_model_version(
        shown.name, "runs:/0/model", tags={"lasps.folder": str(days[0]), "lasps.digest": "of another checkout"}
    )
    shown.client.set_registered_model_alias(shown.name, CHAMPION, foreign.version)
    assert follow(live, shown) is None and "no model in" in warned[-1]
    assert publish(live, shown)
    shown.client.delete_model_version(shown.name, foreign.version)
    assert aliases(shown)["champion"] == str(days[1])


def test_what_another_store_says_of_an_earlier_evening_is_no_move(live, shown, days) -> None:
    publish(live, shown, decided=True)
    live.write_succession(live.succession().promoted(str(days[0]), days[1], "by hand"))
    elsewhere = Registry(shown.location, name="elsewhere")
    assert publish(live, elsewhere) and follow(live, shown) is None and follow(live, elsewhere) is None
    assert publish(live, shown) and aliases(shown)["champion"] == str(days[0])


def test_a_server_that_is_away_is_warned_of_and_asked_again(live, shown, days, warned) -> None:
    away = Registry(location_of("http://user:secret@127.0.0.1:9"))
    assert publish(live, away) is False and not (live.root / registry.STATE).exists()
    assert len(warned) == 1 and f"champion is {days[1]}" in warned[0] and "secret" not in warned[0]
    (live.root / registry.STATE).write_text(json.dumps({away.key: "2001-01-01"}))
    assert "secret" not in away.key and follow(live, away) is None and "not followed yet" in warned[-1]
    (live.root / registry.STATE).write_text("{")
    assert follow(live, shown) is None and publish(live, shown, decided=True)


def test_a_run_that_could_not_be_finished_is_gone_on_with(live, shown, warned, monkeypatch) -> None:
    other = Registry(shown.location, name="unfinished", experiment="unfinished")
    with monkeypatch.context() as patch:
        patch.setattr("mlflow.MlflowClient.log_artifacts", lambda *_, **__: (_ for _ in ()).throw(OSError("full")))
        assert publish(live, other) is False and "full" in warned[-1]
    assert publish(live, other) and len(versions(other)) == 2
    runs = other.client.search_runs([other.writer.experiment_id("unfinished")])
    assert [run.info.status for run in runs] == ["FINISHED"] * 2


def test_mlflow_loads_the_champion_which_says_what_the_evening_says(live, shown, job, panel, days) -> None:
    import mlflow

    publish(live, shown, decided=True)
    day = panel.calendar[-20].item()
    mlflow.set_tracking_uri(shown.location.uri)
    loaded = mlflow.pyfunc.load_model(f"models:/{shown.name}@champion")
    found = loaded.predict(whole_market(job, day)).sort_values("code")
    assert list(found.columns) == ["code", "name", "sector", "date", "p_sell", "p_hold", "p_buy", "class"]
    known = Panel(panel.frame.filter(pl.col("date") <= day))
    table, _ = forecasts_on(live.model(str(days[1])), known, day)
    expected = table.filter(model="champion").sort("code")
    assert found["code"].tolist() == expected["code"].to_list() and pd.Timestamp(found["date"].iloc[0]).date() == day
    p = ["p_sell", "p_hold", "p_buy"]
    assert np.array_equal(found[p], expected.select(p).to_numpy())
    earlier = loaded.predict(whole_market(job, day), params={"date": str(days[1])})
    assert {pd.Timestamp(d).date() for d in earlier["date"]} == {days[1]}
    assert loaded.metadata.signature.inputs.required_input_names()[:2] == ["code", "date"]


def test_no_file_of_a_version_is_a_pickle(live, shown, days) -> None:
    import mlflow

    publish(live, shown, decided=True)
    folder = Path(
        mlflow.artifacts.download_artifacts(f"models:/{shown.name}@champion", tracking_uri=shown.location.uri)
    )
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {"MLmodel", "pyfunc_model.py", "model.json", "refitted.safetensors", "seed0.txt"} <= {p.name for p in files}
    starts = {path.name: path.read_bytes()[:2] for path in files}
    assert [name for name, start in starts.items() if start in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05")] == []
    assert "python_model:" not in (folder / "MLmodel").read_text()  # where a pickled one would be named


def test_several_networks_without_pickle_say_the_same(tiny_recipe, panel, days, tmp_path) -> None:
    rows = PanelRows(panel, tiny_recipe.data)
    trained = train(replace(tiny_recipe, trees={0: 2}), rows, days[0], tmp_path / "m")
    write_without_pickle(tmp_path / "m", tmp_path / "plain")
    copied, samples = EveningModel.open(tmp_path / "plain"), rows.on(days[1])
    assert copied.name == trained.name and not list((tmp_path / "plain").rglob("*.pt"))
    expected, found = trained.predict(samples), copied.predict(samples)
    assert expected.keys() == found.keys() and all(np.array_equal(expected[name], found[name]) for name in found)


@pytest.mark.slow
def test_a_process_of_its_own_loads_it(live, shown, job, panel, tmp_path) -> None:
    publish(live, shown, decided=True)
    whole_market(job, panel.calendar[-20].item()).to_parquet(tmp_path / "bars.parquet")
    code = (
        "import mlflow, pandas as pd; m = mlflow.pyfunc.load_model('models:/lasps@champion'); "
        "print(len(m.predict(pd.read_parquet('bars.parquet'))))"
    )
    env = {**os.environ, "MLFLOW_TRACKING_URI": shown.location.uri}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and int(done.stdout.split()[-1]) > 20, done.stderr


@pytest.mark.slow
def test_an_evening_that_is_not_tracked_does_not_load_mlflow() -> None:
    code = (
        "import sys, experiments.daily, experiments.promote, lasps.live.evening, lasps.live.page, lasps.live.registry"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print('mlflow' in sys.modules)"], capture_output=True, text=True
    )
    assert done.stdout.strip() == "False", done.stderr


def test_a_part_of_the_market_is_refused(live, job, panel, days) -> None:
    from lasps.live.pyfunc_model import forecast_market

    table = whole_market(job, panel.calendar[-20].item())
    some = table[table["code"].isin(sorted(table["code"].unique())[:20])]
    with pytest.raises(ValueError, match="expected bars of the whole market"):
        forecast_market(live.model(str(days[1])), some)


def test_a_stock_that_the_listing_has_not_is_left_out_as_it_is_of_an_evening(live, job, panel, days) -> None:
    from lasps.live.pyfunc_model import bars_and_listing, forecast_market

    day = panel.calendar[-20].item()
    bars, gone = job.market.panel.filter(pl.col("date") <= day), panel.frame.filter(date=day)["code"][0]
    listing, model = job.market.listing.filter(pl.col("code") != gone), live.model(str(days[1]))
    table = market_table(bars, listing)
    assert gone in table["code"].tolist() and gone not in bars_and_listing(table)[1]["code"]
    found = forecast_market(model, table).sort_values("code")
    _, known = gated(bars, listing, model.inputs, day)
    expected = forecasts_on(model, Panel(known), day)[0].filter(model="champion").sort("code")
    assert found["code"].tolist() == expected["code"].to_list() and gone not in expected["code"]
    assert np.array_equal(found["p_buy"], expected["p_buy"])


def test_a_model_is_promoted_or_rolled_back_by_hand_with_its_reason(live, days, monkeypatch, capsys) -> None:
    options = ("--live-dir", live.root, "--no-track", "--reason", "a wrong split")
    monkeypatch.setattr(LiveFolder, "next_evening", lambda _: date(2030, 1, 2))
    assert call(monkeypatch, promote, str(days[0]), *options) == 0
    out = capsys.readouterr().out
    assert f"Champion from 2030-01-02 on: {days[0]}; in its shadow: {days[1]}; before: {days[1]}" in out
    assert live.succession().decisions[-1].reason == "a wrong split" and live.succession().since == date(2030, 1, 2)
    for wrong in ((str(days[0]),), ("2001-01-01",), ("--rollback", "--reason", " ")):
        assert call(monkeypatch, promote, *options, *wrong) != 0
    assert call(monkeypatch, promote, "--rollback", *options) == 0 and live.succession().champion == str(days[1])
    assert call(monkeypatch, promote, "--rollback", *options) != 0
    assert "found none to go back to" in capsys.readouterr().err


def test_nobody_is_promoted_who_is_not_whole_or_while_an_evening_is_at_work(live, days, models, monkeypatch) -> None:
    (live.root / "models").unlink()
    (live.root / "models").mkdir()
    for day in days:
        (live.root / "models" / str(day)).symlink_to(models / "models" / str(day))
    with live.in_use():
        assert call(monkeypatch, promote, str(days[0]), "--live-dir", live.root, "--no-track") != 0
    damaged = live.root / "models" / "2001-01-01"
    damaged.mkdir()
    (damaged / "model.json").write_text((live.models / str(days[0]) / "model.json").read_text())
    before = live.succession()
    assert call(monkeypatch, promote, "2001-01-01", "--live-dir", live.root, "--no-track") != 0
    assert live.succession() == before
