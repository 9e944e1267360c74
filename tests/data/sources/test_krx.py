"""The KRX download, against replies of finance-datareader 0.9.202's real shape and a loopback server; no network."""

from __future__ import annotations

import io
import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import date, datetime, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from experiments import download_krx
from lasps.config.clock import SEOUL
from lasps.data.sources import krx, krx_requests
from lasps.data.sources.krx_adjustments import compare_adjustment
from lasps.data.sources.krx_requests import DownloadError, explain, to_bars, to_listing

CODES = ["000020", "0009K0", "005930"]
TODAY = date(2024, 3, 4)


def naver_frame(code: str, start: str = "2024-01-01", end: str = "2024-03-01", scale: float = 1.0) -> pd.DataFrame:
    """Index Date; Open High Low Close Volume int64, Change float64; a halted day is open = high = low = 0."""
    days = pd.bdate_range("2023-11-01", "2024-04-30", name="Date")
    rng = np.random.default_rng(int(code[:4]))
    close = (np.round(10_000 * np.exp(np.cumsum(rng.normal(0, 0.02, len(days))))) * scale).astype(np.int64)
    frame = pd.DataFrame(
        {
            "Open": close,
            "High": close + 50,
            "Low": close - 50,
            "Close": close,
            "Volume": rng.integers(1, 10**6, len(days)),
        },
        index=days,
    )
    frame.iloc[60, [0, 1, 2, 4]] = 0
    frame["Change"] = frame["Close"].pct_change()
    return frame.loc[start:end]


def krx_listing(market: str) -> pd.DataFrame:
    names, sections = ["동화약품", "신형", "삼성전자", "코넥스"], ["KOSPI", "KOSDAQ", "KOSPI", "KONEX"]
    if market == "KRX":
        return pd.DataFrame(
            {
                "Code": [*CODES, "900001"],
                "ISU_CD": "KR7",
                "Name": names,
                "Market": sections,
                "Dept": "",
                "Close": "9000",
                "Volume": 1,
                "MarketId": "STK",
            }
        )
    assert market == "KRX-DESC"
    return pd.DataFrame(
        {
            "Code": CODES,
            "Name": names[:3],
            "Market": sections[:3],
            "Sector": ["의약품 제조업", np.nan, "통신 및 방송 장비 제조업"],
            "Industry": ["의약품", "무엇", "반도체, 휴대폰"],
            "ListingDate": pd.NaT,
        }
    )


def pull(folder: Path, reader=naver_frame, day: date = TODAY, **more):
    """A pull in the evening of a day in Seoul."""
    evening = datetime.combine(day, time(18), SEOUL)
    given = {"listing_reader": krx_listing, "pause_s": 0.0, "now": lambda: evening, **more}
    start, end = given.pop("start", "2024-01-01"), given.pop("end", "2024-03-01")
    return krx.download(start, end, folder, reader=reader, **given)


def failing(error: Exception | None, codes: tuple[str, ...] = ("005930",)):
    """A reader that raises `error` for these codes, or answers an empty frame."""

    def read(code: str, start: str, end: str) -> pd.DataFrame:
        if code not in codes:
            return naver_frame(code, start, end)
        if error is None:
            print(f'"{code}" invalid symbol or has no data')
            return pd.DataFrame()
        raise error

    return read


