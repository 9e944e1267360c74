"""Prediction tables: what is refused, what is aligned, what survives a round trip."""

import numpy as np
import polars as pl
import pytest

from lasps.evaluation.predictions import align, check_predictions, prediction_table, read_predictions, write_predictions
from tests.evaluation.conftest import make_forecast


def test_a_table_survives_the_file(tmp_path, forecast_table):
    path = write_predictions(forecast_table, tmp_path / "deep" / "a.parquet")
    assert read_predictions(path).equals(forecast_table)
    assert list(path.parent.iterdir()) == [path]


def test_a_refused_table_leaves_the_old_file(tmp_path, forecast_table):
    path = write_predictions(forecast_table, tmp_path / "a.parquet")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="sum"):
        write_predictions(forecast_table.with_columns(p_buy=pl.col("p_buy") + 0.1), path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"p_buy": pl.lit(np.nan)}, "NaN"),
        ({"p_sell": pl.lit(None, pl.Float64)}, "null"),
        ({"p_sell": pl.col("p_sell") - 1, "p_buy": pl.col("p_buy") + 1}, "outside 0..1"),
        ({"label": pl.lit(3)}, "labels"),
        ({"code": pl.lit("000001")}, "share their key"),
        ({"sector": pl.lit(-1)}, "sectors"),
        ({"date": pl.lit("someday")}, "type"),
        ({"code": pl.col("code").cast(pl.Int64)}, "leading zeros"),
    ],
)
def test_bad_tables_are_refused_by_name(forecast_table, change, words):
    with pytest.raises(ValueError, match=words):
        check_predictions(forecast_table.with_columns(**change))


def test_missing_columns_and_files_are_named(tmp_path, forecast_table):
    with pytest.raises(ValueError, match="p_hold"):
        check_predictions(forecast_table.drop("p_hold"))
    with pytest.raises(FileNotFoundError, match="gone"):
        read_predictions(tmp_path / "gone.parquet")
    (tmp_path / "junk.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(ValueError, match="no prediction table"):
        read_predictions(tmp_path / "junk.parquet")


def test_rows_of_one_side_are_counted_and_named():
    a = make_forecast(n_days=5)
    b = a.filter(pl.col("code") != "000007").reverse()
    left, right, alignment = align(a, check_predictions(b))
    assert left.select("code", "date").equals(right.select("code", "date"))
    assert (alignment.n, alignment.only_a, alignment.only_b) == (295, 5, 0)
    assert "000007" in alignment.sentence("a", "b")


def test_tables_of_different_outcomes_or_days_do_not_align():
    a = make_forecast(n_days=5)
    with pytest.raises(ValueError, match="disagree about"):
        align(a, make_forecast(n_days=5, seed=9))
    with pytest.raises(ValueError, match="no row in common"):
        align(a, make_forecast(n_days=5, start="2020-01-01"))


def test_arrays_without_dates_get_row_numbers():
    table = prediction_table(labels=[0, 1], sector_ids=[0, 1], logits=np.zeros((2, 3)), gamma=2.0)
    assert table["row"].to_list() == [0, 1] and "code" not in table.columns
    with pytest.raises(ValueError, match="keys"):
        align(table, make_forecast(n_days=2))


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="as many"):
        prediction_table(labels=[0, 1, 2], sector_ids=[0, 1], logits=np.zeros((3, 3)))
    with pytest.raises(ValueError, match="exactly one"):
        prediction_table(labels=[0], sector_ids=[0])
