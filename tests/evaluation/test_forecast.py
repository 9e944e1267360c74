"""Forecasts and their one schema: what is refused, what is aligned, what survives a file."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lasps.evaluation.forecast import Forecast, align
from lasps.evaluation.prediction_schema import SCHEMA, checked_table
from tests.evaluation.conftest import altered, make_forecast


def test_a_forecast_survives_the_file(tmp_path, forecast):
    path = forecast.write(tmp_path / "deep" / "a.parquet")
    again = Forecast.read(path)
    assert again.table.equals(forecast.table) and again.same_as(forecast)
    assert (again.model, again.split, again.seed) == ("m", "test", 0)
    assert list(path.parent.iterdir()) == [path]


def test_a_refused_forecast_leaves_the_old_file(tmp_path, forecast):
    path = forecast.write(tmp_path / "a.parquet")
    before = path.read_bytes()
    spoilt = forecast.where(np.ones(forecast.n, dtype=bool))
    spoilt.p[0, 2] += 0.1
    with pytest.raises(ValueError, match="sum"):
        spoilt.write(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"p_buy": pl.lit(np.nan)}, "p_buy.*NaN"),
        ({"p_sell": pl.lit(None, pl.Float64)}, "p_sell.*null"),
        ({"p_sell": pl.col("p_sell") - 1, "p_buy": pl.col("p_buy") + 1}, "in 0..1, but 2,400 of 2,400 values are not"),
        ({"p_buy": pl.lit("high")}, "p_buy: expected probabilities.*String"),
        ({"raw_p_buy": pl.lit(np.inf)}, "raw_p_buy.*infinite"),
        ({"label": pl.lit(3)}, "label: expected labels 0, 1 or 2.*e.g. 3"),
        ({"label": pl.lit(None, pl.Int8)}, "without outcomes cannot be evaluated"),
        ({"label": pl.col("forward_return")}, "no whole numbers.*Is this the return"),
        ({"label": pl.lit(True)}, "label.*type Boolean"),
        ({"sector": pl.lit(-1)}, "sector numbers from 0"),
        ({"sector": pl.lit(2.5)}, "sector.*no whole numbers"),
        ({"sector": pl.lit(70_000)}, "sector.*are not"),
        ({"forward_return": 100 * pl.col("forward_return")}, "divide"),
        ({"forward_return": pl.col("forward_return").abs() * 100}, "HOLD and a forward_return of 0.5 or more"),
        ({"forward_return_skip1": pl.lit(-1.5)}, "below -1"),
        ({"volatility_20": pl.lit(np.inf)}, "infinite"),
        ({"code": pl.lit("000001")}, "share their key"),
        ({"code": pl.col("code").cast(pl.Int64)}, "leading zeros"),
        ({"date": pl.lit("someday")}, "days such as 2025-01-02"),
        ({"date": pl.lit("2025-02-30")}, "no days of the calendar"),
        ({"date": pl.lit("2025-01-02T00:00:00+09:00")}, "without a time or a time zone"),
        ({"date": pl.col("date").cast(pl.Datetime).dt.replace_time_zone("Asia/Seoul")}, "in the zone Asia/Seoul"),
        ({"date": pl.col("date").cast(pl.Datetime) + pl.duration(hours=15)}, "time of day"),
        ({"date": pl.col("date").dt.strftime("%Y%m%d").cast(pl.Int64)}, "days such as 2025-01-02, got the type Int64"),
        ({"date": pl.col("date").dt.strftime("%Y%m%d")}, "write days as YYYY-MM-DD"),
        ({"model": pl.col("code")}, "one model on one split"),
        ({"seed": pl.lit(1.5)}, "seed.*no whole numbers"),
    ],
)
def test_bad_tables_are_refused_by_name_before_anything_is_cast(forecast, change, words):
    with pytest.raises(ValueError, match=words):
        Forecast.from_table(forecast.table.with_columns(**change))


@pytest.mark.parametrize(
    "change",
    [
        {"date": pl.col("date").cast(pl.Datetime("ns"))},
        {"date": pl.col("date").cast(pl.String)},
        {"date": pl.col("date").cast(pl.String) + " 00:00:00"},
        {"label": pl.col("label").cast(pl.Float64), "sector": pl.col("sector").cast(pl.Float32)},
        {"code": pl.col("code").cast(pl.Categorical)},
        {"seed": pl.lit(None), "model": pl.lit(None), "volatility_20": pl.lit(None)},
        {"forward_return": pl.lit(float("nan"))},
        {"p_sell": pl.lit(0), "p_hold": pl.lit(1), "p_buy": pl.lit(0)},
    ],
)
def test_what_pandas_and_csv_make_of_a_good_table_is_taken(forecast, change):
    found = Forecast.from_table(forecast.table.with_columns(**change))
    assert found.keys.equals(forecast.keys) and np.array_equal(found.labels, forecast.labels)


@settings(max_examples=60, deadline=None)
@given(
    column=st.sampled_from(sorted(SCHEMA)),
    value=st.one_of(
        st.floats(allow_nan=True),
        st.integers(-(2**40), 2**40),
        st.text(max_size=12),
        st.booleans(),
        st.none(),
        st.datetimes(),
        st.dates(),
    ),
    row=st.integers(0, 59),
)
def test_no_table_changes_its_meaning_on_the_way_in(column, value, row):
    """Whatever stands in one cell: refused, or what comes out is that very value."""
    table = make_forecast(n_days=1).table.with_columns(score=pl.lit(0.5), volatility_20=pl.lit(0.1))
    if column == "row":
        table = table.drop("code", "date").with_row_index("row")
    values = table[column].to_list()
    values[row] = value
    try:
        changed = pl.Series(column, values, strict=True)
    except (TypeError, OverflowError, pl.exceptions.PolarsError):
        return
    try:
        found = checked_table(table.with_columns(changed))
    except ValueError as error:
        assert column in str(error) or "HOLD" in str(error) or "sum" in str(error) or "share" in str(error)
        return
    got = set(found[column].to_list())
    nothing = value is None or value != value
    assert None in got if nothing else any(bool(value == g) for g in got) or str(value) in {str(g) for g in got}


def test_missing_columns_and_files_are_named(tmp_path, forecast):
    with pytest.raises(ValueError, match="p_hold"):
        Forecast.from_table(forecast.table.drop("p_hold"))
    with pytest.raises(FileNotFoundError, match="gone"):
        Forecast.read(tmp_path / "gone.parquet")
    (tmp_path / "junk.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(ValueError, match="no prediction table"):
        Forecast.read(tmp_path / "junk.parquet")


def test_a_csv_of_pandas_with_codes_as_text_is_the_same_forecast(tmp_path, forecast):
    pd.DataFrame(forecast.table.to_dict(as_series=False)).to_csv(tmp_path / "a.csv", index=False)
    again = Forecast.read(tmp_path / "a.csv")
    assert again.keys.equals(forecast.keys) and np.array_equal(again.labels, forecast.labels)
    np.testing.assert_allclose(again.p, forecast.p, atol=1e-15)


def test_a_csv_with_korean_midnights_is_refused_not_moved_to_the_day_before(tmp_path, forecast):
    forecast.table.with_columns(date=pl.col("date").cast(pl.String) + "T00:00:00+09:00").write_csv(tmp_path / "a.csv")
    with pytest.raises(ValueError, match="time zone"):
        Forecast.read(tmp_path / "a.csv")


def test_no_flipped_bit_of_a_prediction_file_changes_a_forecast(tmp_path):
    path = make_forecast(n_days=2).write(tmp_path / "a.parquet")
    good, written = Forecast.read(path).table, path.read_bytes()
    rng, refused = np.random.default_rng(0), 0
    for place, bit in zip(rng.integers(0, len(written), 60), rng.integers(0, 8, 60), strict=True):
        spoilt = bytearray(written)
        spoilt[place] ^= 1 << bit
        path.write_bytes(bytes(spoilt))
        try:
            assert Forecast.read(path).table.equals(good), (place, bit)
        except ValueError:
            refused += 1
    assert refused > 30


def test_rows_of_one_side_are_counted_and_named():
    a = make_forecast(n_days=5)
    b = altered(a, pl.col("code") != "000007")
    left, right, found = align(a, b)
    assert left.keys.equals(right.keys) and right.same_as(b)
    assert (found.n, found.only_a, found.only_b) == (295, 5, 0)
    assert "000007" in found.examples[0]


def test_forecasts_of_the_same_rows_are_left_as_they_are():
    a, b = make_forecast(n_days=5), make_forecast(n_days=5, skill=0.1)
    left, right, _ = align(a, b)
    assert left is a and right is b


def test_the_rows_of_a_cut_are_numbered_by_its_own_days(forecast):
    cut = forecast.only(forecast.day > 9)
    assert cut.dates == forecast.dates[10:] and cut.day.min() == 0 and cut.n_days == 30
    assert cut.table.equals(forecast.table.filter(pl.col("date") > forecast.dates[9]))


def test_forecasts_of_different_outcomes_or_days_do_not_align():
    a = make_forecast(n_days=5)
    with pytest.raises(ValueError, match="disagree about"):
        align(a, make_forecast(n_days=5, seed=9))
    with pytest.raises(ValueError, match="no row in common"):
        align(a, make_forecast(n_days=5, start="2020-01-01"))


def test_arrays_without_dates_get_row_numbers():
    forecast = Forecast.from_logits(np.zeros((2, 3)), [0, 1], [0, 1], gamma=2.0)
    assert forecast.keys["row"].to_list() == [0, 1] and "code" not in forecast.table.columns
    with pytest.raises(ValueError, match="keys"):
        align(forecast, make_forecast(n_days=2))


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="as many"):
        Forecast.from_logits(np.zeros((3, 3)), [0, 1, 2], [0, 1])
