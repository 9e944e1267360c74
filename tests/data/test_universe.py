import polars as pl
import pytest

from lasps.data.panel import make_panel
from lasps.data.universe import classify_listing, market_of, select_universe, stored_markets

LISTING = pl.DataFrame(
    [
        ("005930", "삼성전자", "KOSPI", "통신 및 방송 장비 제조업"),
        ("005935", "삼성전자우", "KOSPI", None),
        ("00088K", "한화3우B", "KOSPI", "기타금융"),
        ("000880", "한화", "KOSPI", "기타 화학제품 제조업"),
        ("437780", "유안타제11호스팩", "KOSDAQ", "금융 지원 서비스업"),
        ("0001A0", "덕양에너젠", "KOSDAQ", "기초 화학물질 제조업"),
        ("900010", "어느 펀드", "KOSPI", None),
        ("900020", "달나라", "KOSPI", "우주 관광업"),
        ("900025", "달나라우", "KOSPI", None),
    ],
    schema=["code", "name", "market", "industry"],
    orient="row",
)


@pytest.fixture
def panel() -> pl.DataFrame:
    codes = pl.DataFrame({"code": [*LISTING["code"], "kospi"]})
    days = pl.DataFrame({"date": pl.date_range(pl.date(2024, 1, 2), pl.date(2024, 1, 4), eager=True)})
    prices = {"open": 10, "high": 12, "low": 9, "close": 11, "volume": 5}
    return make_panel(codes.join(days, how="cross").with_columns(**{k: pl.lit(v) for k, v in prices.items()}))[0]


def sectors(panel: pl.DataFrame) -> dict[str, int]:
    return dict(panel.group_by("code").agg(pl.col("sector").first()).rows())


def test_common_keeps_common_shares_with_a_known_sector_and_counts_the_rest(panel) -> None:
    chosen, counts = select_universe(panel, LISTING)
    assert sectors(chosen) == {"005930": 8, "000880": 3, "0001A0": 3}
    assert chosen["sector"].dtype == pl.Int16
    assert counts == {
        "universe": "common",
        "codes": 10,
        "codes_kept": 3,
        "rows": 30,
        "rows_kept": 9,
        "not_listed": 1,
        "other_market": 0,
        "preference": 3,
        "spac": 1,
        "without_industry": 1,
        "unknown_industry": 1,
        "markets": None,
    }


def test_a_preference_share_takes_its_common_shares_sector(panel) -> None:
    chosen, counts = select_universe(panel, LISTING, "with_preference")
    assert sectors(chosen) == {"005930": 8, "005935": 8, "000880": 3, "00088K": 3, "0001A0": 3}
    assert counts["preference"] == 0 and counts["spac"] == 1
    assert counts["without_industry"] == 2  # the fund, and the preference share of a common share without sector


def test_all_takes_spacs_too_but_never_a_code_without_sector(panel) -> None:
    chosen, _ = select_universe(panel, LISTING, "all")
    assert sectors(chosen) == {"005930": 8, "005935": 8, "000880": 3, "00088K": 3, "0001A0": 3, "437780": 16}


def test_the_rows_stay_in_order(panel) -> None:
    chosen, _ = select_universe(panel, LISTING, "all")
    assert chosen.equals(chosen.sort("code", "date"))
    assert select_universe(chosen, LISTING, "all")[0].equals(chosen)


def test_a_name_that_only_resembles_a_spac_stays_common() -> None:
    names = ["하나34호스팩", "Alpha SPAC 2", "Space Pioneers", "스페코", "신한기업인수목적1호"]
    listing = pl.DataFrame({"code": [f"{i:05d}0" for i in range(5)], "name": names, "industry": ["화학"] * 5})
    assert classify_listing(listing)["kind"].to_list() == ["spac", "spac", "common", "common", "spac"]


def test_konex_is_left_out_unless_asked_for_and_counted(panel) -> None:
    konex = LISTING.with_columns(
        pl.when(pl.col("code") == "000880").then(pl.lit("코넥스")).otherwise("market").alias("market")
    )
    chosen, counts = select_universe(panel, konex)
    assert sectors(chosen) == {"005930": 8, "0001A0": 3} and counts["other_market"] == 1
    assert sectors(select_universe(panel, konex, markets=())[0]) == {"005930": 8, "000880": 3, "0001A0": 3}
    cases = {("KONEX",): {"000880"}, ("KOSPI",): {"005930"}, ("KOSDAQ", "KONEX"): {"0001A0", "000880"}}
    for markets, codes in cases.items():
        chosen, counts = select_universe(panel, konex, markets=markets)
        assert set(chosen["code"]) == codes and counts["markets"] == list(markets)
        assert stored_markets(counts) == markets
    assert stored_markets({"name": "common"}) == () and stored_markets({"markets": None}) is None


def test_a_stock_of_no_known_market_stays_unless_markets_are_named(panel) -> None:
    without = LISTING.drop("market")
    assert select_universe(panel, without)[1]["codes_kept"] == 3
    with pytest.raises(ValueError, match="no stock of the panel.*'other_market': 9"):
        select_universe(panel, without, markets=("KOSPI",))
    with pytest.raises(ValueError, match="unknown market 'NASDAQ'; expected some of KOSPI, KOSDAQ, KONEX"):
        select_universe(panel, LISTING, markets=("NASDAQ",))


@pytest.mark.parametrize(
    ("written", "market"),
    [
        ("KOSDAQ GLOBAL", "KOSDAQ"),
        ("코스닥시장", "KOSDAQ"),
        ("유가증권시장", "KOSPI"),
        ("STK", "KOSPI"),
        ("KNX", "KONEX"),
        (" kospi ", "KOSPI"),
        ("", None),
        ("K-OTC", "K-OTC"),
    ],
)
def test_markets_are_known_under_the_names_of_listings(written, market) -> None:
    assert pl.DataFrame({"market": [written]}).select(market_of(pl.col("market"))).item() == market


def test_mistakes_are_refused(panel) -> None:
    with pytest.raises(ValueError, match="unknown universe 'comon'.*with_preference"):
        select_universe(panel, LISTING, "comon")
    with pytest.raises(ValueError, match="missing.*industry"):
        select_universe(panel, LISTING.drop("industry"))
    with pytest.raises(ValueError, match="more than once.*005930"):
        select_universe(panel, pl.concat([LISTING, LISTING.head(1)]))
    with pytest.raises(ValueError, match="no stock of the panel.*right listing"):
        select_universe(panel.filter(pl.col("code") == "kospi"), LISTING)
