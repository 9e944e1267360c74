"""The live folder in MLflow's registry: one version per refit, aliases that follow, and a model that anybody loads."""

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from experiments import promote
from lasps.data.datasets.panel_samples import PanelRows
from lasps.data.panel import Panel
from lasps.data.universe import select_universe
from lasps.live import registry
from lasps.live.evening import forecasts_on
from lasps.live.folder import LiveFolder
from lasps.live.model import train, with_seeds
from lasps.live.registry import NAME, follow, publish
from lasps.live.succession import PROMOTION, Succession
from lasps.tracking.location import Location, connect, location_of
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
def location(tmp_path_factory) -> Location:
    folder = tmp_path_factory.mktemp("mlflow")
    return location_of(f"sqlite:///{folder / 'mlflow.db'}", folder)


def aliases(location: Location) -> dict[str, str]:
    client = connect(location)
    found = client.get_registered_model(NAME).aliases
    return {a: client.get_model_version(NAME, str(v)).tags["lasps.folder"] for a, v in found.items()}


def joined(job, until: date) -> pd.DataFrame:
    bars = job.market.panel.filter(pl.col("date") <= until).select(
        "code", "date", "open", "high", "low", "close", "volume"
    )
    listing = job.market.listing.select("code", "name", "market", "industry").unique("code")
    return bars.join(listing, on="code", how="left").to_pandas()


def test_each_refit_is_published_once_and_the_aliases_follow(live, location, days) -> None:
    assert publish(live, location) and publish(live, location)
    client = connect(location)
    versions = client.search_model_versions(f"name = '{NAME}'")
    assert sorted(v.tags["lasps.folder"] for v in versions) == [str(day) for day in days]
    assert aliases(location) == {"champion": str(days[1]), "shadow": str(days[0])}
    run = client.get_run(next(v.run_id for v in versions if v.tags["lasps.folder"] == str(days[1])))
    assert run.data.params["as_of"] == str(days[1]) and run.info.status == "FINISHED"
    live.write_succession(live.succession().rolled_back(days[1], "worse over 20 due days"))
    assert publish(live, location) and aliases(location) == {"champion": str(days[0])}
    run = connect(location).get_run(run.info.run_id)
    assert "worse over 20 due days" in run.data.tags["lasps.rollback"]


def test_a_champion_that_was_moved_in_mlflow_is_followed_once(live, location, days) -> None:
    publish(live, location)
    assert follow(live, location) is None
    client = connect(location)
    other = next(v for v in client.search_model_versions(f"name = '{NAME}'") if v.tags["lasps.folder"] == str(days[0]))
    client.set_registered_model_alias(NAME, "champion", other.version)
    assert follow(live, location) == str(days[0])
    assert live.succession().decisions[-1].what == PROMOTION and live.succession().predecessor == str(days[1])
    publish(live, location)
    assert follow(live, location) is None and aliases(location)["champion"] == str(days[0])


def test_a_server_that_is_away_is_warned_of_and_asked_again(live, location, monkeypatch) -> None:
    def away(_: Location) -> None:
        raise ConnectionError("refused")

    with monkeypatch.context() as patch:
        patch.setattr(registry, "connect", away)
        assert publish(live, location) is False and not (live.root / registry.STATE).exists()
        assert follow(live, location) is None
    assert publish(live, location) is True


def test_mlflow_loads_the_champion_which_says_what_the_evening_says(live, location, job, panel, days) -> None:
    import mlflow

    publish(live, location)
    day = panel.calendar[-20].item()
    mlflow.set_tracking_uri(location.uri)
    loaded = mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
    found = loaded.predict(joined(job, day)).sort_values("code")
    known = Panel(panel.frame.filter(pl.col("date") <= day))
    table, _ = forecasts_on(live.model(str(days[1])), known, day)
    expected = table.filter(model="champion").sort("code")
    assert found["code"].tolist() == expected["code"].to_list() and pd.Timestamp(found["date"].iloc[0]).date() == day
    assert np.array_equal(found[["p_sell", "p_hold", "p_buy"]], expected.select("p_sell", "p_hold", "p_buy").to_numpy())
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}@champion"))
    assert not [p for p in folder.rglob("*") if p.suffix in (".pkl", ".pickle", ".joblib")]
    assert loaded.metadata.signature.inputs.required_input_names()[:2] == ["code", "date"]


def test_a_part_of_the_market_is_refused(live, job, panel, days) -> None:
    from lasps.live.pyfunc_model import forecast_market

    table = joined(job, panel.calendar[-20].item())
    some = table[table["code"].isin(sorted(table["code"].unique())[:20])]
    with pytest.raises(ValueError, match="expected bars of the whole market"):
        forecast_market(live.model(str(days[1])), some)


def test_a_model_is_promoted_or_rolled_back_by_hand_with_its_reason(live, days, monkeypatch, capsys) -> None:
    options = ("--live-dir", live.root, "--no-track", "--reason", "a wrong split")
    assert call(monkeypatch, promote, str(days[0]), *options) == 0
    assert f"Champion from the next evening on: {days[0]}; before: {days[1]}" in capsys.readouterr().out
    assert live.succession().decisions[-1].reason == "a wrong split"
    for wrong in ((str(days[0]),), ("2001-01-01",)):
        assert call(monkeypatch, promote, *wrong, *options) != 0
    assert call(monkeypatch, promote, "--rollback", *options) == 0 and live.succession().champion == str(days[1])
    assert call(monkeypatch, promote, "--rollback", *options) != 0
    assert "found none to go back to" in capsys.readouterr().err
