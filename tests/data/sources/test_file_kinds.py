"""Files as they really come: every kind of spelling of one market is read as that market, or refused with a reason."""

from __future__ import annotations

import datetime as dt
import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lasps.data.panel import PRICES, make_panel
from lasps.data.sources.files import read_bars, read_bars_counted, read_listing

CODES = ("005930", "000660", "00088K")
COLUMNS = ["code", "date", *PRICES, "volume"]
FIXTURE = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def days(n: int, start: dt.date = dt.date(2024, 1, 2)) -> list[dt.date]:
    return [day for i in range(2 * n + 7) if (day := start + dt.timedelta(i)).weekday() < 5][:n]


def truth(codes: tuple[str, ...] = CODES, n: int = 20, seed: int = 1) -> pl.DataFrame:
    """A small market: whole prices whose bars are valid, volumes in the millions."""
    rng = np.random.default_rng(seed)
    frames = []
    for code in codes:
        close = (70_000 * np.exp(np.cumsum(rng.normal(0, 0.02, n)))).round()
        opening = (close * np.exp(rng.normal(0, 0.01, n))).round()
        high, low = np.maximum(opening, close) + 100, np.minimum(opening, close) - 100
        volume = rng.integers(1_000_000, 9_000_000, n)
        frames.append(
            pl.DataFrame(
                {
                    "code": [code] * n,
                    "date": days(n),
                    "open": opening,
                    "high": high,
                    "low": low,
                    "close": close,
                    "volume": volume,
                }
            )
        )
    return pl.concat(frames)


def same(bars: pl.DataFrame, expected: pl.DataFrame) -> bool:
    """Whether the values agree, in any order of rows and whatever the numeric types."""
    numbers = pl.col(*PRICES, "volume").cast(pl.Float64)
    ours, theirs = (f.select(COLUMNS).with_columns(numbers).sort("code", "date") for f in (bars, expected))
    return ours.equals(theirs)


def spelled(frame: pl.DataFrame, separator: str, thousands: str, decimal: str, header: list[str]) -> str:
    """The table as text: all numbers with two decimals, so that "70500,00" and "70,500.00" come about."""

    def number(value: float) -> str:
        whole, _, part = f"{value:,.2f}".partition(".")
        text = whole.replace(",", thousands) + decimal + part
        return f'"{text}"' if separator in text else text

    lines = [separator.join(header)]
    for code, day, *values in frame.iter_rows():
        lines.append(separator.join([code, f"{day:%Y-%m-%d}", *(number(float(v)) for v in values)]))
    return "\n".join(lines) + "\n"


@FIXTURE
@given(
    separator=st.sampled_from(",;\t|"),
    marks=st.sampled_from([("", "."), (",", "."), ("", ","), (".", ",")]),
    header=st.sampled_from(
        [
            COLUMNS,
            ["종목코드", "일자", "시가(원)", "고가", "저가", "현재가", "거래량 (주)"],
            ["ISU_SRT_CD", "TRD_DD", "TDD_OPNPRC", "TDD_HGPRC", "TDD_LWPRC", "TDD_CLSPRC", "ACC_TRDVOL"],
            ["티커", "날짜", "시가", "고가", "저가", "종가", "거래량"],
            ["stk_cd", "dt", "open_pric", "high_pric", "low_pric", "cur_prc", "trde_qty"],
        ]
    ),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "cp949", "utf-16", "utf-16-le"]),
    packing=st.sampled_from(["", ".gz", ".zip"]),
    newline=st.sampled_from(["\n", "\r\n"]),
)
def test_every_spelling_of_a_market_is_read_as_that_market(
    tmp_path, separator, marks, header, encoding, packing, newline
) -> None:
    market = truth(n=6)
    content = spelled(market, separator, *marks, header).replace("\n", newline).encode(encoding)
    path = tmp_path / f"bars.csv{packing}"
    if packing == ".gz":
        content = gzip.compress(content)
    if packing == ".zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("bars.csv", content)
        content = buffer.getvalue()
    path.write_bytes(content)
    assert same(read_bars(path), market)


