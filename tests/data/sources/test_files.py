import datetime as dt

import polars as pl
import pytest

from lasps.data.panel import make_panel
from lasps.data.sources.files import read_bars, read_bars_counted, read_listing

ROWS = "20240102,70000,71000,69500,70500,1000\n20240103,70500,70900,70000,70100,1200\n"
ENGLISH = "Date,Open,High,Low,Close,Volume\n"


@pytest.fixture
def write(tmp_path):
    def write(name, text, encoding="utf-8"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode(encoding))
        return path

    return write


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949"])
def test_a_korean_long_table_is_read_in_every_encoding(write, encoding) -> None:
    text = (
        "종목코드,종목명,일자,시가,고가,저가,종가,거래량\n005930,삼성전자,2024/01/02,"
        + '"70,000","71,000","69,500","70,500","1,234,567"\n'
    )
    bars = read_bars(write("bars.csv", text, encoding))
    assert bars.rows() == [("005930", dt.date(2024, 1, 2), 70000, 71000, 69500, 70500, 1234567)]
    panel, _ = make_panel(bars)
    assert panel["volume"].dtype == pl.Int64


@pytest.mark.parametrize(
    "written",
    [
        "20240102",
        "2024-01-02",
        "2024/01/02",
        "2024/1/2",
        "2024.01.02",
        "2024. 1. 2.",
        "2024년 1월 2일",
        "2024-01-02 00:00:00",
        "2024-01-02T00:00:00",
        "2024-01-02 00:00:00+09:00",
        "20240102.0",
    ],
)
def test_days_are_read_in_every_usual_way(write, written) -> None:
    bars = read_bars(write("005930.csv", ENGLISH + f"{written},1,2,1,2,3\n"))
    assert bars["date"].to_list() == [dt.date(2024, 1, 2)]


@pytest.mark.parametrize("written", ["202412", "2024-13-01", "20240231", "yesterday", "", "2024-01-01 15:00:00+00:00"])
def test_an_unreadable_day_is_refused_with_its_row(write, written) -> None:
    path = write("005930.csv", ENGLISH + f"20240102,1,2,1,2,3\n{written},1,2,1,2,3\n")
    with pytest.raises(ValueError, match=r"005930\.csv: row 3, column date"):
        read_bars(path)


def test_a_folder_takes_codes_from_file_names(write, tmp_path) -> None:
    for name in ("005930.csv", "A000660.csv", "00088K.csv", "035720.KQ.csv"):
        write(f"bars/{name}", ENGLISH + ROWS)
    write("bars/.hidden.csv", "nonsense")
    bars, counts = read_bars_counted(tmp_path / "bars")
    assert set(bars["code"]) == {"005930", "000660", "00088K", "035720"}
    assert counts == {"files": 4, "rows": 8, "rescaled_rows": 0}


def test_a_file_whose_name_is_no_code_is_refused(write) -> None:
    with pytest.raises(ValueError, match="name is no code"):
        read_bars(write("samsung.csv", ENGLISH + ROWS))


def test_a_code_without_its_zeros_is_refused_with_the_example_or_padded(write) -> None:
    path = write("bars.csv", "code," + ENGLISH + "".join(f"5930,{row}\n" for row in ROWS.splitlines()))
    with pytest.raises(ValueError, match="'5930' in row 2 .should be '005930'.*--pad-codes"):
        read_bars(path)
    assert set(read_bars(path, pad_codes=True)["code"]) == {"005930"}


def test_integer_codes_of_a_parquet_file_are_refused_too(tmp_path) -> None:
    bars = {"code": [5930], "date": [20240102], "open": [1], "high": [2], "low": [1], "close": [2], "volume": [3]}
    pl.DataFrame(bars).write_parquet(tmp_path / "bars.parquet")
    with pytest.raises(ValueError, match="lost their zeros"):
        read_bars(tmp_path / "bars.parquet")
    assert read_bars(tmp_path / "bars.parquet", pad_codes=True)["date"][0] == dt.date(2024, 1, 2)


