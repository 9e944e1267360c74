"""The Comparison as a noun: its frames agree with forecasts and with each other, whoever shows them."""

import numpy as np
import polars as pl
import pytest

from lasps.evaluation.class_accuracy import class_accuracy
from lasps.evaluation.comparison import compare
from lasps.evaluation.frames import SCHEMAS
from lasps.evaluation.metrics import log_loss
from lasps.evaluation.pairs import deployed_of, family_of
from lasps.evaluation.significance import day_difference, holm
from tests.evaluation.conftest import make_forecast, without_dates

PRIOR = (0.3, 0.4, 0.3)
DAYS = {"n_days": 45, "n_stocks": 102, "market_seed": 3}


def forecast(skill, seed=0):
    return make_forecast(skill=skill, seed=seed, **DAYS)


@pytest.fixture(scope="module")
def forecasts():
    start, common, best = forecast(0.3), forecast(0.35, 1), forecast(0.9, 2)
    return {"phase1_best": start, "phase3_final": start, "common_change": common, "phase2_best": best}


@pytest.fixture(scope="module")
def baselines():
    return {
        "volatility_bins": forecast(0.1, 3),
        "lightgbm": forecast(0.8, 4),
        "prior": forecast(0.0, 5),
        "oracle": forecast(1.5, 6),
    }


@pytest.fixture(scope="module")
def found(forecasts, baselines):
    models, others = ({n: {s: [f] for s in ("val", "test")} for n, f in of.items()} for of in (forecasts, baselines))
    return compare(models, baselines=others, prior=PRIOR, sector_names=["Food", "Steel"])


def test_every_frame_has_its_columns_and_a_null_for_what_is_undefined(found):
    for name, schema in SCHEMAS.items():
        table = getattr(found, name)
        assert dict(table.schema) == schema, name
        assert not any(
            table[c].is_nan().any() or table[c].is_infinite().any() for c in table.columns if table[c].dtype.is_float()
        ), name
        assert len(table) or name == "pair_seeds", name


def test_identical_models_are_named_once_and_found_by_either_name_in_the_json(found):
    assert found.identical.rows() == [("phase3_final", "phase1_best")]
    assert "phase3_final" not in found.models["model"] and found.models.filter(split="test")["model"].to_list() == [
        "phase1_best",
        "common_change",
        "phase2_best",
        "volatility_bins",
        "lightgbm",
        "prior",
        "oracle",
    ]
    told = found.as_json()
    assert told["models"]["phase3_final"]["test"]["same_as"] == "phase1_best"
    of = [[p for p in told["pairs"] if (p["a"], p["b"]) == (a, "phase2_best")] for a in ("phase1_best", "phase3_final")]
    assert len(of[0]) == len(of[1]) > 0 and of[0][0]["difference"] == of[1][0]["difference"]
    same = [p for p in told["pairs"] if (p["a"], p["b"]) == ("phase1_best", "phase3_final")]
    assert {p["difference"] for p in same} == {0.0} and {p["better"] for p in same} == {None}


def test_the_default_pairs_are_the_family_that_holm_corrects_over(found):
    family = found.main.family
    assert list(family.select("a", "b").iter_rows()) == [
        (a, "phase2_best") for a in ("phase1_best", "common_change", "lightgbm", "volatility_bins")
    ]
    assert family["adjusted_p"].to_list() == pytest.approx(holm(family["p_value"].to_list()))
    others = found.pairs.filter(~pl.col("family"))
    assert others["adjusted_p"].is_null().all() and {"oracle", "prior"} <= set(others["a"])


@pytest.mark.parametrize(
    ("models", "deployed", "expected"),
    [
        (["phase1_best", "phase3_final", "phase2_best"], "phase2_best", ["phase3_final", "lightgbm"]),
        (["phase1_best", "phase2_best"], "phase2_best", ["phase1_best", "lightgbm"]),
        (["krx/phase2_best", "krx/phase3_final"], "krx/phase2_best", ["krx/phase3_final", "lightgbm"]),
        (["a", "b", "c"], "c", ["a", "b", "lightgbm"]),
        (["a"], "a", ["lightgbm"]),
    ],
)
def test_the_default_pairs_follow_from_the_names(models, deployed, expected):
    assert deployed_of(models) == deployed
    assert family_of(models, ["lightgbm", "minus_return_5"], deployed) == [(a, deployed) for a in expected]


def test_a_pairs_row_is_the_difference_of_the_two_forecasts(found, forecasts, baselines):
    for a, b in (("common_change", "phase2_best"), ("lightgbm", "phase2_best"), ("oracle", "common_change")):
        row = found.pairs.filter(split="test", a=a, b=b, metric="log_loss").row(0, named=True)
        d = day_difference((forecasts | baselines)[a], forecasts[b])
        assert (row["difference"], row["low"], row["high"], row["n"]) == (d.difference, d.low, d.high, d.n)
    assert found.pairs.filter(split="val", a="oracle")["role"].unique().to_list() == ["oracle"]


