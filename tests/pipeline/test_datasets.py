"""From files to a dataset: the gate stops a build before anything is put in place, and says why on every way."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from experiments import build_dataset as command
from lasps.data.dataset_files import write_description
from lasps.data.datasets.description import SCHEMA_VERSION
from lasps.data.integrity import IntegrityError
from lasps.data.spec import DatasetSpec
from lasps.data.splits import Borders
from lasps.pipeline.datasets import (
    BuildOptions,
    Fold,
    borders_from,
    build_from_bars,
    build_synthetic,
    holds_dataset,
    synthetic_source,
)
from tests.factories import market, put, scaled

INDUSTRIES = ("의약품 제조업", "보험", "종합 소매업", "도로 화물 운송업", "기타 금융업", "알코올음료 제조업")
SMALL = {"features": ("return_1", "return_5"), "chart_size": (20, 180)}


@pytest.fixture(scope="module")
def bars() -> pl.DataFrame:
    return market(n_stocks=12, n_days=160)


@pytest.fixture(scope="module")
def listing(bars) -> pl.DataFrame:
    codes = bars["code"].unique().sort()
    return pl.DataFrame({"code": codes, "name": "회사", "market": "KOSPI", "industry": INDUSTRIES * 2})


def build(bars, listing, out: Path, borders=None, **options):
    of_spec = {name: options.pop(name) for name in list(options) if name in DatasetSpec.__dataclass_fields__}
    spec = DatasetSpec(**SMALL | of_spec)
    return build_from_bars(bars, listing, borders, {"name": "made up"}, BuildOptions(out, spec, **options))


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_fatal_finding_in_the_bars_stops_the_build_with_its_report_and_a_waiver_lets_it_through(
    bars, listing, tmp_path, capsys
) -> None:
    broken = scaled(bars, "000040", 70, 0.3)
    with pytest.raises(IntegrityError, match="scale_breaks"):
        build(broken, listing, tmp_path / "d")
    assert files(tmp_path) == ["d.integrity.html"] and "FATAL  scale_breaks" in capsys.readouterr().out
    assert "scale_breaks" in (tmp_path / "d.integrity.html").read_text("utf-8")
    made = build(broken, listing, tmp_path / "d", waive=("scale_breaks", "limit_moves"))
    assert made["source"]["waived"] == made["integrity"]["waived"] == ["scale_breaks", "limit_moves"]
    assert "waived scale_breaks" in capsys.readouterr().out and (tmp_path / "d" / "integrity.html").is_file()


def test_waiving_duplicate_keys_keeps_the_first_row_of_each_and_counts_the_others(bars, listing, tmp_path) -> None:
    twice = pl.concat([bars, bars.head(7).with_columns(pl.col("close") + 1)])
    with pytest.raises(IntegrityError, match="duplicate_keys: 7 keys"):
        build(twice, listing, tmp_path / "d")
    made = build(twice, listing, tmp_path / "d", waive=("duplicate_keys",))
    assert made["source"]["accepted"] == {"duplicate_keys": 7}
    assert made["fingerprint"] == build(bars, listing, tmp_path / "plain")["fingerprint"]


@pytest.mark.parametrize("bad", [-5, 0, None])
def test_waiving_prices_that_are_none_makes_these_days_halts(bars, listing, tmp_path, bad) -> None:
    unpriced = put(bars, "000030", 100, close=bad)
    with pytest.raises(IntegrityError, match="non_positive_prices: 1 of"):
        build(unpriced, listing, tmp_path / "d")
    made = build(unpriced, listing, tmp_path / "d", waive=("non_positive_prices",))
    assert made["source"]["accepted"] == {"non_positive_prices": 1} and made["source"]["panel"]["halted_rows"] == 1


def test_a_repair_list_is_applied_and_kept_with_its_counts(bars, listing, tmp_path) -> None:
    path = tmp_path / "repairs.json"
    repairs = [{"repair": "mask_day", "code": "000030", "date": str(bars["date"][100])}]
    path.write_text(json.dumps(repairs))
    made = build(put(bars, "000030", 100, close=None), listing, tmp_path / "d", repairs=path)
    assert made["source"]["repairs"] == {"repairs": 1, "rows": {"mask_day": 1}, "list": repairs}


def test_bars_that_make_no_panel_are_reported_too(bars, listing, tmp_path, capsys) -> None:
    with pytest.raises(IntegrityError, match="halts"):
        build(bars.with_columns(volume=pl.lit(0)), listing, tmp_path / "d")
    with pytest.raises(IntegrityError, match="industries_without_sector"):
        build(bars, listing.with_columns(industry=pl.lit("KOSPI")), tmp_path / "d")
    assert "FATAL  industries_without_sector" in capsys.readouterr().out


def test_a_fatal_finding_in_the_finished_dataset_leaves_the_old_one_in_place(bars, listing, tmp_path) -> None:
    first = build(bars, listing, tmp_path / "d")
    with pytest.raises(IntegrityError, match="label_balance"):  # a threshold of 500 %: every label is HOLD
        build(bars, listing, tmp_path / "d", threshold=5.0, force=True)
    assert json.loads((tmp_path / "d" / "dataset.json").read_text())["fingerprint"] == first["fingerprint"]
    assert files(tmp_path) == ["d", "d.integrity.html"]


def test_the_report_in_dataset_json_covers_bars_and_the_finished_dataset(bars, listing, tmp_path) -> None:
    names = {f["name"] for f in build(bars, listing, tmp_path / "d")["integrity"]["findings"]}
    assert {"limit_moves", "dominant_sector", "label_leaks", "blank_charts"} <= names


def test_bars_of_a_synthetic_market_are_not_taken_for_those_of_a_real_one_built_over_it(tmp_path) -> None:
    with pytest.raises(ValueError, match="found no dataset.json"):
        synthetic_source(tmp_path)
    write_description(tmp_path, {"schema_version": SCHEMA_VERSION, "source": {"name": "synthetic"}})
    assert synthetic_source(tmp_path) == (tmp_path / "source" / "bars.parquet", tmp_path / "source" / "listing.csv")
    write_description(tmp_path, {"schema_version": SCHEMA_VERSION, "source": {"name": "bars.parquet"}})
    with pytest.raises(ValueError, match="a dataset made from bars.parquet. Name the bars with --source"):
        synthetic_source(tmp_path)


def test_walk_forward_folds_are_chosen_by_number(bars, listing, tmp_path) -> None:
    days = bars["date"].unique().sort()
    tests = []
    for number in (1, 2):
        made = build(bars, listing, tmp_path / str(number), Fold(number, 2, val_days=15, test_days=15).borders)
        borders = Borders.from_dict(made["borders"])
        assert made["counts"]["train"]["last"] < made["counts"]["val"]["first"] < made["counts"]["test"]["first"]
        tests += [day for day in days if borders.test_start <= day <= borders.test_end]
    assert tests == days[-30:].to_list()
    with pytest.raises(ValueError, match="expected 1/N to N/N, got 3/2"):
        Fold(3, 2, 15, 15)


def test_the_splits_are_told_in_one_way(bars) -> None:
    shares = borders_from(shares=(0.5, 0.25))
    assert callable(shares) and shares(bars["date"]).train_end == bars["date"].unique().sort()[79]
    with pytest.raises(ValueError, match="--protocol and --fold"):
        borders_from(protocol="krx-2020s", fold=Fold(1, 2, 5, 5))


def test_an_extension_keeps_the_universe_and_says_which_old_features_moved(
    bars, listing, tmp_path, caplog_loguru
) -> None:
    preference = bars.filter(pl.col("code") == "000010").with_columns(code=pl.lit("000015"))
    with_preference = pl.concat([bars, preference]).sort("code", "date")
    names = pl.concat([listing, listing.head(1).with_columns(code=pl.lit("000015"), industry=pl.lit(None, pl.String))])
    early = pl.col("date") <= bars["date"].max() - timedelta(days=20)
    ranked = {"features": ("return_1", "rank_return_1")}
    first = build(with_preference.filter(early), names, tmp_path / "d", universe="with_preference", **ranked)
    later = build(with_preference, names, tmp_path / "d", extend=True)
    assert later["universe"]["name"] == "with_preference" and later["scaler"] == first["scaler"]
    assert not any("other features" in line for line in caplog_loguru)
    stranger = preference.with_columns(code=pl.lit("000130"))
    more = pl.concat([names, names.head(1).with_columns(code=pl.lit("000130"))])
    build(pl.concat([with_preference, stranger]), more, tmp_path / "d", extend=True)
    assert any("old samples of" in line and "other features" in line for line in caplog_loguru)


@pytest.fixture
def caplog_loguru():
    from loguru import logger

    lines: list[str] = []
    number = logger.add(lambda message: lines.append(str(message)), level="WARNING")
    yield lines
    logger.remove(number)


def test_the_command_builds_a_fold_and_warns_of_what_it_ignores(
    bars, listing, tmp_path, monkeypatch, caplog_loguru
) -> None:
    bars.write_csv(tmp_path / "bars.csv")
    listing.write_csv(tmp_path / "listing.csv")
    given = ["--source", tmp_path / "bars.csv", "--listing", tmp_path / "listing.csv", "--data-dir", tmp_path / "d"]

    def run(*more: str) -> None:
        monkeypatch.setattr("sys.argv", ["build_dataset.py", *map(str, given), *more])
        command.main()

    run(
        "--fold",
        "1/2",
        "--val-days",
        "15",
        "--test-days",
        "15",
        "--features",
        "return_1",
        "--waive",
        "halts,limit_moves",
    )
    made = json.loads((tmp_path / "d" / "dataset.json").read_text())
    assert made["source"]["waived"] == ["halts", "limit_moves"]
    run("--extend", "--horizon", "3")
    assert any("ignored: --horizon" in line for line in caplog_loguru)
    longer = json.loads((tmp_path / "d" / "dataset.json").read_text())
    assert longer["horizon"] == 5 and longer["counts"]["test"]["n"] > made["counts"]["test"]["n"]
    with pytest.raises(ValueError, match="--fold as 1/3"):
        run("--fold", "one")


def test_a_synthetic_market_never_takes_the_place_of_a_real_one(bars, listing, tmp_path) -> None:
    build(bars, listing, tmp_path / "d")
    before = (tmp_path / "d" / "dataset.json").read_bytes()
    for force in (False, True):
        with pytest.raises(ValueError, match="a real market's dataset .* which a synthetic market never replaces"):
            build_synthetic(tmp_path / "d", "tiny", force=force)
    assert (tmp_path / "d" / "dataset.json").read_bytes() == before


def test_a_dataset_left_half_replaced_is_finished_before_anything_is_built_where_it_seems_missing(
    bars, listing, tmp_path
) -> None:
    build(bars, listing, tmp_path / "d")
    (tmp_path / "d" / "dataset.json").rename(tmp_path / "d.json")  # as a kill leaves it: the rest is in .new
    new = tmp_path / "d" / ".new"
    new.mkdir()
    (tmp_path / "d.json").rename(new / "dataset.json")
    assert holds_dataset(tmp_path / "d") and not new.exists()
    assert not holds_dataset(tmp_path / "nowhere")
