"""The flags that say how files are read mean the same in every script that reads them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from experiments import build_dataset, check_data
from tests.factories import market, signed

INDUSTRIES = ("통신 및 방송 장비 제조업", "기초 화학물질 제조업", "기타 금융업")


@pytest.fixture
def kiwoom(tmp_path: Path) -> tuple[Path, Path]:
    """A market as Kiwoom writes it, newest first, and its listing with one stock of KONEX."""
    bars = market(n_stocks=12, n_days=260)
    korean = {
        "code": "종목코드",
        "date": "일자",
        "open": "시가",
        "high": "고가",
        "low": "저가",
        "close": "현재가",
        "volume": "거래량",
    }
    signed(bars).reverse().rename(korean).write_csv(tmp_path / "bars.csv")
    codes = bars["code"].unique(maintain_order=True)
    pl.DataFrame(
        {
            "code": codes,
            "name": [f"stock {code}" for code in codes],
            "market": ["KONEX", *["KOSPI"] * 5, *["KOSDAQ"] * 6],
            "industry": np.resize(INDUSTRIES, 12),
        }
    ).write_csv(tmp_path / "listing.csv")
    return tmp_path / "bars.csv", tmp_path / "listing.csv"


def run(monkeypatch: pytest.MonkeyPatch, script, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", [script.__name__, *(str(word) for word in words)])
    script.main()


def test_check_and_build_read_signed_prices_with_the_flag_only(kiwoom, tmp_path, monkeypatch) -> None:
    bars, listing = kiwoom
    common = ["--source", bars, "--listing", listing, "--waive", "dominant_sector"]
    check = [*common, "--html", tmp_path / "r.html", "--json", tmp_path / "r.json"]
    with pytest.raises(ValueError, match="--signed-prices"):
        run(monkeypatch, check_data, *check)
    run(monkeypatch, check_data, *check, "--signed-prices")
    found = {f["name"]: f["count"] for f in json.loads((tmp_path / "r.json").read_text("utf-8"))["findings"]}
    assert found["non_positive_prices"] == 0 and found["unsorted_keys"] == 0
    data = tmp_path / "data"
    run(monkeypatch, build_dataset, *common, "--data-dir", data, "--signed-prices")
    about = json.loads((data / "dataset.json").read_text("utf-8"))
    assert about["source"]["read"]["signed_rows"] > 1000
    assert [about["universe"][name] for name in ("codes_kept", "other_market", "markets")] == [11, 1, None]


@pytest.mark.parametrize(
    ("words", "markets"),
    [
        (None, None),
        (["all"], ()),
        (["KOSPI,KOSDAQ"], ("KOSPI", "KOSDAQ")),
        (["kospi", "konex"], ("KOSPI", "KONEX")),
    ],
)
def test_markets_are_named_with_spaces_or_commas(words, markets) -> None:
    assert build_dataset.markets_in(words) == markets
