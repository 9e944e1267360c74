"""The known answers in small: simulated markets, the leak rule, coverage, false claims (make verify runs them all)."""

from dataclasses import replace

import numpy as np
import pytest

from experiments.verification import known_answers
from experiments.verification.simulation import leaked_feature, normal_probabilities, simulate_market
from lasps.evaluation.leaks import FIRST_DAY_SHARE, first_day_excess
from lasps.evaluation.significance import day_difference


@pytest.fixture(scope="module")
def market():
    return simulate_market(np.random.default_rng(0), 120, 60, known_answers.common_effect())


def test_a_simulated_market_looks_like_krx(market):
    sell, hold, buy = np.bincount(market.labels.ravel()) / market.labels.size
    assert 0.18 < sell < 0.32 and 0.45 < hold < 0.6 and 0.18 < buy < 0.32
    closes = np.log1p(market.forward_return[:-1]) - np.log1p(market.forward_return[1:])
    day_1_minus_6 = np.log1p(market.forward_return) - np.log1p(market.forward_return_skip1)
    np.testing.assert_allclose(closes, day_1_minus_6[:-1], atol=1e-12)


def test_knowing_the_signals_is_worth_something(market):
    blind, seeing = (market.forecast(normal_probabilities(k * market.mean, market.volatility)) for k in (0, 1))
    assert day_difference(blind, seeing, "log_loss").difference < -0.002


def test_a_leaked_feature_has_the_stated_strength(market):
    leak = leaked_feature(np.random.default_rng(1), market, 0.3).reshape(market.labels.shape)
    daily = [np.corrcoef(x, r)[0, 1] for x, r in zip(leak, market.next_return, strict=True)]
    assert np.mean(daily) == pytest.approx(0.3, abs=0.02)


def test_a_leak_is_flagged_and_the_bounce_is_not():
    assert known_answers.leak_flags(0.3, runs=3, seed=5)[0] == 3
    flags, excess = known_answers.leak_flags(0.0, runs=3, seed=5)
    assert flags == 0 and min(excess) > 0.02


def test_a_strong_signal_that_fades_over_days_is_no_leak(market):
    strong = simulate_market(np.random.default_rng(2), 120, 60, np.full((5, 3), 0.2))
    check = first_day_excess(strong.forecast(normal_probabilities(strong.mean, strong.volatility)))
    assert check.interval[0] > 0.1 and not check.flagged


def test_the_leak_rule_keeps_quiet_without_both_returns(market):
    f = market.forecast(normal_probabilities(market.mean, market.volatility))
    alone = type(f)(f.p, f.labels, f.sectors, f.day, f.dates, forward_return=f.forward_return)
    check = first_day_excess(alone)
    assert check.excess is None and not check.flagged


def test_intervals_cover_and_equal_models_are_rarely_told_apart():
    found = known_answers.simulated_differences(60, 60, 7, (0.0, 1.0), ("log_loss",))["log_loss"]
    assert known_answers.coverage(found) >= 0.85
    assert np.mean([d.difference for d in found]) < 0
    (claim, family) = known_answers.check_false_claims(n_days=60, runs=40)
    assert float(claim.found.split()[0]) <= 18 and float(family.found.split()[0]) <= 18


def test_intervals_over_seeds_and_days_cover():
    assert all(float(f.found.split()[0]) >= 85 for f in known_answers.check_seed_coverage(n_days=60, runs=30))


def test_permuted_labels_teach_nothing():
    (finding,) = known_answers.check_permuted_labels(runs=8, n_days=60)
    assert finding.passed


def test_a_failed_check_is_printed_as_such():
    text = known_answers.as_markdown([known_answers.Finding("x", "y", "z", False)])
    assert "**NO**" in text


def test_a_score_that_knows_tomorrow_no_better_than_the_limit_is_no_leak():
    """60 days put the excess above its share of the rank IC in every other market, by chance alone."""
    found = []
    for seed in range(12):
        market = simulate_market(np.random.default_rng(seed), 60, 40, np.full((5, 3), 0.2))
        honest = market.forecast(normal_probabilities(market.mean, market.volatility))
        found.append(first_day_excess(replace(honest, own_score=(market.mean + 0.25 * market.next_return).ravel())))
    assert any(c.interval[0] > 0.1 and c.excess > FIRST_DAY_SHARE * c.rank_ic for c in found)
    assert sum(c.flagged for c in found) <= 1
