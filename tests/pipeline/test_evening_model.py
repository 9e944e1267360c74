"""The evening's model: trained up to a day from a recipe, opened whole, and simulated as it would have lived."""

from datetime import date

import numpy as np
import polars as pl
import pytest

from lasps.config import clock
from lasps.data.datasets.panel_samples import PanelRows
from lasps.data.panel import Panel
from lasps.data.universe import select_universe
from lasps.evaluation import trees
from lasps.live.evening import Refits, forecasts_on, run_evening
from lasps.live.folder import LiveFolder
from lasps.live.ledger import P_COLUMNS, SIMULATION, Ledger
from lasps.live.model import EveningModel, ModelError, train, with_seeds
from lasps.live.walk_forward import (
    apart,
    by_age,
    is_done,
    origins,
    read_scores,
    run_origin,
    scheduled,
    simulate,
    write_scores,
)
from lasps.pipeline.recipe import Recipe
from lasps.training.trainer import ThreePhaseTrainer
from tests.market_by_day import MarketByDay, at_six, eventful


@pytest.fixture(scope="module")
def recipe(tiny_recipe) -> Recipe:
    return tiny_recipe


@pytest.fixture(scope="module")
def rows(job, recipe) -> PanelRows:
    panel, _ = select_universe(job.market.panel, job.market.listing, "common")
    return PanelRows(Panel(panel), recipe.data)


@pytest.fixture(scope="module")
def day(rows) -> date:
    return rows.panel.calendar[-30].item()


@pytest.fixture(scope="module")
def trained(recipe, rows, day, tmp_path_factory) -> tuple[EveningModel, object]:
    folder = tmp_path_factory.mktemp("models") / day.isoformat()
    return train(recipe, rows, day, folder), folder


def test_it_forecasts_with_the_mean_of_networks_and_trees_beside_its_references(trained, rows, day) -> None:
    model, _ = trained
    samples = rows.on(day)
    found, members = model.predict(samples), model.members(samples)
    assert list(found) == ["champion", "network", "lightgbm", "prior", "volatility"]
    assert list(members) == ["network 1", "network 2", "lightgbm 0", "lightgbm 1"]
    np.testing.assert_allclose(found["network"], (members["network 1"] + members["network 2"]) / 2)
    np.testing.assert_allclose(found["champion"], (found["network"] + found["lightgbm"]) / 2)
    for p in found.values():
        np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-9)
    frequencies = rows.ended_by(day).samples["label"].value_counts(sort=False, normalize=True).sort("label")
    np.testing.assert_allclose(found["prior"][0], frequencies["proportion"])
    assert len(np.unique(found["volatility"][:, 2])) > 3


def test_it_is_trained_on_what_had_ended_that_day_and_knows_no_val(recipe, rows, day, tmp_path, monkeypatch) -> None:
    seen, splits = [], []
    for name in ("train_phase1", "train_phase3"):
        real = getattr(ThreePhaseTrainer, name)

        def spy(self, train_loader, val_loader, *args, real=real, **kwargs):
            seen.append((train_loader.dataset.samples["label_end"].max(), val_loader))
            return real(self, train_loader, val_loader, *args, **kwargs)

        monkeypatch.setattr(ThreePhaseTrainer, name, spy)
    monkeypatch.setattr(
        "lasps.pipeline.refit.boosted",
        lambda inputs, train, val, *rest: (
            splits.append((train.samples["label_end"].max(), val)) or trees.boosted(inputs, train, val, *rest)
        ),
    )
    model = train(with_seeds(recipe, 1), rows, day, tmp_path / "m")
    assert seen == [(day, None)] and splits == [(day, None)]
    assert model.about["samples"] == len(rows.ended_by(day)) and model.about["last_label_end"] == str(day)
    half = train(with_seeds(recipe, 1), rows, day, tmp_path / "half", fraction=0.5)
    assert half.about["samples"] < 0.6 * model.about["samples"]
    assert half.about["stocks"] == model.about["stocks"] == len(rows.on(day))


def test_the_same_call_again_trains_nothing_and_opens_the_same_model(trained, recipe, rows, day, monkeypatch) -> None:
    model, folder = trained
    monkeypatch.setattr("lasps.live.model.refit_network", lambda *_: pytest.fail("trained again"))
    again = train(recipe, rows, day, folder)
    samples = rows.on(day)
    assert again.name == model.name
    assert all(np.array_equal(p, again.predict(samples)[name]) for name, p in model.predict(samples).items())