@pytest.mark.parametrize(
    ("text", "decimal", "close"),
    [
        ("70.500", None, None),
        ("70.500", "point", 70.5),
        ("70.500", "comma", 70_500),
        ("70,500", None, None),
        ("70,500", "comma", 70.5),
        ("70,500", "point", 70_500),
        ("70500,5", None, 70_500.5),
        ("1.234.567", None, 1_234_567),
    ],
)
def test_a_semicolon_file_whose_numbers_prove_nothing_is_refused_until_the_decimal_sign_is_named(
    tmp_path, text, decimal, close
) -> None:
    (tmp_path / "005930.csv").write_text(f"date;open;high;low;close;volume\n20240102;{text};{text};{text};{text};12\n")
    if close is None:
        with pytest.raises(ValueError, match="cannot tell thousands from decimals.*--decimal"):
            read_bars(tmp_path)
    else:
        assert read_bars(tmp_path, decimal=decimal)["close"].to_list() == [close]


def test_two_spellings_in_one_file_are_refused_with_the_row(tmp_path) -> None:
    (tmp_path / "005930.csv").write_text(
        'date;open;high;low;close;volume\n20240102;"70,500.5";9;9;9;12\n20240103;70500,5;9;9;9;12\n'
    )
    with pytest.raises(ValueError, match="row 3, column open: expected a number.*'70500,5'"):
        read_bars(tmp_path)


def test_full_width_digits_and_excels_text_codes_are_read(tmp_path) -> None:
    wide = str.maketrans("0123456789", "０１２３４５６７８９")
    (tmp_path / "bars.csv").write_text(
        "code,date,open,high,low,close,volume\n"
        '="005930",2024-01-02,1,3,1,2,5\n"=""000660""",20240103,1,3,1,2,5\n'
        f"００５９３５,{'2024-01-04'.translate(wide)},{'12'.translate(wide)},13,1,2,5\n"
    )
    assert read_bars(tmp_path / "bars.csv").select("code", "date", "open").rows() == [
        ("005930", dt.date(2024, 1, 2), 1),
        ("000660", dt.date(2024, 1, 3), 1),
        ("005935", dt.date(2024, 1, 4), 12),
    ]


@pytest.mark.parametrize("newest_first", [False, True])
def test_signs_before_prices_are_named_and_read_with_the_flag(tmp_path, newest_first) -> None:
    market = truth()
    last = pl.col("close").shift(1).over("code").fill_null(0)
    signs = {
        c: pl.when(pl.col(c) < last).then(pl.lit("-")).otherwise(pl.lit("+")) + pl.col(c).cast(pl.String)
        for c in PRICES
    }
    signed = market.with_columns(**signs).sort("date", descending=newest_first)
    signed.write_csv(tmp_path / "bars.csv")
    with pytest.raises(ValueError, match="carry a sign.*--signed-prices"):
        read_bars(tmp_path / "bars.csv")
    bars, counts = read_bars_counted(tmp_path / "bars.csv", signed_prices=True)
    assert same(bars, market) and 0 < counts["signed_rows"] < 60


def test_negative_prices_that_are_no_signs_are_left_to_the_gate(tmp_path) -> None:
    market = truth().with_columns(close=pl.when(pl.int_range(pl.len()) == 3).then(-1.0).otherwise("close"))
    market.write_csv(tmp_path / "bars.csv")
    assert same(read_bars(tmp_path / "bars.csv"), market)


def yahoo(kind: str, tickers: list[str], rows: list[str]) -> str:
    names = [name for name in ("Close", "High", "Low", "Open", "Volume") for _ in tickers]
    every = tickers * 5
    heads = {
        "price first": [["Price", *names], ["Ticker", *every], ["Date", *[""] * len(names)]],
        "ticker first": [["Ticker", *every], ["Price", *names], ["Date", *[""] * len(names)]],
        "unnamed": [["", *names], ["", *every], ["Date", *[""] * len(names)]],
        "index reset": [["Date", *names], ["", *every]],
    }
    return "\n".join([*(",".join(line) for line in heads[kind]), *rows]) + "\n"


