"""The ledger is never rewritten, never filled in afterwards, and notices what was changed."""

import json
from datetime import date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lasps.config.clock import SEOUL
from lasps.live.ledger import HEAD, SIMULATION, Ledger, LedgerError, next_open

DAYS = [date(2025, 6, 16), date(2025, 6, 17), date(2025, 6, 18), date(2025, 6, 19)]
VERSIONS = {"champion": "3", "prior": "1"}


def evening_of(day: date, hour: int = 18) -> datetime:
    return datetime(day.year, day.month, day.day, hour, tzinfo=SEOUL)


def forecasts(seed: int = 0) -> pl.DataFrame:
    p = [0.2 + 0.01 * seed, 0.5 - 0.01 * seed, 0.3]
    rows = [(code, model, 3, 1000.0 + seed, *p) for model in VERSIONS for code in ("000020", "000010")]
    return pl.DataFrame(rows, schema=["code", "model", "sector", "close", "p_sell", "p_hold", "p_buy"], orient="row")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Three evenings."""
    found = Ledger(tmp_path / "ledger")
    for i, day in enumerate(DAYS[:3]):
        found.append(day, forecasts(i), VERSIONS, f"data {i}", evening_of(day))
    return found


def test_what_was_written_is_read_and_each_day_names_the_one_before(ledger: Ledger) -> None:
    evenings = list(ledger.verified())
    assert [e.day for e in evenings] == DAYS[:3] and not any(e.late for e in evenings)
    assert [e.before for e in evenings] == ["", evenings[0].digest, evenings[1].digest]
    assert evenings[1].table["code"].to_list() == ["000010", "000020"] * 2
    assert dict(evenings[1].versions) == VERSIONS and evenings[1].data == "data 1"


def test_the_same_evening_again_changes_no_byte(ledger: Ledger) -> None:
    before = {path: path.read_bytes() for path in ledger.folder.iterdir()}
    again = ledger.append(DAYS[2], forecasts(2).reverse(), VERSIONS, "data 2", evening_of(DAYS[2], 23))
    assert again.written_at == evening_of(DAYS[2])
    assert {path: path.read_bytes() for path in ledger.folder.iterdir()} == before


def test_other_forecasts_of_a_day_that_stands_are_refused(ledger: Ledger) -> None:
    before = {path: path.read_bytes() for path in ledger.folder.iterdir()}
    for day, seed, data in ((DAYS[2], 9, "data 2"), (DAYS[2], 2, "other"), (DAYS[0], 5, "data 0")):
        with pytest.raises(LedgerError, match="never rewritten"):
            ledger.append(day, forecasts(seed), VERSIONS, data, evening_of(DAYS[3]))
    assert {path: path.read_bytes() for path in ledger.folder.iterdir()} == before


def test_a_day_before_the_last_one_is_refused(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append(DAYS[1], forecasts(), VERSIONS, "x", evening_of(DAYS[1]))
    with pytest.raises(LedgerError, match="never filled in afterwards"):
        ledger.append(DAYS[0], forecasts(), VERSIONS, "x", evening_of(DAYS[1]))


def test_a_day_that_is_not_over_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="over in Seoul"):
        Ledger(tmp_path).append(DAYS[0], forecasts(), VERSIONS, "x", evening_of(DAYS[0], 15))


@pytest.mark.parametrize(
    ("day", "opens"),
    [
        (date(2025, 6, 17), datetime(2025, 6, 18, 9, tzinfo=SEOUL)),
        (date(2025, 6, 13), datetime(2025, 6, 16, 9, tzinfo=SEOUL)),  # a weekend
        (date(2025, 10, 2), datetime(2025, 10, 10, 9, tzinfo=SEOUL)),  # Chuseok
    ],
)
def test_late_is_what_is_written_after_the_next_session_has_opened(tmp_path: Path, day: date, opens: datetime) -> None:
    assert next_open(day) == opens
    for name, moment, late in (("a", opens - timedelta(minutes=1), False), ("b", opens, True)):
        assert Ledger(tmp_path / name).append(day, forecasts(), VERSIONS, "x", moment).late is late


def test_a_simulation_is_never_late_and_is_never_read_as_a_ledger(tmp_path: Path) -> None:
    simulated = Ledger(tmp_path, SIMULATION)
    assert not simulated.append(DAYS[0], forecasts(), VERSIONS, "x", evening_of(date(2026, 1, 5))).late
    with pytest.raises(LedgerError, match="never mixed"):
        list(Ledger(tmp_path).verified())


@settings(max_examples=30, deadline=None)
@given(place=st.floats(0, 1), bit=st.integers(0, 7), which=st.integers(0, 2))
def test_a_changed_bit_is_noticed_or_changes_nothing_that_is_read(tmp_path_factory, place, bit, which) -> None:
    ledger = Ledger(tmp_path_factory.mktemp("ledger"))
    for i, day in enumerate(DAYS[:3]):
        ledger.append(day, forecasts(i), VERSIONS, "x", evening_of(day))
    expected = list(ledger.verified())
    path = ledger.path(DAYS[which])
    content = bytearray(path.read_bytes())
    content[min(int(place * len(content)), len(content) - 1)] ^= 1 << bit
    path.write_bytes(content)
    try:
        found = list(ledger.verified())
    except LedgerError:
        return
    assert [(e.digest, e.table.equals(x.table)) for e, x in zip(found, expected, strict=True)] == [
        (x.digest, True) for x in expected
    ]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_day_that_was_removed_is_missed(ledger: Ledger, which: int) -> None:
    ledger.path(DAYS[which]).unlink()
    with pytest.raises(LedgerError, match="removed"):
        list(ledger.verified())


def test_a_day_that_was_exchanged_for_one_of_another_ledger_is_noticed(ledger: Ledger, tmp_path: Path) -> None:
    other = Ledger(tmp_path / "other")
    for i, day in enumerate(DAYS[:3]):
        other.append(day, forecasts(7 + i), VERSIONS, "y", evening_of(day))
    ledger.path(DAYS[1]).write_bytes(other.path(DAYS[1]).read_bytes())
    with pytest.raises(LedgerError, match="removed, added or exchanged"):
        list(ledger.verified())


def test_a_kill_between_the_file_and_head_is_mended_and_nothing_else(ledger: Ledger) -> None:
    head = (ledger.folder / HEAD).read_text()
    ledger.append(DAYS[3], forecasts(3), VERSIONS, "x", evening_of(DAYS[3]))
    newest = (ledger.folder / HEAD).read_text()
    (ledger.folder / HEAD).write_text(head)
    assert len(list(ledger.verified())) == 4 and (ledger.folder / HEAD).read_text() == newest
    (ledger.folder / HEAD).write_text(json.dumps({"kind": "x", "day": "2020-01-01", "digest": "0"}))
    with pytest.raises(LedgerError, match="removed or added"):
        list(ledger.verified())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop("close"), "columns"),
        (lambda t: t.clear(), "0 rows"),
        (lambda t: t.with_columns(p_buy=pl.lit(None, dtype=pl.Float64)), "missing"),
        (lambda t: t.with_columns(close=pl.lit(float("nan"))), "missing"),
        (lambda t: t.with_columns(p_buy=pl.lit(0.9)), "sum to 1"),
        (lambda t: pl.concat([t, t.head(1)]), "twice"),
        (lambda t: t.with_columns(model=pl.lit("stranger")), "stranger"),
        (lambda t: t.filter(model="champion"), "prior"),
    ],
)
def test_forecasts_that_are_not_whole_are_refused(tmp_path: Path, change, message: str) -> None:
    with pytest.raises(LedgerError, match=message):
        Ledger(tmp_path).append(DAYS[0], change(forecasts()), VERSIONS, "x", evening_of(DAYS[0]))
    assert not list(tmp_path.iterdir())
