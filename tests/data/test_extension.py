"""A dataset grows while its stocks are split, leave the exchange and the listing, or change their industry."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loguru import logger

from lasps.config.sectors import SECTORS
from lasps.data.build import build_dataset
from lasps.data.extension import extend_dataset, with_former_stocks
from lasps.data.overlap import compare_overlap
from lasps.data.spec import DatasetSpec
from lasps.data.universe import select_universe
from tests.factories import BORDERS, DAYS, FEW_FEATURES, small_panel

PRICES = ["open", "high", "low", "close"]
LAST = DAYS[220]


@pytest.fixture(scope="module")
def panel() -> pl.DataFrame:
    return small_panel()


@pytest.fixture(scope="module")
def old(panel, tmp_path_factory):
    """A dataset of the days up to LAST, built once; `extended` writes elsewhere."""
    folder = tmp_path_factory.mktemp("old") / "d"
    build_dataset(
        panel.filter(pl.col("date") <= LAST),
        folder,
        DatasetSpec(FEW_FEATURES, borders=BORDERS, chart_size=(20, 180)),
        source={"name": "made up"},
    )
    return folder


@pytest.fixture
def warnings():
    lines: list[str] = []
    number = logger.add(lambda message: lines.append(message.record["message"]), level="WARNING")
    yield lines
    logger.remove(number)


def rescaled(panel: pl.DataFrame, code: str, factor: float) -> pl.DataFrame:
    """A bonus issue after LAST: every price before is times `factor`, rounded to the won."""
    before = (pl.col("code") == code) & (pl.col("date") <= LAST)
    return panel.with_columns(pl.when(before).then((pl.col(PRICES) * factor).round()).otherwise(pl.col(PRICES)))


def extended(old, panel, tmp_path, **more):
    return extend_dataset(old, panel, source={"name": "made up"}, out_dir=tmp_path / "new", **more)


def test_a_bonus_issue_is_read_again_and_named(panel, old, tmp_path, warnings) -> None:
    made = extended(old, rescaled(panel, "000040", 1 / 1.1), tmp_path)
    told = made["source"]["extension"]
    assert list(told["rescaled"]) == ["000040"] and told["rescaled"]["000040"] == pytest.approx(1 / 1.1, rel=1e-4)
    assert told["reread"] == {}
    assert any("1 stocks were adjusted since" in line and "000040 x 0.9091" in line for line in warnings)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(factors=st.lists(st.floats(0.02, 20), min_size=9, max_size=9), level=st.sampled_from([1.0, 0.1, 0.02]))
def test_any_splits_of_any_stocks_are_rounding_and_nothing_else(factors, level, tmp_path_factory) -> None:
    """At 200 won a rounded won moves a return by half a percent; that is no other history."""
    panel = small_panel(seed=1).with_columns((pl.col(PRICES) * level).round())
    folder = tmp_path_factory.mktemp("split") / "d"
    build_dataset(
        panel.filter(pl.col("date") <= LAST),
        folder,
        DatasetSpec(("return_1",), borders=BORDERS, chart_size=(20, 180)),
        source={"name": "made up"},
    )
    for code, factor in zip(sorted(set(panel["code"])), factors, strict=False):
        panel = rescaled(panel, code, factor) if factor * level > 0.02 else panel
    found = compare_overlap(folder, panel, 5, 0.03)
    assert found.reread == {} and found.moved == {}


def test_unchanged_bars_are_the_same_and_nothing_is_said(panel, old, tmp_path, warnings) -> None:
    made = extended(old, panel, tmp_path)
    assert made["source"]["extension"] == {"rescaled": {}, "flipped_labels": 0, "reread": {}, "other_sector": {}}
    assert warnings == []


@pytest.mark.parametrize(
    "change",
    [
        pl.when(pl.col("date") < DAYS[100]).then(pl.col("close") / 2).otherwise("close"),  # a split inside the old days
        pl.when(pl.col("date") == DAYS[120]).then(pl.col("close") * 1.05).otherwise("close"),  # a corrected close
    ],
)
def test_one_stock_with_another_history_is_read_again_and_named(panel, old, tmp_path, warnings, change) -> None:
    other = panel.with_columns(pl.when(pl.col("code") == "000050").then(change).otherwise("close").alias("close"))
    made = extended(old, other, tmp_path)
    assert list(made["source"]["extension"]["reread"]) == ["000050"]
    assert 1 <= made["source"]["extension"]["reread"]["000050"] <= 6
    assert any("another history than before" in line and "000050" in line for line in warnings)


def test_days_of_one_stock_that_are_gone_are_another_history(panel, old, tmp_path) -> None:
    other = panel.filter((pl.col("code") != "000050") | (pl.col("date") != DAYS[120]))
    assert extended(old, other, tmp_path)["source"]["extension"]["reread"]["000050"] >= 1


def test_a_stock_that_ends_is_extended_with_nothing_and_its_last_labels_are_completed(panel, old, tmp_path) -> None:
    ended = panel.filter((pl.col("code") != "000080") | (pl.col("date") <= LAST))
    made = extended(old, ended, tmp_path)
    assert made["source"]["extension"]["reread"] == {}
    test = pl.read_parquet(tmp_path / "new" / "test" / "samples.parquet").filter(pl.col("code") == "000080")
    assert test["date"].max() == LAST and test.filter("label_cut_short").height == 5


def listing_of(panel: pl.DataFrame) -> pl.DataFrame:
    codes = panel["code"].unique().sort()
    industries = [SECTORS[i % 20].korean for i in range(len(codes))]
    return pl.DataFrame({"code": codes, "name": "회사", "market": "KOSPI", "industry": industries})


def test_a_listing_of_today_keeps_the_stocks_of_the_dataset_with_name_and_sector(panel, tmp_path, warnings) -> None:
    listing = listing_of(panel)
    chosen, _ = select_universe(panel, listing)
    early = chosen.filter(pl.col("date") <= LAST)
    build_dataset(
        early,
        tmp_path / "d",
        DatasetSpec(FEW_FEATURES, borders=BORDERS, chart_size=(20, 180)),
        source={},
        listing=listing,
    )
    today = listing.filter(~pl.col("code").is_in(["000010", "000030"]))
    today = today.with_columns(industry=pl.when(pl.col("code") == "000050").then(None).otherwise("industry"))
    completed = with_former_stocks(today, tmp_path / "d")
    for told in (
        "2 stocks that were known before are no longer in the listing",
        "1 stocks that were known before have no industry",
    ):
        assert any(told in line for line in warnings)
    again, _ = select_universe(panel, completed)
    assert again.equals(chosen)
    assert completed.filter(pl.col("code") == "000010")["name"].to_list() == ["회사"]
    assert with_former_stocks(today, tmp_path / "nothing").equals(today)

    of_kosdaq = today.with_columns(
        market=pl.when(pl.col("code") == "000040").then(pl.lit("KOSPI")).otherwise(pl.lit("KOSDAQ GLOBAL"))
    )
    completed = with_former_stocks(of_kosdaq, tmp_path / "d", ("KOSDAQ",))
    assert select_universe(panel, completed, markets=("KOSDAQ",))[0].equals(chosen)
    assert any(
        "1 stocks that were known before are in another market now" in line and "000040" in line for line in warnings
    )


def test_a_stock_in_another_sector_than_before_is_named(panel, old, tmp_path, warnings) -> None:
    other = pl.when(pl.col("code") == "000040").then(pl.lit(9, pl.Int16)).otherwise("sector")
    made = extended(old, panel.with_columns(sector=other), tmp_path)
    assert list(made["source"]["extension"]["other_sector"]) == ["000040"]
    assert any("in another sector than before" in line and "000040" in line for line in warnings)