@pytest.mark.parametrize("kind", ["price first", "ticker first", "unnamed", "index reset"])
def test_a_ticker_line_in_the_header_names_the_stock_and_keeps_the_lines_numbers(tmp_path, kind) -> None:
    path = tmp_path / "prices.csv"
    path.write_text(yahoo(kind, ["005930.KS"], ["2024-01-02,70500,71000,69500,70000,1000"] * 2))
    assert read_bars(path).row(0) == ("005930", dt.date(2024, 1, 2), 70000, 71000, 69500, 70500, 1000)
    path.write_text(yahoo(kind, ["005930.KS"], ["2024-01-02,70500,71000,69500,70000,1000", "2024-01-03,x,1,1,1,1"]))
    line = path.read_text().split("\n").index("2024-01-03,x,1,1,1,1") + 1
    with pytest.raises(ValueError, match=rf"row {line}, column close.*'x'"):
        read_bars(path)
    other = tmp_path / "000660.KS.csv"
    other.write_text(yahoo(kind, ["005930.KS"], ["2024-01-02,70500,71000,69500,70000,1000"] * 2))
    with pytest.raises(ValueError, match="names the ticker 005930.KS, its name the code 000660"):
        read_bars(other)


@pytest.mark.parametrize("kind", ["price first", "ticker first", "unnamed", "index reset"])
def test_a_wide_table_of_several_tickers_is_refused_and_they_are_named(tmp_path, kind) -> None:
    path = tmp_path / "005930.KS.csv"
    path.write_text(yahoo(kind, ["005930.KS", "000660.KS"], ["2024-01-02,2,2,3,3,1,1,2,2,9,9"]))
    with pytest.raises(ValueError, match="wide table of 2 tickers .000660.KS, 005930.KS.*stack it"):
        read_bars(path)


def test_a_parquet_file_with_two_levels_of_columns_is_read_or_refused_likewise(tmp_path) -> None:
    pandas = pytest.importorskip("pandas")
    index = pandas.DatetimeIndex(days(3), name="Date")
    for tickers in (["005930.KS"], ["005930.KS", "000660.KS"]):
        columns = pandas.MultiIndex.from_product([["Close", "High", "Low", "Open", "Volume"], tickers])
        pandas.DataFrame(7.0, index, columns).to_parquet(tmp_path / "wide.parquet")
        if len(tickers) == 1:
            bars = read_bars(tmp_path / "wide.parquet")
            assert set(bars["code"]) == {"005930"} and bars["date"].to_list() == days(3)
        else:
            with pytest.raises(ValueError, match="wide table of 2 tickers"):
                read_bars(tmp_path / "wide.parquet")


def test_an_adjusted_close_scales_prices_and_across_splits_volumes_too(tmp_path) -> None:
    market = truth(n=40)
    split = (pl.int_range(pl.len()).over("code") < 20) & (pl.col("code") != "000660")
    dividend = pl.when(pl.int_range(pl.len()).over("code") < 30).then(0.95).otherwise(1.0)
    raw = market.with_columns(
        *(pl.when(split).then(pl.col(c) * 50).otherwise(pl.col(c)).alias(c) for c in PRICES),
        volume=pl.when(split).then(pl.col("volume").cast(pl.Float64) / 50).otherwise(pl.col("volume")),
    ).with_columns(adj_close=market["close"] * market.select(dividend).to_series())
    for name, table in (("up", raw), ("down", raw.reverse())):
        table.write_csv(tmp_path / f"{name}.csv")
        bars, counts = read_bars_counted(tmp_path / f"{name}.csv")
        expected = market.with_columns(pl.col(*PRICES) * dividend)
        pairs = [f.sort("code", "date").select(*PRICES, "volume").cast(pl.Float64).to_numpy() for f in (bars, expected)]
        np.testing.assert_allclose(*pairs, rtol=1e-9)
        assert (counts["rescaled_rows"], counts["rescaled_volumes"]) == (90, 40)


