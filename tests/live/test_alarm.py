"""The alarm: quiet while nothing changes, raised when the edge is gone, and calibrated on its own history."""

from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lasps.live.alarm import IN_DRAWN_YEARS, MIN_DAYS, WINDOW, Alarm, calibrated, onsets, raised, state, statistic


def overlapping(n: int, seed: int, mean: float = -0.03, spread: float = 0.08) -> np.ndarray:
    """Daily differences whose neighbours share four of five days."""
    shocks = np.random.default_rng(seed).normal(size=n + 4)
    return mean + spread * np.convolve(shocks, np.ones(5) / np.sqrt(5), mode="valid")


def dates(n: int) -> list[date]:
    return [date(2024, 1, 1) + timedelta(days=i) for i in range(n)]


@pytest.fixture(scope="module")
def alarm() -> Alarm:
    return calibrated(overlapping(370, 0), "made up")


def test_the_statistic_is_the_mean_of_the_last_sixty_due_days() -> None:
    daily = overlapping(100, 1)
    expected = [daily[i - WINDOW : i].mean() for i in range(WINDOW, 101)]
    np.testing.assert_allclose(statistic(daily), expected)


@settings(max_examples=50, deadline=None)
@given(values=st.lists(st.floats(-1, 1), min_size=1, max_size=60), limit=st.floats(0, 0.5), clear=st.floats(-0.5, 0))
def test_it_is_raised_above_the_limit_until_it_falls_below_the_other(values, limit, clear) -> None:
    expected, now = [], False
    for value in values:
        now = True if value > limit else False if value < clear else now
        expected.append(now)
    found = raised(np.array(values), limit, clear)
    assert found.tolist() == expected
    assert onsets(found) == sum(b and not a for a, b in zip([False, *expected], expected, strict=False))


def test_it_raises_no_more_false_alarms_in_drawn_years_than_was_asked_for(alarm) -> None:
    assert 0.3 < alarm.false_alarms <= IN_DRAWN_YEARS and alarm.mean < alarm.clear < alarm.limit and alarm.days == 370
    assert calibrated(overlapping(370, 0)).limit == alarm.limit


def test_a_market_that_does_not_change_raises_it_once_a_year_at_most() -> None:
    """Limits of 30 histories, each on the 250 evenings that follow: 1 a year expected at most, 2 would be a fault."""
    found = []
    for seed in range(30):
        daily = overlapping(370 + WINDOW + 250, seed)
        own = calibrated(daily[:370], seed=seed)
        found.append(onsets(raised(statistic(daily[370:]), own.limit, own.clear)))
    assert np.mean(found) < 1.5


def test_an_edge_that_turns_round_raises_it_within_a_quarter(alarm) -> None:
    delays = []
    for seed in range(1, 20):
        daily = overlapping(200, seed)
        daily[100:] += 0.08
        raised_after = [n for n in range(101, 201) if state(dates(n), daily[:n], alarm).is_raised]
        delays.append(raised_after[0] - 100)
    assert np.median(delays) <= WINDOW


def test_its_state_tells_since_when(alarm) -> None:
    daily = np.concatenate([np.full(100, -0.03), np.full(60, 0.2)])
    states = [state(dates(n), daily[:n], alarm) for n in range(1, 161)]
    assert all(s.value is None and not s.is_raised for s in states[: WINDOW - 1])
    first = next(i for i, s in enumerate(states) if s.is_raised)
    assert 100 < first < 130 and {s.since for s in states[first:]} == {dates(160)[first]}
    assert states[-1].value == pytest.approx(0.2)


def test_too_short_a_history_or_one_with_holes_is_refused(tmp_path) -> None:
    for daily in (overlapping(MIN_DAYS - 1, 0), np.full(MIN_DAYS, np.nan)):
        with pytest.raises(ValueError, match="at least 120 finite"):
            calibrated(daily)


def test_it_is_read_as_it_was_written(alarm, tmp_path) -> None:
    alarm.write(tmp_path / "alarm.json")
    assert Alarm.read(tmp_path / "alarm.json") == alarm
    (tmp_path / "alarm.json").write_text('{"kind": "else"}')
    with pytest.raises(ValueError, match="expected an alarm"):
        Alarm.read(tmp_path / "alarm.json")
