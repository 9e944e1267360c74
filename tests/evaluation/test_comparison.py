"""The comparison's JSON, its verdict sentences, and what it refuses to say."""

import json

import numpy as np
import polars as pl
import pytest

from lasps.evaluation import verdict
from lasps.evaluation.comparison import compare
from lasps.evaluation.metrics import METRICS, log_loss
from lasps.evaluation.models import Entry
from lasps.evaluation.pairs import pair_rows, with_family
from lasps.evaluation.significance import Difference, day_difference
from tests.evaluation.conftest import altered, make_forecast, without_dates

PRIOR = (0.3, 0.45, 0.25)


def forecast(skill, seed=0, **more):
    return make_forecast(skill=skill, seed=seed, market_seed=11, **({"n_days": 60, "n_stocks": 60} | more))


def compared(models, **how):
    return compare(models, **how).as_json()


@pytest.fixture(scope="module")
def result():
    flat = altered(forecast(0.0), p_sell=pl.lit(PRIOR[0]), p_hold=pl.lit(PRIOR[1]), p_buy=pl.lit(PRIOR[2]))
    models = {name: {s: [forecast(skill)] for s in ("test", "val")} for name, skill in (("weak", 0.2), ("strong", 1.0))}
    baselines = {"lightgbm": {"test": [forecast(0.9)]}, "volatility_bins": {"test": [flat], "val": [flat]}}
    return compared(models, prior=PRIOR, baselines=baselines)


def pair(result, a, b, split, metric):
    return next(p for p in result["pairs"] if (p["a"], p["b"], p["split"], p["metric"]) == (a, b, split, metric))


def test_the_result_is_json_with_every_model_split_and_pair(result):
    assert json.loads(json.dumps(result, allow_nan=False))["models"]["strong"]["test"]["n"] == 3600
    assert set(result["models"]) == {"weak", "strong", "lightgbm", "volatility_bins"}
    assert {p["metric"] for p in result["pairs"]} == set(METRICS)


def test_a_difference_is_b_minus_a(result):
    p, m = pair(result, "weak", "strong", "test", "log_loss"), result["models"]
    assert p["difference"] == pytest.approx(m["strong"]["test"]["log_loss"] - m["weak"]["test"]["log_loss"])
    assert p["difference"] < 0 and p["interval"][1] < 0 and p["better"] == "b"
    assert pair(result, "weak", "strong", "test", "accuracy")["difference"] > 0


def test_nothing_is_better_on_a_selection_split(result):
    on_val = [p for p in result["pairs"] if p["split"] == "val"]
    assert on_val and all(p["better"] is None for p in on_val)
    assert all(s["better"] is None for s in result["sectors"] if s["split"] == "val")
    assert result["selection_splits"] == ["val"]


def test_better_is_never_said_when_the_interval_covers_zero(result):
    for p in result["pairs"]:
        if p["interval"] is None or p["interval"][0] <= 0 <= p["interval"][1]:
            assert p["better"] is None


def test_the_verdict_names_the_better_one_first(result):
    assert result["verdict"].startswith("strong is better than weak on test (log loss -0.")
    assert "of 3 sectors differ after correction" in result["verdict"] and result["verdict"].count("\n") == 1


def test_the_first_line_admits_what_was_not_beaten(result):
    assert "strong does not beat lightgbm (log loss +" in result["first_line"]
    assert "beats volatility_bins" in result["first_line"] and result["first_line"] in result["verdict"]


def test_models_are_compared_on_the_rows_they_share():
    a = forecast(0.5)
    b = altered(forecast(1.0), pl.col("code") != "000003")
    found = compared({"a": {"test": [a]}, "b": {"test": [b]}}, prior=PRIOR)
    p = pair(found, "a", "b", "test", "log_loss")
    alone = day_difference(altered(a, pl.col("code") != "000003"), b)
    assert p["n"] == 59 * 60 and p["difference"] == alone.difference and p["interval"] == alone.interval
    assert [found["models"][name]["test"]["n"] for name in "ab"] == [3600, 3540]
    assert found["rows"]["test"]["a"] == {"own": 3600, "compared": 3540}
    assert any("60 of 3,600 rows of a" in n for n in found["notes"])