def test_a_pandas_index_without_a_name_is_the_date(tmp_path) -> None:
    pandas = pytest.importorskip("pandas")
    index = pandas.to_datetime(["2024-01-02", "2024-01-03"])
    frame = pandas.DataFrame(
        {"Open": [1, 2], "High": [2, 3], "Low": [1, 2], "Close": [2, 3], "Volume": [5, 6], "Change": [0.1, 0.2]}, index
    )
    frame.to_csv(tmp_path / "005930.csv")
    frame.to_parquet(tmp_path / "000660.parquet")
    bars = read_bars(tmp_path)
    assert bars["date"].to_list() == [dt.date(2024, 1, 2), dt.date(2024, 1, 3)] * 2


def test_the_three_header_lines_of_yfinance_are_one(write) -> None:
    text = (
        "Price,Close,High,Low,Open,Volume\nTicker,005930.KS,005930.KS,005930.KS,005930.KS,005930.KS\nDate,,,,,\n"
        "2024-01-02,70500,71000,69500,70000,1000\n"
    )
    assert read_bars(write("005930.KS.csv", text)).rows() == [
        ("005930", dt.date(2024, 1, 2), 70000, 71000, 69500, 70500, 1000)
    ]


def test_yahoos_adjusted_close_rescales_all_four_prices_and_is_counted(write) -> None:
    text = (
        "Date,Open,High,Low,Close,Adj Close,Volume\n2024-01-02,100,120,90,110,55,7\n2024-01-03,100,120,90,110,110,7\n"
    )
    bars, counts = read_bars_counted(write("005930.KS.csv", text))
    assert bars.drop("code", "date").rows() == [(50, 60, 45, 55, 14), (100, 120, 90, 110, 7)]
    assert counts["rescaled_rows"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "file is empty"),
        (ENGLISH, "no rows"),
        ("Date,Open,High,Low,Close\n20240102,1,2,1,2\n", "missing columns.*volume"),
        (ENGLISH + "20240102,1,2,1,N/A,3\n", "row 2, column close.*got 'N/A'"),
        (ENGLISH + "20240102,1,2\n20240103,1,2,1,2,3,4,5\n", "not a readable CSV"),
    ],
)
def test_a_broken_file_is_named_with_what_is_wrong(write, text, message) -> None:
    with pytest.raises(ValueError, match=r"005930\.csv.*" + message):
        read_bars(write("005930.csv", text))


def test_neither_utf8_nor_cp949_and_no_parquet_are_refused(tmp_path) -> None:
    (tmp_path / "005930.csv").write_bytes(b"D\xff\xfd")
    with pytest.raises(ValueError, match="utf-8, utf-16 nor cp949"):
        read_bars(tmp_path / "005930.csv")
    (tmp_path / "bars.parquet").write_bytes(b"<html>404</html>")
    with pytest.raises(ValueError, match="not a readable parquet"):
        read_bars(tmp_path / "bars.parquet")


def test_nothing_there_and_an_empty_folder_are_refused(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_bars(tmp_path / "gone.csv")
    with pytest.raises(ValueError, match="files ending in"):
        read_bars(tmp_path)


def test_blank_values_are_null_and_tabs_separate_too(write) -> None:
    bars = read_bars(write("005930.csv", ENGLISH.replace(",", "\t") + "20240102\t\t\t\t\t0\n20240103\t1\t2\t1\t2\t3\n"))
    assert bars["open"].to_list() == [None, 1.0]
    assert make_panel(bars)[1].empty_rows == 1


def test_a_korean_listing_is_read(write) -> None:
    text = "회사명,종목코드,업종,시장구분\n삼성전자,005930,통신 및 방송 장비 제조업,KOSPI\n어느스팩,400000,,KOSDAQ\n"
    listing = read_listing(write("listing.csv", text, "cp949"))
    assert listing.columns == ["code", "name", "market", "industry"]
    assert listing.rows()[0] == ("005930", "삼성전자", "KOSPI", "통신 및 방송 장비 제조업")
    assert listing["industry"][1] is None


def test_a_listing_with_a_code_twice_is_refused_and_market_may_be_absent(write) -> None:
    text = "code,name,industry\n005930,a,b\n"
    assert read_listing(write("listing.csv", text))["market"].to_list() == [None]
    with pytest.raises(ValueError, match="more than once"):
        read_listing(write("listing.csv", text + "005930,c,d\n"))