@pytest.mark.parametrize("hole", ["", "0", "inf", "-inf", "nan", "-3"])
def test_a_row_without_a_usable_adjusted_close_has_no_price_at_all(tmp_path, hole) -> None:
    market = truth(("005930",)).with_columns(pl.col("close").mul(0.8).cast(pl.String).alias("Adj Close"))
    holed = market.with_columns(
        pl.when(pl.int_range(pl.len()).is_in([5, 6])).then(pl.lit(hole)).otherwise("Adj Close").alias("Adj Close")
    )
    holed.write_csv(tmp_path / "bars.csv")
    bars, counts = read_bars_counted(tmp_path / "bars.csv")
    panel, report = make_panel(bars)
    assert (report.empty_rows, counts["without_adjusted_close"]) == (2, 2)
    expected = market.filter(~pl.int_range(pl.len()).is_in([5, 6]))["close"] * 0.8
    np.testing.assert_allclose(panel["close"], expected, rtol=1e-12)
    market.with_columns(pl.lit("").alias("Adj Close")).write_csv(tmp_path / "bars.csv")
    with pytest.raises(ValueError, match="missing or not positive in 20 of 20 traded rows"):
        read_bars(tmp_path / "bars.csv")


def test_all_faulty_files_of_a_folder_stand_in_one_message(tmp_path) -> None:
    header = "date,open,high,low,close,volume\n"
    for i in range(300):
        (tmp_path / f"{i:05d}0.csv").write_text(header)
    (tmp_path / "900000.csv").write_text(header + "20240102,1,2,1,x,3\n")
    (tmp_path / "900010.csv").write_text(header + "20240102,1,2,1,2,3\n")
    with pytest.raises(ValueError, match="301 of 302 files cannot be read") as raised:
        read_bars(tmp_path)
    lines = str(raised.value).split("\n")
    assert len(lines) == 3 and all(f"{i:05d}0.csv" in lines[1] for i in range(300))
    assert "row 2, column close" in lines[2] and lines[2].endswith("900000.csv")


def test_sub_folders_are_read_and_what_is_no_bar_file_is_named(tmp_path) -> None:
    from loguru import logger

    said: list[str] = []
    sink = logger.add(lambda message: said.append(str(message)), level="WARNING")
    market = truth(n=5)
    for code, folder in zip(CODES, ("KOSPI", "KOSDAQ/2024", "."), strict=True):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        market.filter(pl.col("code") == code).drop("code").write_csv(tmp_path / folder / f"{code}.csv")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / ".ipynb_checkpoints" / "005930.csv").write_text("nonsense")
    (tmp_path / "KOSPI" / "old.xlsx").write_text("x")
    assert same(read_bars(tmp_path), market)
    assert len(said) == 1 and "1 file passed over" in said[0] and "1 .xlsx" in said[0]
    (tmp_path / "KOSPI" / "000660.csv").write_bytes((tmp_path / "KOSDAQ/2024" / "000660.csv").read_bytes())
    assert read_bars(tmp_path).height == market.height + 5  # the gate stops at duplicate keys
    logger.remove(sink)
    assert "5 days of a stock stand in more than one file" in said[-1] and "KOSDAQ/2024/000660.csv and" in said[-1]