def test_rows_that_one_seed_lacks_are_counted_and_that_seed_is_named():
    whole, short = forecast(0.5, seed=1), altered(forecast(0.5, seed=2), pl.col("code") != "000003")
    found = compared({"a": {"test": [whole, short]}, "b": {"test": [whole]}}, prior=PRIOR)
    assert found["rows"]["test"] == {"a": {"own": 3540, "compared": 3540}, "b": {"own": 3600, "compared": 3540}}
    assert [n.split(" are not")[0] for n in found["notes"]] == [
        "test: 60 of 3,600 rows of a (seed 1)",
        "test: 60 of 3,600 rows of b",
    ]


def test_without_training_frequencies_the_prior_is_in_sample_and_says_so():
    found = compared({"a": {"test": [forecast(0.5)]}})
    assert "in-sample" in found["prior"]["test"]["source"] and any("in-sample" in n for n in found["notes"])


def test_seeds_are_averaged_and_their_spread_is_shown():
    a = {"test": [forecast(0.3, seed=s) for s in (1, 2, 3)]}
    b = {"test": [forecast(1.0, seed=s) for s in (3, 1, 2)]}
    found = compared({"a": a, "b": b}, prior=PRIOR)
    m, p = found["models"]["a"]["test"], pair(found, "a", "b", "test", "log_loss")
    losses = [log_loss(t.p, t.labels) for t in a["test"]]
    assert m["log_loss"] == pytest.approx(np.mean(losses)) and m["n"] == 3600
    assert m["seed_spread"]["log_loss"] == pytest.approx(np.std(losses, ddof=1))
    assert [s["seed"] for s in m["seeds"]] == [1, 2, 3]
    assert p["over"] == "seeds and days" and "3 seeds, interval over seeds and days" in found["verdict"]


def test_every_seed_has_its_own_difference_over_days_alone():
    seeds = {k: [forecast(k, seed=s) for s in (1, 2)] for k in (0.3, 1.0)}
    found = compared(
        {"a": {"test": seeds[0.3]}, "b": {"test": seeds[1.0][::-1]}},
        prior=PRIOR,
        baselines={"one": {"test": [forecast(0.1, seed=9)]}},
    )
    by_seed = pair(found, "a", "b", "test", "log_loss")["by_seed"]
    for k, seed in enumerate((1, 2)):
        alone = day_difference(seeds[0.3][k], seeds[1.0][k])
        assert by_seed[k]["seed"] == seed and by_seed[k]["interval"] == pytest.approx(alone.interval)
    assert [s["seed"] for s in pair(found, "one", "b", "test", "log_loss")["by_seed"]] == [2, 1]
    book = [compared({"b": {"test": [t]}}, prior=PRIOR)["models"]["b"]["test"]["portfolio"] for t in seeds[1.0]]
    mean = np.mean([b["top_minus_universe"]["mean"] for b in book])
    assert found["models"]["b"]["test"]["portfolio"]["top_minus_universe"]["mean"] == pytest.approx(mean)


def test_seeds_are_paired_whatever_their_order():
    seeds = [forecast(0.3, seed=s) for s in (1, 2, 3)]
    shuffled = [seeds[2], seeds[0], seeds[1]]
    better = [forecast(0.4, seed=s) for s in (1, 2, 3)]
    found = [
        pair(compared({"a": {"test": of_a}, "b": {"test": better}}, prior=PRIOR), "a", "b", "test", "log_loss")
        for of_a in (seeds, shuffled)
    ]
    assert found[0]["interval"] == pytest.approx(found[1]["interval"])
    same = compare({"a": {"test": seeds}, "b": {"test": shuffled}}, prior=PRIOR)
    assert same.identical.rows() == [("b", "a")] and same.pairs.is_empty()


def test_tables_without_dates_give_metrics_but_no_verdict():
    rows = without_dates(forecast(0.5))
    mirrored = altered(rows, p_sell="p_buy", p_buy="p_sell")
    found = compared({"a": {"test": [rows]}, "b": {"test": [mirrored]}}, prior=PRIOR)
    assert all(p["interval"] is None and p["better"] is None for p in found["pairs"])
    assert "no dates" in found["verdict"] and "neither is called better" in found["verdict"]