def test_a_file_that_was_changed_or_is_missing_is_refused(trained, tmp_path) -> None:
    import shutil

    _, folder = trained
    for name in ("trees/seed0.txt", "seed1/refitted.pt", "model.json"):
        copy = tmp_path / name.replace("/", "_")
        shutil.copytree(folder, copy)
        content = (copy / name).read_bytes()
        (copy / name).write_bytes(content.replace(b"1", b"2", 1))
        with pytest.raises(ModelError, match="changed|cannot read"):
            EveningModel.open(copy)
        (copy / name).unlink()
        with pytest.raises(ModelError, match="cannot read"):
            EveningModel.open(copy)


def test_without_labels_that_have_ended_nothing_is_trained(recipe, rows, tmp_path) -> None:
    with pytest.raises(ValueError, match="labels that have ended"):
        train(recipe, rows, rows.panel.calendar[20].item(), tmp_path / "m")
    assert not (tmp_path / "m").exists()


# ------------------------------------------------------------------------------------------------ the walk-forward


def test_refits_stand_at_the_first_day_and_every_so_many_after_it(rows) -> None:
    calendar = rows.panel.calendar
    first, last = calendar[10].item(), calendar[40].item()
    assert origins(calendar, first, last, 15) == [calendar[i].item() for i in (10, 25, 40)]
    assert origins(calendar, first, last, None) == [first]
    with pytest.raises(ValueError, match="market days"):
        origins(calendar, date(1990, 1, 1), date(1990, 2, 1), 5)


@pytest.fixture(scope="module")
def walked(recipe, rows, tmp_path_factory) -> dict[date, pl.DataFrame]:
    folder, calendar = tmp_path_factory.mktemp("walk"), rows.panel.calendar
    chosen = origins(calendar, calendar[-40].item(), calendar[-6].item(), 15)
    found = {}
    for as_of in chosen:
        _, scores = run_origin(recipe, rows, as_of, calendar[-6].item(), folder / as_of.isoformat())
        write_scores(folder / "scores", as_of, scores, {"recipe": recipe.digest})
        found[as_of] = scores
    assert is_done(folder / "scores", chosen[0], {"recipe": recipe.digest})
    with pytest.raises(ValueError, match="another recipe"):
        is_done(folder / "scores", chosen[0], {"recipe": "else"})
    stored = read_scores(folder / "scores")
    for as_of, scores in found.items():
        kept = scores.filter(pl.col("model").is_in(stored[as_of]["model"].unique().implode()))
        assert stored[as_of].equals(kept.with_columns(pl.col(pl.Float64).round(5)))
    return found


def test_a_schedule_takes_each_day_from_the_newest_refit_that_was_there(walked) -> None:
    (first, second, third), whole = sorted(walked), scheduled(walked)
    champion = whole.filter(model="champion").sort("date")
    assert champion["date"].n_unique() == champion.height == walked[first].filter(model="champion").height
    for row in champion.iter_rows(named=True):
        expected = max(as_of for as_of in (first, second, third) if as_of <= row["date"])
        own = walked[expected].filter(date=row["date"], model="champion")
        assert row["as_of"] == expected and own["log_loss"].item() == row["log_loss"]
    assert scheduled(walked, [first])["as_of"].unique().to_list() == [first]
    with pytest.raises(ValueError, match="expected the scores of refits"):
        scheduled(walked, [date(1990, 1, 1)])


