"""The integrity gate on sectors and on finished dataset folders."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from experiments import check_data
from lasps.data import integrity
from lasps.data.dataset_files import write_description
from lasps.data.datasets.description import SCHEMA_VERSION
from lasps.data.integrity import show
from lasps.data.integrity.dataset import open_dataset
from tests.factories import market, scaled

N, WINDOW, F = 60, 60, 6
BORDERS = {"train": date(2020, 1, 1), "val": date(2021, 1, 1), "test": date(2022, 1, 1)}


def write_dataset(folder: Path, charts: bool = True, seed: int = 0) -> Path:
    """A small dataset as a build writes it, with stored charts."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(2_000, F)).astype(np.float32)
    (folder / "rows").mkdir(parents=True)
    np.save(folder / "rows" / "features.npy", rows)
    for split, first in BORDERS.items():
        (folder / split).mkdir()
        labels, sectors = np.arange(N) % 3, np.arange(N) % 4
        days = [first + timedelta(days=int(d)) for d in np.arange(N) * 5]
        np.save(folder / split / "labels.npy", labels.astype(np.int64))
        np.save(folder / split / "sector_ids.npy", sectors.astype(np.int64))
        np.save(folder / split / "ends.npy", np.arange(N) + WINDOW)
        if charts:
            np.save(folder / split / "chart_images.npy", rng.integers(0, 255, (N, 3, 8, 12), dtype=np.uint8))
        samples = pl.DataFrame(
            {
                "code": [f"{i % 7:06d}" for i in range(N)],
                "date": days,
                "sector": sectors,
                "label": labels,
                "label_end": [d + timedelta(days=7) for d in days],
            }
        )
        samples.write_parquet(folder / split / "samples.parquet")
    names = [f"f{i}" for i in range(F)]
    write_description(
        folder, {"schema_version": SCHEMA_VERSION, "features": names, "window": WINDOW, "sectors": ["a"] * 4}
    )
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "processed")


def change(folder: Path, name: str, edit) -> None:
    path = folder / name
    if path.suffix == ".npy":
        array = np.load(path)
        np.save(path, edit(array))
    else:
        edit(pl.read_parquet(path)).write_parquet(path)


def fatal(folder: Path) -> set[str]:
    return {f.name for f in integrity.check(dataset=folder).fatal}


def test_a_sound_dataset_passes_and_its_pictures_are_drawn(folder: Path, tmp_path: Path) -> None:
    report = integrity.check(dataset=folder)
    assert [f.name for f in report.findings if f.count] == []
    page = integrity.write_html(report, tmp_path / "page.html").read_text("utf-8")
    assert page.count("data:image/png;base64,") == 24 and page.count('class="chart" data-spec=') == 1 and "SELL" in page


def test_label_shares_stand_by_split_year_and_sector(folder: Path) -> None:
    table = integrity.check(dataset=folder)["label_balance"].table
    assert {row["by"] for row in table} == {"split", "year", "sector"}
    assert next(r for r in table if r["value"] == "2020") == {
        "by": "year",
        "value": "2020",
        "n": N,
        "SELL": 0.3333,
        "HOLD": 0.3333,
        "BUY": 0.3333,
    }


def test_constant_labels_are_fatal(folder: Path) -> None:
    change(folder, "val/labels.npy", np.ones_like)
    change(folder, "val/samples.parquet", lambda t: t.with_columns(label=pl.lit(1)))
    finding = integrity.check(dataset=folder)["label_balance"]
    assert finding.severity == "fatal" and finding.examples[0][0] == "split val"


def test_all_samples_in_one_sector_are_fatal(folder: Path) -> None:
    for split in BORDERS:
        change(folder, f"{split}/sector_ids.npy", np.zeros_like)
    assert "sample_sectors" in fatal(folder)


def test_labels_that_differ_from_the_samples_are_fatal(folder: Path) -> None:
    change(folder, "test/labels.npy", lambda a: a[::-1].copy())
    finding = integrity.check(dataset=folder)["array_agreement"]
    assert finding.severity == "fatal" and "label differs from samples.parquet" in finding.examples[0][2]


def test_arrays_of_another_length_are_fatal(folder: Path) -> None:
    change(folder, "train/sector_ids.npy", lambda a: a[:-1])
    assert fatal(folder) == {"array_agreement"}