def test_sectors_that_differ_are_found_and_the_others_are_not():
    a = forecast(1.0, n_days=150, n_stocks=90)
    spoilt = pl.col("sector") == 1
    b = altered(
        a,
        p_sell=pl.when(spoilt).then(0.3).otherwise("p_sell"),
        p_hold=pl.when(spoilt).then(0.4).otherwise("p_hold"),
        p_buy=pl.when(spoilt).then(0.3).otherwise("p_buy"),
    )
    found = compared({"a": {"test": [a]}, "b": {"test": [b]}}, prior=PRIOR)
    assert [(s["sector"], s["better"]) for s in found["sectors"]] == [(0, None), (1, "a"), (2, None)]
    assert "1 of 3 sectors differ" in found["verdict"]


def test_a_forecast_that_knows_tomorrow_is_noted_first():
    leaky = altered(forecast(0.5), score=pl.col("forward_return") - pl.col("forward_return_skip1"))
    found = compared({"leaky": {"test": [leaky]}, "honest": {"test": [forecast(0.5)]}}, prior=PRIOR)
    assert "leaky may know the future" in found["notes"][0] and len(found["notes"]) == 1
    assert found["models"]["leaky"]["test"]["leak"]["flagged"]


def test_an_empty_comparison_is_refused():
    with pytest.raises(ValueError, match="at least one model"):
        compared({})


def difference(metric, value, low, high):
    return Difference(metric, value, low, high, 0.01 if low * high > 0 else 0.5, 300, 10_000)


def row_of(a, b, d):
    return {"a": a, "b": b, "metric": d.metric, "role": "model", "better": d.better} | d.row()


def pair_of(a, b, *differences):
    return {d.metric: row_of(a, b, d) for d in differences}


def test_the_sentence_is_the_one_of_the_specification():
    sectors = [
        difference("log_loss", -0.01, -0.02, -0.001).row() | {"adjusted_p": 0.01 if i < 3 else 0.9} for i in range(20)
    ]
    said = verdict.sentence(
        pair_of(
            "phase3_final",
            "phase2_best",
            difference("log_loss", -0.0021, -0.0034, -0.0008),
            difference("accuracy", 0.001, -0.002, 0.004),
        ),
        sectors,
        "test",
    )
    assert said == (
        "phase2_best is better than phase3_final on test (log loss -0.0021 [-0.0034, -0.0008]); accuracy +0.1 points "
        "[-0.2, +0.4] is not distinguishable; 3 of 20 sectors differ after correction."
    )


@pytest.mark.parametrize(
    ("value", "low", "high", "split", "said"),
    [
        (0.002, 0.001, 0.003, "test", "a is better than b on test (log loss -0.0020 [-0.0030, -0.0010])."),
        (
            -0.002,
            -0.005,
            0.001,
            "test",
            "b and a are not distinguishable on test (b minus a: log loss -0.0020 [-0.0050, +0.0010]).",
        ),
        (
            -0.002,
            -0.003,
            -0.001,
            "val",
            "val is a selection split, so nothing is tested on it: b minus a is log loss -0.0020 [-0.0030, -0.0010].",
        ),
    ],
)
def test_worse_equal_and_untested_are_said_as_such(value, low, high, split, said):
    assert verdict.sentence(pair_of("a", "b", difference("log_loss", value, low, high)), [], split) == said


def test_a_default_pair_that_holm_does_not_let_through_is_not_called_better():
    clear = row_of("a", "b", difference("log_loss", -0.002, -0.003, -0.001))
    for p, better in ((0.049, "b"), (0.051, None)):
        (row,) = with_family([clear | {"p_value": p}], [("a", "b")])
        assert row["better"] == better and row["adjusted_p"] == p
    assert "not distinguishable on test after Holm's correction" in verdict.sentence({"log_loss": row}, [], "test")
    assert with_family([clear], [])[0]["better"] == "b"


def test_higher_is_better_for_all_but_losses_and_errors():
    assert difference("accuracy", 0.1, 0.05, 0.2).better == "b"
    assert difference("log_loss", 0.1, 0.05, 0.2).better == "a"
    assert difference("rank_ic", -0.1, -0.2, -0.05).better == "a"
    on_val = pair_rows(Entry("a", [forecast(0.1)]), Entry("b", [forecast(1.0)]), selection=True)
    assert {row["better"] for row in (*on_val["pairs"], *on_val["sectors"])} == {None}