@pytest.mark.parametrize("dtype", ["categorical", "decimal", "int32", "float32", "uint64", "datetime", "seoul", "utc"])
def test_every_type_of_a_parquet_column_gives_the_same_market(tmp_path, dtype) -> None:
    market = truth()
    numbers, midnight = pl.col(*PRICES, "volume"), pl.col("date").cast(pl.Datetime("us"))
    seoul = midnight.dt.replace_time_zone("Asia/Seoul")
    change = {
        "categorical": pl.col("code").cast(pl.Categorical),
        "decimal": numbers.cast(pl.Decimal(38, 2)),
        "int32": numbers.cast(pl.Int32),
        "float32": numbers.cast(pl.Float32),
        "uint64": numbers.cast(pl.UInt64),
        "datetime": midnight,
        "seoul": seoul,
        "utc": seoul.dt.convert_time_zone("UTC"),
    }[dtype]
    market.with_columns(change).write_parquet(tmp_path / "bars.parquet")
    bars = read_bars(tmp_path / "bars.parquet")
    assert same(bars, market)
    assert set(bars.select(*PRICES, "volume").dtypes) <= {pl.Float64, pl.Int64}


def test_days_in_utc_are_refused_and_a_market_of_seven_days_is_not(tmp_path) -> None:
    market = truth(n=40)
    market.with_columns(pl.col("date").dt.offset_by("-1d")).write_csv(tmp_path / "utc.csv")
    with pytest.raises(ValueError, match="20 % of the rows lie on Sundays and 0 % on Fridays: the days are in UTC"):
        read_bars(tmp_path / "utc.csv")
    every_day = market.with_columns(date=dt.date(2024, 1, 1) + pl.duration(days=pl.int_range(pl.len()).over("code")))
    every_day.write_csv(tmp_path / "daily.csv")
    assert read_bars(tmp_path / "daily.csv").height == market.height


@pytest.mark.parametrize("form", ["text", "parquet", "compact"])
def test_bars_within_the_day_are_called_that(tmp_path, form) -> None:
    hours = truth(("005930",), n=7).with_columns(
        date=pl.datetime(2024, 1, 2, 9) + pl.duration(hours=pl.int_range(pl.len()))
    )
    if form == "parquet":
        hours.write_parquet(tmp_path / "bars.parquet")
    else:
        written = pl.col("date").dt.strftime("%Y%m%d%H%M%S" if form == "compact" else "%Y-%m-%d %H:%M:%S")
        hours.with_columns(written).write_csv(tmp_path / "bars.csv")
    with pytest.raises(ValueError, match="bars within the day: 7 times for 005930 on 2024-01-02 .09:00.*one bar per"):
        read_bars(tmp_path)


def test_a_time_of_day_that_differs_from_day_to_day_is_no_hourly_bar(tmp_path) -> None:
    market = truth(("005930",), n=7)
    last = market.with_columns(date=pl.col("date").cast(pl.String) + pl.format(" 15:3{}:00", pl.int_range(pl.len())))
    last.write_csv(tmp_path / "bars.csv")
    assert same(read_bars(tmp_path / "bars.csv"), market)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("volume", "inf", "row 4, column volume: expected a number of shares, got 'inf'"),
        ("volume", "1e20", "row 4, column volume: expected a number of shares"),
        ("date", "45293", "row 4, column date: expected .*not Excel's number"),
        ("date", "2024-01-04 00:00:00-05:00", "row 4, column date: .*another zone"),
        ("date", "", "row 4, column date: expected a day"),
        ("code", "", "row 4, column code: expected a code"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_its_row(tmp_path, column, value, message) -> None:
    text = truth(("005930",), n=5).with_columns(pl.all().cast(pl.String))
    bad = text.with_columns(pl.when(pl.int_range(pl.len()) == 2).then(pl.lit(value)).otherwise(column).alias(column))
    bad.write_csv(tmp_path / "bars.csv")
    with pytest.raises(ValueError, match=rf"bars\.csv: {message}"):
        read_bars(tmp_path / "bars.csv")


def test_a_missing_day_and_an_infinite_volume_of_a_parquet_file_are_refused_with_their_row(tmp_path) -> None:
    market = truth(("005930",), n=5)
    third = pl.int_range(pl.len()) == 2
    market.with_columns(pl.when(third).then(None).otherwise("date").alias("date")).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="row 3, column date: expected a day, got None"):
        read_bars(tmp_path / "a.parquet")
    infinite = pl.when(third).then(float("inf")).otherwise("volume").alias("volume")
    market.with_columns(infinite).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(ValueError, match="row 3, column volume: expected a number of shares"):
        read_bars(tmp_path / "b.parquet")