def test_a_pull_writes_listing_bars_and_manifest(tmp_path: Path) -> None:
    result = pull(tmp_path)
    assert result.ok and result.fetched == CODES
    bars = pl.read_parquet(tmp_path / "bars.parquet")
    assert bars.columns == ["code", "date", "open", "high", "low", "close", "volume"]
    assert bars["code"].unique().sort().to_list() == CODES
    assert bars["date"].min() == date(2024, 1, 1) and bars["date"].max() == date(2024, 3, 1)
    halted = bars.filter(pl.col("volume") == 0)
    assert halted["open"].to_list() == [0.0] * 3 and (halted["close"] > 0).all()
    listing = pl.read_csv(tmp_path / "listing.csv", schema_overrides={"code": pl.String})
    assert listing.columns == ["code", "name", "market", "industry", "first_seen", "last_seen"]
    assert dict(listing.select("code", "industry").iter_rows())["005930"] == "통신 및 방송 장비 제조업"
    manifest = json.loads((tmp_path / "manifest.json").read_text("utf-8"))["pulls"]
    assert manifest[0]["name"] == "2024-03-04" and manifest[0]["complete"] and set(manifest[0]["files"]) == set(CODES)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (None, "an empty reply"),
        (urllib.error.HTTPError("http://x", 404, "Not Found", {}, None), "HTTP 404"),  # type: ignore[arg-type]
        (json.JSONDecodeError("Expecting value", "<html>", 0), "no JSON, often an HTML page"),
        (ConnectionRefusedError(111, "Connection refused"), "no connection"),
        (urllib.error.URLError("refused"), "no connection"),
        (UnboundLocalError("cannot access local variable 'r'"), "no connection"),
        (KeyError("OutBlock_1"), "could not read the reply .*OutBlock_1.* pip install -U"),
        (ValueError("Failed to load data from http://x"), "reply could not be read"),
        (RuntimeError("odd"), "RuntimeError: odd"),
    ],
)
def test_an_error_becomes_a_sentence_that_names_the_codes_and_the_rest_stays(
    tmp_path: Path, error: Exception | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = pull(tmp_path, failing(error))
    assert not result.ok and list(result.failed) == ["005930"] and result.fetched == ["000020", "0009K0"]
    assert re.search(message, result.failed["005930"])
    assert re.search("Failed, 1: .*: 005930", result.summary())
    assert pl.read_parquet(tmp_path / "bars.parquet")["code"].n_unique() == 2
    assert "invalid symbol" not in capsys.readouterr().out
    if isinstance(error, urllib.error.HTTPError):
        error.close()


def test_the_same_call_fetches_only_what_is_missing(tmp_path: Path) -> None:
    pull(tmp_path, failing(None))
    asked: list[str] = []
    result = pull(tmp_path, lambda code, start, end: asked.append(code) or naver_frame(code, start, end))
    assert asked == ["005930"] and result.ok and len(result.kept) == 2
    assert len(json.loads((tmp_path / "manifest.json").read_text())["pulls"]) == 1


def test_ctrl_c_leaves_a_pull_that_goes_on_and_equals_one_in_one_piece(tmp_path: Path) -> None:
    def interrupted(code: str, start: str, end: str) -> pd.DataFrame:
        if code == "005930":
            raise KeyboardInterrupt
        return naver_frame(code, start, end)

    with pytest.raises(KeyboardInterrupt):
        pull(tmp_path / "a", interrupted)
    assert not json.loads((tmp_path / "a" / "manifest.json").read_text())["pulls"][0]["complete"]
    later = pull(tmp_path / "a", day=date(2024, 3, 5))  # what was fetched the day before is not asked for again
    assert (later.fetched, sorted(later.kept)) == (["005930"], ["000020", "0009K0"])
    pull(tmp_path / "b")
    whole, pieces = (pl.read_parquet(tmp_path / f / "bars.parquet") for f in "ba")
    assert whole.equals(pieces)


def test_a_stock_that_always_fails_does_not_hold_up_newer_days(tmp_path: Path) -> None:
    first = pull(tmp_path, failing(None), end=None)
    same_day = pull(tmp_path, failing(None), end=None)
    later = pull(tmp_path, failing(None), end=None, day=date(2024, 3, 11))
    assert (first.pull, same_day.pull, later.pull) == ("2024-03-04", "2024-03-04", "2024-03-11")
    assert (same_day.fetched, sorted(later.fetched)) == ([], ["000020", "0009K0"])
    assert pl.read_parquet(tmp_path / "bars.parquet")["date"].max() == date(2024, 3, 11)


def test_those_whose_days_end_earliest_are_asked_first_so_that_interrupted_pulls_reach_every_stock(
    tmp_path: Path,
) -> None:
    asked: list[str] = []

    def twice(code: str, start: str, end: str) -> pd.DataFrame:
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(code)
        return naver_frame(code, start, end)

    for day in (4, 5, 6):
        asked.clear()
        with pytest.raises(KeyboardInterrupt):
            pull(tmp_path, twice, end=None, day=date(2024, 3, day))
        assert asked == {4: ["000020", "0009K0"], 5: ["005930", "000020"], 6: ["0009K0", "000020"]}[day]


def test_files_of_a_killed_run_are_known_again(tmp_path: Path) -> None:
    pull(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["pulls"][0] |= {"files": {}, "complete": False, "finished": False}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert pull(tmp_path).kept == CODES
    assert set(json.loads((tmp_path / "manifest.json").read_text())["pulls"][0]["files"]) == set(CODES)


def test_a_new_pull_writes_new_files_and_reports_a_changed_adjustment_stock_by_stock(tmp_path: Path) -> None:
    pull(tmp_path, end="2024-02-09")
    before = {p: p.read_bytes() for p in tmp_path.glob("*/**/*.parquet")}

    def split(code: str, start: str, end: str) -> pd.DataFrame:
        frame = naver_frame(code, start, end)
        if code == "005930":  # a 5:1 split on 2024-02-15: all closes before it are a fifth now
            frame.loc[:"2024-02-14", ["Open", "High", "Low", "Close"]] //= 5
        return frame

    result = pull(tmp_path, split, day=date(2024, 3, 5))
    assert all(p.read_bytes() == content for p, content in before.items()) and len(before) == 3
    assert [c.code for c in result.changes] == ["005930"]
    change = result.changes[0]
    assert change.ratio == pytest.approx(0.2, rel=0.001) and (change.first, change.last) == ("2024-01-01", "2024-02-09")
    assert "Adjustment changed: 005930 closes x 0.2 from 2024-01-01 to 2024-02-09" in result.summary()
    manifest = json.loads((tmp_path / "manifest.json").read_text())["pulls"]
    assert [p["name"] for p in manifest] == ["2024-03-04", "2024-03-05"]
    assert manifest[1]["changes"][0]["code"] == "005930"


def test_rounding_by_a_won_is_no_changed_adjustment() -> None:
    old = to_bars("000020", naver_frame("000020"))
    assert compare_adjustment("000020", old, old.with_columns(pl.col("close") + 1)) is None
    assert compare_adjustment("000020", None, old) is None


def test_many_failures_in_a_row_stop_the_pull(tmp_path: Path) -> None:
    listing = krx_listing("KRX").drop(index=3)
    many = pd.concat([listing] * 8, ignore_index=True).assign(Code=[f"{i:06d}" for i in range(24)], Market="KOSPI")
    result = pull(
        tmp_path,
        failing(ConnectionResetError(), tuple(many["Code"][4:])),
        attempts=1,
        stop_after=5,
        listing_reader=lambda market: many if market == "KRX" else krx_listing(market),
    )
    assert (len(result.fetched), len(result.failed), len(result.not_tried)) == (4, 5, 15)
    assert "Run the same command again" in result.summary()


class StoppedTime:
    """In the place of `time`: goes on only when someone sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_requests_keep_their_distance_and_are_tried_again(tmp_path: Path, monkeypatch) -> None:
    asked: list[float] = []
    clock = StoppedTime()
    monkeypatch.setattr(krx_requests, "time", clock)

    def flaky(code: str, start: str, end: str) -> pd.DataFrame:
        asked.append(clock.now)
        if len(asked) % 2:
            raise ConnectionResetError
        return naver_frame(code, start, end)

    assert pull(tmp_path, flaky, pause_s=0.5).ok
    assert np.diff(asked).tolist() == pytest.approx([0.5, 1.0, 0.5, 1.0, 0.5])  # longer after a second attempt


def test_a_reply_that_never_comes_is_an_error_and_no_hang(tmp_path: Path) -> None:
    never = threading.Event()
    waiting = lambda code, start, end: never.wait(5) or naver_frame(code)  # noqa: E731
    result = pull(tmp_path, waiting, codes=["005930"], timeout_s=0.3, attempts=1)
    never.set()
    assert "no reply in time" in result.failed["005930"]


def test_a_listing_that_fails_stops_the_first_pull_and_is_taken_from_an_earlier_one_later(tmp_path: Path) -> None:
    def gone(market: str) -> pd.DataFrame:
        raise KeyError("result")

    with pytest.raises(DownloadError, match="listing could not be read.*Nothing was downloaded"):
        pull(tmp_path / "new", listing_reader=gone)
    pull(tmp_path / "old")
    assert pull(tmp_path / "old", listing_reader=gone, day=date(2024, 3, 6), end="2024-03-02").ok


def test_kosdaq_holds_its_global_segment_and_konex_is_left_out(tmp_path: Path) -> None:
    renamed = lambda market: krx_listing(market).replace({"KOSDAQ": "KOSDAQ GLOBAL"})  # noqa: E731
    assert pull(tmp_path / "all", listing_reader=renamed).fetched == CODES
    assert pull(tmp_path / "one", listing_reader=renamed, markets=("KOSDAQ",)).fetched == ["0009K0"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"start": "01.01.2024"}, "expected a date as"),
        ({"start": "2024-06-01"}, "lies after end"),
        ({"markets": ["NYSE"]}, "no stock of the markets NYSE in the listing, which has KONEX, KOSDAQ, KOSPI"),
        ({"listing_reader": lambda market: krx_listing(market).assign(Code=20)}, "not 6 characters long: '20'"),
        ({"listing_reader": lambda market: krx_listing("KRX")}, "KRX-DESC has no Sector, but Code"),
        ({"listing_reader": lambda market: pd.DataFrame()}, "the listing KRX is empty"),
    ],
)
def test_wrong_dates_and_listings_are_refused(tmp_path: Path, given: dict[str, object], message: str) -> None:
    with pytest.raises(DownloadError, match=message):
        pull(tmp_path, **given)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (naver_frame("000020").drop(columns="Volume"), "has no Volume, but Open"),
        (naver_frame("000020").reset_index(drop=True), "not indexed by dates"),
        (pd.concat([naver_frame("000020")] * 2), "2024-01-01 twice"),
    ],
)
def test_replies_of_another_shape_are_refused(frame: pd.DataFrame, message: str) -> None:
    with pytest.raises(DownloadError, match=message):
        to_bars("000020", frame)


def test_missing_values_stay_missing_and_rows_are_sorted() -> None:
    frame = naver_frame("000020").astype("float64").iloc[::-1]
    frame.iloc[0, 4] = np.nan
    bars = to_bars("000020", frame)
    assert bars["date"].is_sorted() and bars["volume"].null_count() == 1 and bars["volume"].dtype == pl.Int64
    assert bars.height == len(frame)


def test_the_industry_is_the_column_sector_of_the_description() -> None:
    listing = to_listing(krx_listing("KRX"), krx_listing("KRX-DESC"))
    assert listing.filter(pl.col("code") == "0009K0")["industry"].to_list() == [None]
    assert "반도체, 휴대폰" not in listing["industry"].to_list()


def test_without_the_library_the_message_says_how_to_install_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "FinanceDataReader", None)
    with pytest.raises(DownloadError, match=r'pip install "lasps\[krx\]"'):
        krx.download("2024-01-01", None, tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


def test_a_manifest_that_is_none_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="move the manifest away"):
        pull(tmp_path)
    assert (tmp_path / "manifest.json").read_text() == "{}"


# --- a server on loopback, read as the library reads its own ----------------------------------------------------


class _Naver(BaseHTTPRequestHandler):
    """Answers as the chart server does; 404 and HTML where the path asks for it."""

    def do_GET(self) -> None:
        code = self.path.rsplit("=", 1)[-1]
        rows = "".join(
            f'<item data="{day:%Y%m%d}|{r.Open}|{r.High}|{r.Low}|{r.Close}|{r.Volume}" />\n'
            for day, r in naver_frame("000020").iterrows()
        )
        status, body = {"404404": (404, "<html>없음</html>"), "111111": (200, "<html>점검</html>")}.get(
            code, (200, rows)
        )
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode("euc-kr"))

    def log_message(self, *_: object) -> None:
        return None


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Naver) as http:
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def http_reader(url: str):
    """What the library does with a chart page: items by pattern, an empty frame where there are none."""

    def read(code: str, start: str, end: str) -> pd.DataFrame:
        try:
            with urllib.request.urlopen(f"{url}/sise?symbol={code}", timeout=5) as reply:
                text = reply.read().decode("euc-kr")
        except urllib.error.HTTPError as error:
            error.close()
            raise
        if code.startswith("7"):
            json.loads("<html>")
        items = re.findall(r'<item data="(.*?)" />', text)
        if not items:
            return pd.DataFrame()
        frame = pd.read_csv(io.StringIO("\n".join(items)), delimiter="|", header=None, dtype={0: str})
        frame.columns = ["Date", "Open", "High", "Low", "Close", "Volume"]
        return frame.assign(Date=pd.to_datetime(frame["Date"], format="%Y%m%d")).set_index("Date").loc[start:end]

    return read


def test_404_html_and_a_closed_port_on_loopback_become_messages(tmp_path: Path, server: str) -> None:
    codes = ["000020", "404404", "111111", "777777"]
    result = pull(tmp_path, http_reader(server), codes=codes, attempts=1)
    assert result.fetched == ["000020"], result.failed
    assert pl.read_parquet(tmp_path / "bars.parquet").height == 45
    assert "HTTP 404" in result.failed["404404"] and "empty reply" in result.failed["111111"]
    assert "no JSON" in result.failed["777777"]
    closed = pull(tmp_path, http_reader("http://127.0.0.1:9"), codes=["000021"], attempts=1)
    assert "no connection" in closed.failed["000021"]


def run_script(monkeypatch: pytest.MonkeyPatch, folder: Path, download) -> int:
    monkeypatch.setattr(krx, "download", download)
    monkeypatch.setattr("sys.argv", ["download_krx.py", "--start", "2024-01-01", "--folder", str(folder)])
    return download_krx.main()


def test_the_command_ends_with_0_1_or_130(tmp_path: Path, monkeypatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    whole, part = pull(tmp_path / "a"), pull(tmp_path / "b", failing(None))
    assert run_script(monkeypatch, tmp_path, lambda *_, **__: whole) == 0
    assert run_script(monkeypatch, tmp_path, lambda *_, **__: part) == 1
    assert run_script(monkeypatch, tmp_path, interrupt) == 130


def test_an_unknown_error_keeps_its_first_line() -> None:
    assert explain(RuntimeError("first\nsecond")) == "RuntimeError: first"
