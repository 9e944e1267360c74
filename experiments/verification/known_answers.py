"""Known answers: what the comparison says about simulated forecasts whose truth is known.

Each check simulates markets, evaluates them with the code of `compare`, and returns what was expected and found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from experiments.verification.simulation import (
    DAILY_VOLATILITY,
    SimulatedMarket,
    leaked_feature,
    normal_probabilities,
    persistent_noise,
    simulate_market,
)
from lasps.evaluation import verdict
from lasps.evaluation.forecast import Forecast
from lasps.evaluation.leaks import FIRST_DAY_LIMIT, first_day_excess
from lasps.evaluation.metrics import METRICS, log_loss
from lasps.evaluation.significance import Difference, day_difference, holm, method_difference

Array = NDArray[np.float64]
COVERAGE_METRICS = ("log_loss", "accuracy", "macro_f1", "rank_ic", "expected_calibration_error")
CAREFUL_METRICS = frozenset({"expected_calibration_error"})
"""A sum of absolute values is not smooth: leaving days out overstates how it moves. Its intervals are too wide."""
N_STOCKS, N_SECTORS, N_SIGNALS = 40, 5, 3
MAX_T = 2.5
SEED_SPREAD = 0.5
EDGE = 0.03  # of a volatility per signal and day; three of them give a rank IC near 0.1


@dataclass(frozen=True)
class Finding:
    """One line of the table: what was expected (`promised`) and found. passed None: for information."""

    what: str
    promised: str
    found: str
    passed: bool | None


def common_effect(n_sectors: int = N_SECTORS) -> Array:
    """(S, K) coefficients that are the same in every sector."""
    return np.full((n_sectors, N_SIGNALS), EDGE)


def _generators(runs: int, seed: int, what: str) -> Iterator[np.random.Generator]:
    for child in tqdm(np.random.SeedSequence(seed).spawn(runs), desc=what, disable=None, leave=False):
        yield np.random.default_rng(child)


def _guess(rng: np.random.Generator, market: SimulatedMarket, knowledge: float, noise: float) -> Forecast:
    """A forecaster who knows `knowledge` of the expected return, and errs for days, about stocks and the market."""
    error = noise * market.volatility * persistent_noise(rng, market.labels.shape)
    return market.forecast(normal_probabilities(knowledge * market.mean + error, market.volatility))


def simulated_differences(
    n_days: int, runs: int, seed: int, knowledge: tuple[float, float], metrics: Sequence[str]
) -> dict[str, list[Difference]]:
    """`runs` comparisons of two forecasters on markets of n_days days."""
    out: dict[str, list[Difference]] = {m: [] for m in metrics}
    for rng in _generators(runs, seed, f"{n_days} days"):
        market = simulate_market(rng, n_days, N_STOCKS, common_effect())
        a, b = (_guess(rng, market, k, noise=0.2) for k in knowledge)
        for metric in metrics:
            out[metric].append(day_difference(a, b, metric))
    return out


def coverage(found: Sequence[Difference]) -> float:
    """Share of intervals that hold the true difference, which is the mean over all runs (its own error, 1 / sqrt(runs)
    of an interval's, is left out).
    """
    truth = np.mean([d.difference for d in found])
    return float(np.mean([d.low is not None and d.high is not None and d.low <= truth <= d.high for d in found]))


def check_coverage(days: Sequence[int] = (60, 150, 360), runs: int = 1000, seed: int = 1) -> list[Finding]:
    """Intervals of 95 % hold the true difference in 92-97 % of the runs, for every metric."""
    findings = []
    for n_days in days:
        by_metric = simulated_differences(n_days, runs, seed + n_days, (0.0, 1.0), COVERAGE_METRICS)
        for metric, found in by_metric.items():
            share = coverage(found)
            what = f"interval of the difference in {metric.replace('_', ' ')}, {n_days} days, {runs} runs"
            highest, promise = (1.0, "at least 92 %") if metric in CAREFUL_METRICS else (0.97, "92-97 %")
            findings.append(
                Finding(what, f"covers the truth in {promise}", f"{100 * share:.1f} %", 0.92 <= share <= highest)
            )
    return findings


def check_regime_coverage(days: Sequence[int] = (60, 150, 360), runs: int = 1000, seed: int = 6) -> list[Finding]:
    """For information: a forecaster who knows today's volatility against one who knows only its mean over days.

    Such a difference rises and falls with the market's volatility, for months: that is longer than these intervals see.
    """
    findings = []
    for n_days in days:
        found = []
        for rng in _generators(runs, seed + n_days, f"regimes, {n_days} days"):
            market = simulate_market(rng, n_days, N_STOCKS, common_effect())
            average = np.full_like(market.volatility, DAILY_VOLATILITY)
            blind = market.forecast(normal_probabilities(0 * market.mean, average))
            found.append(day_difference(blind, _guess(rng, market, 1.0, noise=0.2), verdict.PRIMARY))
        what = f"interval of log loss against a forecaster blind to volatility, {n_days} days, {runs} runs"
        findings.append(Finding(what, "for information", f"{100 * coverage(found):.1f} %", None))
    return findings


def check_seed_coverage(n_days: int = 150, runs: int = 1000, seed: int = 5, n_seeds: int = 3) -> list[Finding]:
    """Intervals over seeds and days hold the expected difference of two methods, whatever seeds and days were drawn.

    A seed of a method knows more or less than its mean: SEED_SPREAD is the standard deviation over seeds.
    """
    found: dict[str, list[Difference]] = {"log_loss": [], "rank_ic": []}
    for rng in _generators(runs, seed, f"{n_seeds} seeds"):
        market = simulate_market(rng, n_days, N_STOCKS, common_effect())
        a, b = (
            [_guess(rng, market, k, noise=0.1) for k in mean + SEED_SPREAD * rng.standard_normal(n_seeds)]
            for mean in (0.0, 1.0)
        )
        for metric, differences in found.items():
            of_a, of_b = ([METRICS[metric](f) for f in side] for side in (a, b))
            differences.append(method_difference(metric, of_a, of_b))
    findings = []
    for metric, differences in found.items():
        share = coverage(differences)
        what = f"{metric.replace('_', ' ')} of two methods, {n_seeds} seeds each, {n_days} days, {runs} runs"
        findings.append(Finding(what, "covers the truth in at least 92 %", f"{100 * share:.1f} %", share >= 0.92))
    return findings


def check_false_claims(n_days: int = 150, runs: int = 1000, seed: int = 2) -> list[Finding]:
    """Two forecasters of equal skill and independent errors: one is called better in 3-7 % of the comparisons."""
    claims, in_sectors = [], []
    for rng in _generators(runs, seed, "equal models"):
        market = simulate_market(rng, n_days, N_STOCKS, common_effect())
        a, b = (_guess(rng, market, 1.0, noise=0.2) for _ in range(2))
        claims.append(day_difference(a, b, verdict.PRIMARY).better is not None)
        masks = [a.sectors == s for s in range(N_SECTORS)]
        p = [day_difference(a.where(m), b.where(m), verdict.PRIMARY).p_value for m in masks]
        in_sectors.append(any(x is not None and x < 0.05 for x in holm(p)))
    share, family = float(np.mean(claims)), float(np.mean(in_sectors))
    return [
        Finding(
            f'"better" between equal models, {n_days} days, {runs} comparisons',
            "claimed in 3-7 %",
            f"{100 * share:.1f} %",
            0.03 <= share <= 0.07,
        ),
        Finding(
            f"any of {N_SECTORS} sectors reported as different after Holm, equal models",
            "in at most 7 %",
            f"{100 * family:.1f} %",
            family <= 0.07,
        ),
    ]


Fit = Callable[[Array, NDArray[np.int64]], Callable[[Array], Array]]


def fit_logistic(x: Array, y: NDArray[np.int64]) -> Callable[[Array], Array]:
    """A multinomial logistic head on standardised features."""
    from sklearn.linear_model import LogisticRegression

    mean, spread = x.mean(axis=0), x.std(axis=0)
    model = LogisticRegression(max_iter=500, tol=1e-3).fit((x - mean) / spread, y)
    return lambda z: np.asarray(model.predict_proba((z - mean) / spread), dtype=np.float64)


def leak_flags(strength: float, runs: int, seed: int, n_days: int = 60, n_stocks: int = 100) -> tuple[int, list[float]]:
    """(times the rule flags a head that was given the next day's return at this strength, the first-day excesses)."""
    flags, excesses = 0, []
    for rng in _generators(runs, seed, f"leak {strength:.0%}"):
        train, test = (simulate_market(rng, n, n_stocks, common_effect()) for n in (150, n_days))
        x, z = (np.c_[m.features(), leaked_feature(rng, m, strength)] for m in (train, test))
        check = first_day_excess(test.forecast(fit_logistic(x, train.labels.ravel())(z)))
        flags += check.flagged
        excesses.append(check.excess or 0.0)
    return flags, excesses


def check_leaks(runs: int = 20, seed: int = 3) -> list[Finding]:
    """A leaked next-day return is reported at 100 % and 30 % strength in every run, and never without a leak."""
    promised = {
        0.0: (f"reported in 0 of {runs}", 0),
        0.1: ("for information", None),
        0.3: (f"reported in {runs} of {runs}", runs),
        1.0: (f"reported in {runs} of {runs}", runs),
    }
    findings = []
    for strength, (text, expected) in promised.items():
        flags, excess = leak_flags(strength, runs, seed)
        what = f"next-day return at {strength:.0%} strength" if strength else "no leak, bounce and honest signals"
        found = f"{flags} of {runs} (first-day excess {np.mean(excess):.3f}, limit {FIRST_DAY_LIMIT})"
        findings.append(Finding(what, text, found, None if expected is None else flags == expected))
    return findings


def check_permuted_labels(
    fit: Mapping[str, Fit] | None = None, runs: int = 20, seed: int = 4, n_days: int = 150
) -> list[Finding]:
    """Heads trained on labels permuted over all rows of each split gain nothing over the prior.

    A single run may gain or lose: a head of pure noise shifts its class shares with the features' means, and those of
    the test may lie on that side. Over the runs the mean must not be above zero (t below MAX_T).
    """
    findings = []
    for name, fitter in (fit or {"logistic head": fit_logistic}).items():
        gains = np.array([_permuted_gain(rng, fitter, n_days) for rng in _generators(runs, seed, f"permuted, {name}")])
        t = gains.mean() / max(gains.std(ddof=1) / np.sqrt(runs), 1e-12)
        found = f"mean gain {gains.mean():+.5f} nats (t = {t:+.1f})"
        findings.append(
            Finding(
                f"{name} on permuted labels, {runs} runs",
                f"no gain over the prior (t below {MAX_T})",
                found,
                bool(t < MAX_T and gains.mean() < 0.001),
            )
        )
    return findings


def _permuted_gain(rng: np.random.Generator, fitter: Fit, n_days: int) -> float:
    """Prior's log loss minus the head's, on test; labels permuted over all rows of each split."""
    train, test = (simulate_market(rng, n, N_STOCKS, common_effect()) for n in (300, n_days))
    y, z = (rng.permutation(m.labels.ravel()) for m in (train, test))
    prior = np.bincount(y, minlength=3) / len(y)
    return log_loss(np.tile(prior, (len(z), 1)), z) - log_loss(fitter(train.features(), y)(test.features()), z)


def as_markdown(findings: Sequence[Finding]) -> str:
    """The findings as a table."""
    verdicts = {True: "yes", False: "**NO**", None: "-"}
    rows = [f"| {f.what} | {f.promised} | {f.found} | {verdicts[f.passed]} |" for f in findings]
    return "\n".join(["| check | expected | found | passed |", "|---|---|---|---|", *rows])