def test_age_is_counted_in_market_days(walked, rows) -> None:
    table = by_age(walked, rows.panel.calendar, 10)
    newest = max(walked)
    own = table.filter(as_of=newest, model="champion").sort("date")
    assert own["age"].to_list() == [i // 10 * 10 for i in range(own.height)]


def test_its_scores_are_those_of_the_forecasts_that_an_evening_makes(recipe, rows, walked, tmp_path) -> None:
    as_of = min(walked)
    model = train(recipe, rows, as_of, tmp_path / "m")
    for day in walked[as_of]["date"].unique().sort()[:3].to_list():
        table, versions = forecasts_on(model, Panel(rows.panel.frame.filter(pl.col("date") <= day)), day)
        labels = rows.between(day, day).samples.select("code", "label")
        joined = table.join(labels, on="code", how="inner")
        losses = -np.log(
            np.take_along_axis(joined.select(P_COLUMNS).to_numpy(), joined["label"].to_numpy()[:, None], 1)
        )
        for (name,), own in joined.with_columns(loss=losses[:, 0]).group_by("model"):
            expected = walked[as_of].filter(date=day, model=name)
            assert expected["log_loss"].item() == pytest.approx(own["loss"].mean(), rel=1e-5)
        assert set(versions.values()) == {model.name}


# ---------------------------------------------------------------------------------------- evenings with refits


def three_evenings(market: MarketByDay, recipe: Recipe, live: LiveFolder, days: list[date]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for day in days:
            patch.setattr(clock, "now", lambda day=day: at_six(day))
            run_evening(market.bars_on(day), market.listing_on(day), live, refits=Refits(recipe, every=2))


@pytest.fixture(scope="module")
def market(job) -> MarketByDay:
    bars = job.market.panel.select("code", "date", "open", "high", "low", "close", "volume")
    return eventful(bars, job.market.listing, 60)


def test_evenings_refit_when_one_is_due_and_show_the_model_before_as_shadow(market, recipe, tmp_path) -> None:
    live, days = LiveFolder(tmp_path), market.days[-20:-16]
    three_evenings(market, with_seeds(recipe, 1), live, days)
    succession = live.succession()
    assert (succession.champion, succession.predecessor) == (days[2].isoformat(), days[0].isoformat())
    evenings = list(live.ledger.verified())
    assert [("shadow" in e.versions) for e in evenings] == [False, False, True, True]
    fresh = evenings[2]
    assert fresh.versions["champion"] == live.model(days[2].isoformat()).name
    assert fresh.versions["shadow"] == evenings[0].versions["champion"]
    dry = run_dry(market, recipe, live, market.days[-15])
    assert dry.would_write == tuple(market.days[-16:-14]) and dry.would_refit == (market.days[-16],)


def run_dry(market, recipe, live, day):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "now", lambda: at_six(day))
        return run_evening(market.bars_on(day), market.listing_on(day), live, refits=Refits(recipe, 2), dry_run=True)


def test_a_simulation_on_the_bars_of_each_evening_is_bit_equal_to_the_evenings(market, recipe, tmp_path) -> None:
    """Three days with the split between them: the bars of the first are others than the last evening's."""
    split = market.days.index(market.split[1])
    days, recipe = market.days[split - 2 : split + 1], with_seeds(recipe, 1)
    three_evenings(market, recipe, LiveFolder(tmp_path / "lived"), days)
    bars, listing = market.bars_on(days[-1]), market.listing_on(days[-1])
    known = {
        "as known": lambda day: (market.bars_on(day), market.listing_on(day)),
        "today": lambda day: (bars.filter(pl.col("date") <= day), listing),
    }
    for name, served in known.items():
        simulate(days, served, tmp_path / name, Refits(recipe, every=2))
    lived = Ledger(tmp_path / "lived" / "forecasts")
    simulated = {name: Ledger(tmp_path / name / "forecasts", SIMULATION) for name in known}
    one, two = list(lived.verified()), list(simulated["as known"].verified())
    assert len(one) == 3 and all(a.same_forecasts(b) for a, b in zip(one, two, strict=True))
    assert (apart(lived, simulated["as known"])["largest"] == 0).all()
    other = apart(lived, simulated["today"])
    assert other["date"].to_list() == days and 0 < other["largest"][0] < 0.2
    assert (other["mean"] <= other["largest"]).all() and (other["stocks"] == 38).all()


@pytest.mark.parametrize(
    "place",
    [
        "lasps.live.model.refit_boosters",
        "lasps.live.folder.LiveFolder.write_succession",
        "lasps.live.ledger.Ledger.append",
        "lasps.live.ledger.Ledger._write_head",
        "lasps.live.evening.track_record",
    ],
)
def test_an_evening_that_was_killed_goes_on_where_it_stood(place, market, recipe, tmp_path, monkeypatch) -> None:
    days, recipe = market.days[-20:-18], with_seeds(recipe, 1)
    three_evenings(market, recipe, LiveFolder(tmp_path / "undisturbed"), days)
    live = LiveFolder(tmp_path / "killed")
    with monkeypatch.context() as patch:
        patch.setattr(place, lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            three_evenings(market, recipe, live, days[:1])
    three_evenings(market, recipe, live, days)
    expected, found = (list(LiveFolder(tmp_path / n).ledger.verified()) for n in ("undisturbed", "killed"))
    assert len(found) == 2 and all(a.same_forecasts(b) for a, b in zip(expected, found, strict=True))
    assert [d.what for d in live.succession().decisions] == ["refit"]