def test_a_sample_in_two_splits_is_fatal(folder: Path) -> None:
    first = pl.read_parquet(folder / "train/samples.parquet").row(5)
    change(folder, "val/samples.parquet", lambda t: pl.concat([pl.DataFrame([first], t.schema, orient="row"), t[1:]]))
    finding = integrity.check(dataset=folder)["split_overlap"]
    assert (finding.count, finding.severity) == (1, "fatal")
    assert finding.examples[0][2] == "2 times, in train and val"


def test_a_label_that_ends_in_the_next_split_is_fatal(folder: Path) -> None:
    last = pl.int_range(pl.len()) == N - 1
    end = pl.when(last).then(pl.lit(BORDERS["val"])).otherwise(pl.col("label_end"))
    change(folder, "train/samples.parquet", lambda t: t.with_columns(label_end=end))
    finding = integrity.check(dataset=folder)["label_leaks"]
    assert (finding.count, finding.severity) == (1, "fatal") and "label ends 2021-01-01" in finding.examples[0][2]


def test_constant_missing_and_duplicated_features_are_named(folder: Path) -> None:
    def edit(x: np.ndarray) -> np.ndarray:
        x[:, 0], x[:1_500, 1], x[:, 3] = 2.5, 0, -3 * x[:, 2] + 1
        return x

    change(folder, "rows/features.npy", edit)
    report = integrity.check(dataset=folder)
    assert [e[0] for e in report["feature_values"].examples] == ["f0", "f1"]
    assert report["duplicated_features"].examples == (("f2 ~ f3", "", "r = -1.00000"),)
    assert report.fatal == []


def test_features_that_are_not_finite_or_all_constant_are_fatal(folder: Path) -> None:
    change(folder, "rows/features.npy", np.zeros_like)
    assert "feature_values" in fatal(folder)
    change(folder, "rows/features.npy", lambda x: np.where(np.arange(len(x))[:, None] == 0, np.nan, x))
    assert "feature_values" in fatal(folder)


def test_a_blank_chart_is_fatal_and_its_index_named(folder: Path) -> None:
    def edit(charts: np.ndarray) -> np.ndarray:
        charts[[17, 41]] = 0
        return charts

    change(folder, "val/chart_images.npy", edit)
    finding = integrity.check(dataset=folder)["blank_charts"]
    assert (finding.severity, finding.count, finding.n_checked) == ("fatal", 2, 3 * N)
    assert [e[0] for e in finding.examples] == ["val[17]", "val[41]"]


def test_charts_made_on_demand_are_drawn_and_looked_at(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "processed", charts=False)
    close = 1_000 * np.exp(np.cumsum(np.random.default_rng(1).normal(0, 0.02, 2_000)))
    bars = np.stack([close, close * 1.01, close * 0.99, close * 1.003, np.full(2_000, 5e4)], 1).astype(np.float32)
    np.save(folder / "rows" / "bars.npy", bars)
    report = integrity.check(dataset=folder)
    assert (report["blank_charts"].n_checked, report["blank_charts"].count) == (3 * N, 0)
    caption, picture = report.plot_data["charts"][0]
    assert caption == "000000 2020-01-01 SELL" and picture.shape == (96, 180, 3) and picture.max() > 0


def test_a_foreign_dataset_of_bare_arrays_is_checked_as_far_as_it_goes(tmp_path: Path) -> None:
    folder = tmp_path / "foreign" / "train"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    np.save(folder / "labels.npy", rng.integers(0, 3, 30))
    np.save(folder / "sector_ids.npy", np.arange(30) % 20)
    np.save(folder / "time_series.npy", rng.normal(size=(30, 60, 5)).astype(np.float32))
    np.save(folder / "chart_images.npy", np.zeros((30, 3, 4, 4), np.float32))
    report = integrity.check(dataset=folder.parent)
    assert [f.name for f in report.fatal] == ["blank_charts"]
    assert "no samples.parquet" in report["split_overlap"].summary


def test_a_folder_that_is_no_dataset_and_a_torn_array_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="make data"):
        open_dataset(tmp_path / "nothing")
    (folder / "train" / "labels.npy").write_bytes(b"\x93NUMPY\x01\x00")
    with pytest.raises(ValueError, match=r"labels\.npy: expected a NumPy array"):
        open_dataset(folder)


# --- listing and sectors ---------------------------------------------------------------------------------------


def listing(raw: pl.DataFrame, industry: str | None = "의약품 제조업") -> pl.DataFrame:
    codes = raw["code"].unique().sort()
    return pl.DataFrame(
        {
            "code": codes,
            "name": "회사",
            "market": "KOSPI",
            "industry": pl.Series([industry] * len(codes), dtype=pl.String),
        }
    )


