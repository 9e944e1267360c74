"""The forecast's file: what a spreadsheet opens, and never half of it."""

import datetime as dt
from pathlib import Path

import polars as pl
import pytest

from lasps.pipeline.forecast import write_forecast

TABLE = pl.DataFrame({"code": ["005930"], "name": ["삼성전자"], "date": [dt.date(2025, 6, 17)], "p_buy": [0.25]})


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_write_that_fails_half_way_leaves_the_old_forecast(tmp_path, monkeypatch, suffix) -> None:
    path = tmp_path / "deep" / f"today{suffix}"
    write_forecast(TABLE, path)
    before = path.read_bytes()

    def fails(self, file, **_):
        Path(file).write_bytes(b"half") if isinstance(file, Path) else file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(pl.DataFrame, f"write_{suffix[1:]}", fails)
    with pytest.raises(OSError, match="no space"):
        write_forecast(TABLE, path)
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == [path.name]


def test_korean_names_survive_the_way_through_a_spreadsheet(tmp_path) -> None:
    write_forecast(TABLE, tmp_path / "today.csv")
    assert (tmp_path / "today.csv").read_text("utf-8-sig").splitlines()[1] == "005930,삼성전자,2025-06-17,0.25"
    assert (tmp_path / "today.csv").read_bytes().startswith(b"\xef\xbb\xbf")


def test_names_that_a_spreadsheet_takes_for_formulas_are_texts_in_the_csv(tmp_path) -> None:
    names = ["=HYPERLINK(1)", "@SUM(1+1)", "+1", "-1", "\t=1", "삼성전자", None]
    table = pl.DataFrame({"code": [f"00000{i}" for i in range(7)], "name": names, "p_buy": [-0.5] * 7})
    write_forecast(table, tmp_path / "f.csv")
    found = pl.read_csv(tmp_path / "f.csv", schema_overrides={"code": pl.String})
    assert found["name"].to_list() == [f"'{name}" for name in names[:5]] + ["삼성전자", None]
    assert found["p_buy"].to_list() == [-0.5] * 7
    write_forecast(table, tmp_path / "f.parquet")
    assert pl.read_parquet(tmp_path / "f.parquet").equals(table)