def test_blank_lines_are_no_rows_and_are_counted(tmp_path) -> None:
    text = truth(("005930",), n=3).write_csv()
    (tmp_path / "bars.csv").write_text(text + ",,,,,,\n\n")
    bars, counts = read_bars_counted(tmp_path / "bars.csv")
    assert (bars.height, counts["blank_rows"]) == (3, 2)


def test_a_frame_saved_with_its_index_twice_finds_its_days(tmp_path) -> None:
    market = truth(("005930",), n=3).with_row_index().rename({"index": "", "date": "Unnamed: 0"})
    market.drop("code").write_csv(tmp_path / "005930.csv")
    assert read_bars(tmp_path / "005930.csv")["date"].to_list() == days(3)


def test_two_columns_of_one_meaning_are_refused_unless_they_agree(tmp_path) -> None:
    text = truth(("005930",), n=3).with_columns(종가="close").write_csv()
    (tmp_path / "bars.csv").write_text(text)
    assert read_bars(tmp_path / "bars.csv").height == 3
    for name, meaning in (("close", "close"), ("종가", "close"), ("Date", "date")):
        header = f"code,date,open,high,low,close,volume,{name}"
        (tmp_path / "bars.csv").write_text(f"{header}\n005930,20240102,1,3,1,2,5,20240103\n")
        with pytest.raises(ValueError, match=f"both mean {meaning} and differ"):
            read_bars(tmp_path / "bars.csv")


def test_a_pandas_period_and_a_list_are_refused_in_one_line(tmp_path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = truth(("005930",), n=3).to_pandas()
    frame["date"] = pandas.PeriodIndex(frame["date"], freq="D")
    frame.to_parquet(tmp_path / "period.parquet")
    truth(("005930",), n=3).with_columns(pl.concat_list("close")).write_parquet(tmp_path / "list.parquet")
    for name, column in (("period", "date"), ("list", "close")):
        with pytest.raises(ValueError, match=f"column {column}: expected text or numbers, got the type") as raised:
            read_bars(tmp_path / f"{name}.parquet")
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["bars.csv.gz", "bars.csv.zip", "bars.parquet", "bars.csv"])
def test_a_torn_file_is_one_line_whatever_it_was(tmp_path: Path, name: str) -> None:
    whole = {
        "bars.csv.gz": gzip.compress(b"x" * 999)[:-9],
        "bars.csv.zip": b"PK\x03\x04rest",
        "bars.parquet": b"PAR1torn",
        "bars.csv": b"a,b\n1,2,3,4\n",
    }[name]
    (tmp_path / name).write_bytes(whole)
    with pytest.raises(ValueError, match=rf"{name}: not a readable") as raised:
        read_bars(tmp_path / name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "header",
    [
        "종목코드,종목명,시장구분,업종명",
        "Symbol,Name,Market,Sector",
        "티커,한글종목명,시장,섹터",
        "ISU_SRT_CD,ISU_ABBRV,MKT_TP_NM,IDX_IND_NM",
    ],
)
def test_a_listing_is_read_under_the_names_that_are_known(tmp_path: Path, header: str) -> None:
    row = '="005930",삼성전자,KOSPI,통신 및 방송 장비 제조업'
    (tmp_path / "listing.csv").write_text(f"{header}\n{row}\n,,,\n", "utf-8")
    assert read_listing(tmp_path / "listing.csv").rows() == [
        ("005930", "삼성전자", "KOSPI", "통신 및 방송 장비 제조업")
    ]