def test_codes_without_industry_are_counted_and_a_foreign_listing_is_fatal() -> None:
    raw = market()
    known = listing(raw)
    some = integrity.check(listing=known[1:], raw=raw)["codes_without_industry"]
    assert (some.severity, some.count, some.examples[0]) == ("warning", 1, ("000010", "", "not in the listing"))
    other = integrity.check(listing=known.with_columns(pl.col("code").str.strip_chars("0")), raw=raw)
    assert other["codes_without_industry"].severity == "fatal"


def test_an_industry_without_sector_is_named() -> None:
    raw = market()
    names = listing(raw).with_columns(
        industry=pl.when(pl.col("code") == "000010").then(pl.lit("화성 이주업")).otherwise("industry")
    )
    finding = integrity.check(listing=names, raw=raw)["industries_without_sector"]
    assert (finding.severity, finding.count) == ("warning", 1) and finding.examples[0][2] == "화성 이주업: 1 stocks"


def with_sectors(sectors: list[int | None]) -> pl.DataFrame:
    raw = market(n_stocks=len(sectors), n_days=70)
    codes = raw["code"].unique().sort().to_list()
    mapping = pl.DataFrame({"code": codes, "sector": sectors}, schema_overrides={"sector": pl.Int16})
    return raw.join(mapping, on="code", maintain_order="left")


@pytest.mark.parametrize(
    ("sectors", "severity"),
    [
        ([7] * 20, "fatal"),
        ([7] * 12 + list(range(8)), "fatal"),
        ([7] * 8 + list(range(12)), "warning"),
        (list(range(20)), "info"),
    ],
)
def test_a_sector_that_holds_most_of_the_market_is_fatal(sectors: list[int | None], severity: str) -> None:
    finding = integrity.check(with_sectors(sectors))["dominant_sector"]
    assert finding.severity == severity
    assert ("all stocks are in one sector" in finding.summary) == (len(set(sectors)) == 1)


def test_small_and_empty_sectors_are_listed_with_their_sizes() -> None:
    finding = integrity.check(with_sectors([*range(19), 0]))["small_sectors"]
    assert finding.count == 20 and "1 of them empty" in finding.summary
    assert finding.table[0] == {"sector": 0, "stocks": 2}


def test_sector_sizes_are_in_the_report_even_when_nothing_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lasps.data.integrity.listing.MIN_SECTOR_STOCKS", 1)
    report = integrity.check(with_sectors(list(range(20))))
    assert report["small_sectors"].count == 0 and len(report["small_sectors"].table) == 20
    assert [f.title for f in show.report_plots(report)] == ["Coverage", "Daily moves", "Sectors"]


@pytest.mark.parametrize("bad", [None, 20, -1])
def test_a_stock_without_one_sector_of_the_twenty_is_fatal(bad: int | None) -> None:
    finding = integrity.check(with_sectors([bad, *range(19)]))["sector_values"]
    assert (finding.severity, finding.count, finding.examples[0][0]) == ("fatal", 1, "000010")


# --- the command -----------------------------------------------------------------------------------------------


def run_check(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr("sys.argv", ["check_data.py", *map(str, arguments)])
    check_data.main()


def test_the_command_prints_writes_and_stops_at_fatal_findings(tmp_path: Path, monkeypatch, capsys) -> None:
    raw = market()
    listing(raw).write_csv(tmp_path / "listing.csv")
    scaled(raw, "000040", 70, 0.3).write_parquet(tmp_path / "bars.parquet")
    out = {"--html": tmp_path / "i.html", "--json": tmp_path / "i.json", "--suggest-repairs": tmp_path / "r.json"}
    base = ["--source", tmp_path / "bars.parquet", *(x for pair in out.items() for x in pair)]
    with pytest.raises(ValueError, match="scale_breaks"):
        run_check(monkeypatch, *base)
    assert "FATAL" in capsys.readouterr().out
    assert all(path.exists() for path in out.values())
    run_check(monkeypatch, *base, "--waive", "scale_breaks", "limit_moves")
    assert json.loads((tmp_path / "i.json").read_text())["waived"] == ["scale_breaks", "limit_moves"]
    run_check(monkeypatch, *base[:4], "--repairs", tmp_path / "r.json")
    with pytest.raises(ValueError, match="no check is named nonsense"):
        run_check(monkeypatch, *base, "--waive", "nonsense")


def test_the_command_checks_a_finished_dataset(folder: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    run_check(monkeypatch, "--data-dir", folder, "--html", tmp_path / "i.html")
    assert "0 fatal" in capsys.readouterr().out
