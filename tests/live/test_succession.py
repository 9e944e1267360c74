"""A refit is champion at once, its predecessor forecasts on in its shadow, and what proves worse is rolled back."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from lasps.evaluation.significance import Difference
from lasps.live.day_scores import SCORES
from lasps.live.succession import (
    LEVEL,
    PROBATION,
    PROMOTION,
    REFIT,
    ROLLBACK,
    Succession,
    after_probation,
    refit_is_due,
)
from lasps.live.walk_forward import scheduled, with_succession

FIRST = date(2025, 1, 6)


def days(n: int) -> list[date]:
    return [FIRST + timedelta(days=i) for i in range(n)]


def scores(n_days: int, log_loss: float, seed: int = 0, noise: float = 0.01) -> pl.DataFrame:
    losses = log_loss + noise * np.random.default_rng(seed).normal(size=n_days)
    columns = [days(n_days), ["x"] * n_days, [100] * n_days, losses, *[[0.5] * n_days] * 3]
    return pl.DataFrame(dict(zip(SCORES, columns, strict=True)), schema_overrides=SCORES)


@pytest.fixture
def two() -> Succession:
    return Succession().refitted("a", FIRST - timedelta(days=90)).refitted("b", FIRST)


def test_a_refit_takes_over_and_the_one_before_is_its_shadow(two: Succession) -> None:
    assert (two.champion, two.predecessor, two.since) == ("b", "a", FIRST)
    assert [(d.what, d.champion, d.before) for d in two.decisions] == [(REFIT, "a", None), (REFIT, "b", "a")]


@pytest.mark.parametrize("n_days", [PROBATION[0] - 1, PROBATION[0], 45, PROBATION[1]])
def test_a_champion_that_is_clearly_worse_falls_from_the_twentieth_due_day_on(two: Succession, n_days: int) -> None:
    found = after_probation(two, scores(n_days, 1.05, 1), scores(n_days, 1.0, 2), FIRST + timedelta(days=n_days + 5))
    if n_days < PROBATION[0]:
        assert found == two
        return
    assert (found.champion, found.predecessor) == ("a", None)
    last = found.decisions[-1]
    assert last.what == ROLLBACK and last.before == "b" and last.difference == pytest.approx(0.05, abs=0.01)
    assert 0 < last.low < last.difference < last.high and f"over {n_days} due days" in last.reason


def test_one_that_is_better_or_not_clearly_worse_stays(two: Succession) -> None:
    for own in (scores(40, 0.95, 1), scores(40, 1.0005, 1, noise=0.05)):
        assert after_probation(two, own, scores(40, 1.0, 2), FIRST) == two


def test_after_sixty_due_days_nothing_is_in_the_shadow_any_more(two: Succession) -> None:
    found = after_probation(two, scores(60, 0.95, 1), scores(60, 1.0, 2), FIRST)
    assert (found.champion, found.predecessor) == ("b", None)
    far_too_late = after_probation(two, scores(61, 1.2, 1), scores(61, 1.0, 2), FIRST)
    assert (far_too_late.champion, far_too_late.predecessor) == ("b", None)


def test_days_before_it_was_champion_do_not_count(two: Succession) -> None:
    late = Succession("b", "a", FIRST + timedelta(days=30), two.decisions)
    assert after_probation(late, scores(45, 1.2, 1), scores(45, 1.0, 2), FIRST) == late
    assert after_probation(late, scores(55, 1.2, 1), scores(55, 1.0, 2), FIRST).champion == "a"


def test_without_a_predecessor_there_is_nothing_to_go_back_to() -> None:
    alone = Succession().refitted("a", FIRST)
    assert after_probation(alone, scores(40, 1.2), scores(40, 1.0), FIRST) == alone
    with pytest.raises(ValueError, match="found none to go back to"):
        alone.rolled_back(FIRST, "by hand")


def test_it_is_read_as_it_was_written(two: Succession, tmp_path) -> None:
    difference = Difference("log_loss", 0.05, 0.01, 0.09, 0.001, 40, 4000)
    whole = two.promoted("c", FIRST, "by hand").rolled_back(FIRST, "worse", difference)
    assert [d.what for d in whole.decisions] == [REFIT, REFIT, PROMOTION, ROLLBACK]
    for succession in (Succession(), two, whole):
        succession.write(tmp_path / "s.json")
        assert Succession.read(tmp_path / "s.json") == succession
    assert Succession.read(tmp_path / "none.json") == Succession()
    (tmp_path / "s.json").write_text("{}")
    with pytest.raises(ValueError, match="which model is champion"):
        Succession.read(tmp_path / "s.json")


def test_a_refit_is_due_after_so_many_market_days() -> None:
    calendar = np.array(days(10), dtype="datetime64[D]")
    assert refit_is_due(None, days(10)[0], calendar, 3)
    assert [refit_is_due(days(10)[2], day, calendar, 3) for day in days(10)[2:7]] == [False, False, False, True, True]


def test_equal_models_fall_seldom(two: Succession) -> None:
    """One look at the 1 % level: of 300 pairs of equal models about 3 times 1/2 fall, more than 9 would be a fault."""
    fallen = 0
    for seed in range(300):
        own, before = scores(40, 1.0, 2 * seed, 0.05), scores(40, 1.0, 2 * seed + 1, 0.05)
        fallen += after_probation(two, own, before, FIRST).champion == "a"
    assert fallen <= 9 and LEVEL == 0.01


# ------------------------------------------------------------------------------------------------ in a walk-forward


def walked(losses: dict[int, float], n_days: int = 120) -> dict[date, pl.DataFrame]:
    """Refits on some days, each with the same log loss on every day from its own on."""
    found = {}
    for start, loss in losses.items():
        own = scores(n_days, loss, start)[start:].with_columns(model=pl.lit("champion"))
        found[days(n_days)[start]] = own
    return found


def test_a_walk_forward_goes_back_to_the_refit_before_once_the_rule_says_so() -> None:
    refits, calendar = walked({0: 1.0, 30: 1.2, 90: 0.9}), np.array(days(120), dtype="datetime64[D]")
    lived, succession = with_succession(refits, sorted(refits), calendar)
    first, second, third = sorted(refits)
    (fall,) = [d for d in succession.decisions if d.what == ROLLBACK]
    # the second's 20th day comes due five days later, and the next forecast is the first's again
    assert fall.day == days(120)[30 + 19 + 5] and (fall.champion, fall.before) == (str(first), str(second))
    by_day = dict(lived.select("date", "as_of").iter_rows())
    expected = {d: first if d < second or fall.day < d < third else second if d < third else third for d in days(120)}
    assert by_day == expected


def test_a_walk_forward_without_a_fall_is_the_plain_schedule() -> None:
    refits, calendar = walked({0: 1.0, 30: 0.99, 90: 0.9}), np.array(days(120), dtype="datetime64[D]")
    lived, succession = with_succession(refits, sorted(refits), calendar)
    assert lived.equals(scheduled(refits)) and all(d.what == REFIT for d in succession.decisions)


def test_what_is_not_due_yet_cannot_bring_a_champion_down() -> None:
    refits, calendar = walked({0: 1.0, 30: 1.2}), np.array(days(120), dtype="datetime64[D]")
    early = {as_of: own.filter(pl.col("date") <= days(120)[30 + 19 + 4]) for as_of, own in refits.items()}
    assert all(d.what == REFIT for d in with_succession(early, sorted(early), calendar)[1].decisions)