def test_the_industry_is_the_column_whose_names_the_sector_map_knows(tmp_path: Path) -> None:
    rows = "005930,삼성전자,반도체와 전화기,통신 및 방송 장비 제조업\n000660,SK하이닉스,메모리,반도체 제조업\n"
    for header in ("Code,Name,Industry,Sector", "Code,Name,Sector,Industry"):
        (tmp_path / "listing.csv").write_text(f"{header}\n{rows}", "utf-8")
        assert read_listing(tmp_path / "listing.csv")["industry"][0] == "통신 및 방송 장비 제조업"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("KR7005930003,20240102,1,3,1,2,5", "row 2, column code: .*not an ISIN"),
        (",,,,,,", "all rows are blank"),
        ("005930,1704153600000,1,3,1,2,5", "row 2, column date: expected a day"),
        ("005930,20240102,1,3,1,2,5,6", "not a readable CSV table"),
        ('005930,20240102,"₩9",3,1,2,5', "row 2, column open"),
    ],
)
def test_rows_that_are_something_else_are_refused_with_a_reason(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "bars.csv").write_text(f"code,date,open,high,low,close,volume\n{line}\n", "utf-8")
    with pytest.raises(ValueError, match=message):
        read_bars(tmp_path / "bars.csv")


def test_excels_line_about_the_separator_is_none_of_the_header_but_counts_as_a_line(tmp_path: Path) -> None:
    text = "sep=;\ncode;date;open;high;low;close;volume\n005930;20240102;1;3;1;2;5\n"
    (tmp_path / "bars.csv").write_text(text)
    assert read_bars(tmp_path / "bars.csv").height == 1
    (tmp_path / "bars.csv").write_text(text + "005930;20240103;x;3;1;2;5\n")
    with pytest.raises(ValueError, match="row 4, column open"):
        read_bars(tmp_path / "bars.csv")


def test_the_exchanges_dash_is_no_value(tmp_path: Path) -> None:
    (tmp_path / "bars.csv").write_text(
        "code,date,open,high,low,close,volume\n005930,20240102,-,-,-,2,0\n005930,20240103,1,3,1,2,5\n"
    )
    panel, report = make_panel(read_bars(tmp_path / "bars.csv"))
    assert (panel.height, report.halted_rows) == (1, 1)


@pytest.mark.parametrize("again", ["{}.1", "{}_duplicated_0", "{}"])
def test_two_stocks_side_by_side_under_one_name_are_refused(tmp_path: Path, again: str) -> None:
    one, other = (truth((code,), seed=seed).drop("code") for seed, code in enumerate(CODES[:2]))
    rows = [",".join(map(str, (*a, *b[1:]))) for a, b in zip(one.rows(), other.rows(), strict=True)]
    header = [*one.columns, *(again.format(name) for name in one.columns[1:])]
    (tmp_path / "005930.csv").write_text("\n".join([",".join(header), *rows]) + "\n")
    with pytest.raises(ValueError, match="both mean open and differ"):
        read_bars(tmp_path / "005930.csv")


def test_a_file_of_another_kind_under_a_text_file_s_name_is_called_what_it_is(tmp_path: Path) -> None:
    packed, table, archive = io.BytesIO(), io.BytesIO(), io.BytesIO()
    packed.write(gzip.compress(truth().write_csv().encode()))
    truth().write_parquet(table)
    with zipfile.ZipFile(archive, "w") as book:
        book.writestr("xl/workbook.xml", "<workbook/>")
    kinds = {
        "gzip-packed": packed.getvalue(),
        "a parquet file": table.getvalue(),
        "an Excel workbook": archive.getvalue(),
        "an old Excel workbook": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
        "a page of HTML": b"\xef\xbb\xbf\n<html><table><tr><td>date</td></tr></table></html>",
    }
    for what, content in kinds.items():
        (tmp_path / "005930.csv").write_bytes(content)
        with pytest.raises(ValueError, match=f"expected text with one row per line, got {what}"):
            read_bars(tmp_path / "005930.csv")