def test_the_cumulated_gain_ends_at_the_difference_to_the_baseline(found, forecasts, baselines):
    base = log_loss(baselines["volatility_bins"].p, baselines["volatility_bins"].labels)
    for name in ("phase1_best", "phase2_best"):
        f, days = forecasts[name], found.days.filter(split="test", model=name)
        assert days["baseline"].unique().to_list() == ["volatility_bins"] and len(days) == 45
        assert days["cumulated_gain"][-1] == pytest.approx(base - log_loss(f.p, f.labels))
        assert days["log_loss"].mean() == pytest.approx(log_loss(f.p, f.labels))
        months = found.months.filter(split="test", model=name)
        assert months["n_days"].to_list() == [30, 15] and months["month"].dt.day().unique().to_list() == [1]
        whole = found.models.filter(split="test", model=name)["rank_ic"][0]
        assert days["rank_ic"].mean() == pytest.approx(whole)
        assert np.average(months["rank_ic"], weights=months["n_days"]) == pytest.approx(whole)


def test_classes_and_confusion_agree_with_the_forecast(found, forecasts):
    f = forecasts["phase2_best"]
    for name, d in class_accuracy(f).items():
        row = found.classes.filter(split="test", model="phase2_best").filter(pl.col("class") == name).row(0, named=True)
        assert (row["n"], row["accuracy"], row["low"], row["high"]) == (
            d.n,
            d.difference,
            d.low,
            d.high,
        )
    cells = found.confusion.filter(split="test", model="phase2_best")
    assert cells["n"].sum() == f.n
    assert cells.group_by("true").agg(pl.col("share").sum())["share"].to_list() == pytest.approx([1, 1, 1])


def test_sectors_carry_names_and_their_own_correction(found):
    rows = found.sectors.filter(split="test", a="common_change", b="phase2_best")
    assert rows["name"].to_list() == ["Food", "Steel", "sector 2"]
    assert rows["adjusted_p"].to_list() == pytest.approx(holm(rows["p_value"].to_list()))
    assert ("lightgbm", "phase2_best") in set(found.sectors.select("a", "b").iter_rows())
    assert found.sectors.filter(split="val")["better"].is_null().all()


def test_the_verdict_is_at_most_four_sentences_about_the_tested_split(found):
    assert found.verdict_split == "test" and found.splits == ("test", "val") and found.deployed == "phase2_best"
    assert len(found.verdict) == 4 and all(" on test" in line for line in found.verdict)
    assert found.verdict[0].startswith("phase2_best is better than phase1_best")
    assert found.first_line == found.verdict[2] and "closes" in found.verdict[3]


def test_other_models_do_not_change_what_the_default_pairs_intervals_say(found, forecasts):
    fewer = compare({n: {"test": [f]} for n, f in forecasts.items() if n != "common_change"}, prior=PRIOR)
    of = [c.main.family.filter(a="phase1_best").row(0, named=True) for c in (found, fewer)]
    assert (of[0]["difference"], of[0]["low"], of[0]["high"]) == (of[1]["difference"], of[1]["low"], of[1]["high"])


def test_one_split_of_a_comparison_is_cut_from_all_frames(found):
    cut = found.on("val")
    assert cut.splits == ("val",) and all(set(getattr(cut, n)["split"]) <= {"val"} for n in SCHEMAS if n != "identical")
    assert len(cut.models) == len(found.models) / 2


def test_without_dates_frames_about_days_are_empty_and_the_rest_stands():
    models = {n: {"test": [without_dates(forecast(skill))]} for n, skill in (("a", 0.2), ("b", 0.8))}
    found = compare(models, prior=PRIOR)
    assert found.days.is_empty() and found.months.is_empty() and found.deciles.is_empty() and found.books.is_empty()
    assert found.models["n_days"].null_count() == 2 and found.pairs["low"].null_count() == len(found.pairs)
    assert found.models["log_loss"].null_count() == 0


def test_a_forecast_that_gave_no_chance_to_what_happened_has_no_gain():
    sure = forecast(0.5)
    sure.p[:] = [0, 1, 0]
    found = compare({"a": {"test": [forecast(0.5)]}}, baselines={"majority": {"test": [sure]}}, prior=PRIOR)
    assert found.days.filter(model="majority")["cumulated_gain"].null_count() > 0
    assert found.months.filter(model="majority")["log_loss_gain"].null_count() == 2
    assert found.pairs.filter(a="majority", metric="log_loss")["difference"].to_list() == [None]
