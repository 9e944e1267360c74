"""A dataset on disk: what is in it, how it gets there, and what never happens to the one that stood there."""

import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lasps.data import build
from lasps.data.build import build_dataset
from lasps.data.datasets.description import load_split, read_description
from lasps.data.extension import extend_dataset
from lasps.data.features import compute_features
from lasps.data.labels import make_labels
from lasps.data.sampling import choose_samples
from lasps.data.scaling import RobustScaler
from lasps.data.spec import DatasetSpec
from lasps.data.splits import Borders
from tests.factories import BORDERS, DAYS, FEW_FEATURES, small_panel

SOURCE = {"name": "made up", "fetched": "2020-12-31", "universe": "common"}
SPLITS = ("train", "val", "test")


def make(out_dir, panel=None, **options):
    of_spec = {name: options.pop(name) for name in list(options) if name in DatasetSpec.__dataclass_fields__}
    spec = DatasetSpec(**{"borders": BORDERS, "features": FEW_FEATURES, "chart_size": (20, 180)} | of_spec)
    return build_dataset(small_panel() if panel is None else panel, out_dir, spec, **{"source": SOURCE} | options)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "processed"
    description = make(folder)
    return folder, description


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def keys(folder, split):
    return load_split(folder, split).samples.select("code", "date")


def test_a_sample_lies_in_its_split_with_its_window_end_and_its_label_end(built):
    folder, _ = built
    tables = {split: load_split(folder, split).samples for split in SPLITS}
    for split, table in tables.items():
        first, last = BORDERS.span(split)
        assert table["date"].min() >= first and table["label_end"].max() <= last
    assert tables["train"]["label_end"].max() < tables["val"]["date"].min()
    assert tables["val"]["label_end"].max() < tables["test"]["date"].min()
    every = pl.concat(table.select("code", "date") for table in tables.values())
    assert not every.is_duplicated().any()


def test_the_samples_of_one_stock_are_these_days_exactly(built):
    folder, _ = built
    days = {split: keys(folder, split).filter(code="000050")["date"].to_list() for split in SPLITS}
    assert days == {"train": DAYS[59:145], "val": DAYS[150:185], "test": DAYS[190:235]}


def test_a_stock_that_is_too_short_has_no_sample_and_a_delisted_one_is_kept_to_its_end(built):
    folder, description = built
    assert "000020" not in keys(folder, "test")["code"].to_list()
    delisted = load_split(folder, "test").samples.filter(code="000030")
    assert delisted["date"].max() == DAYS[199] and delisted["label_cut_short"].sum() == 5
    assert description["left_out"]["short_history"] == 40 + 9 * 59


def test_labels_sectors_and_returns_come_from_the_panel(built):
    folder, _ = built
    panel = small_panel()
    table = panel.select("code", "date", "close").hstack(make_labels(panel))
    for split in SPLITS:
        dataset = load_split(folder, split)
        expected = dataset.samples.select("code", "date").join(table, on=["code", "date"], how="left")
        np.testing.assert_array_equal(dataset.labels, expected["label"].to_numpy())
        np.testing.assert_array_equal(dataset.samples["forward_return"], expected["forward_return"])
        np.testing.assert_array_equal(dataset.sector_ids, dataset.samples["code"].cast(pl.Int64).to_numpy() // 10 - 1)
    row = load_split(folder, "val").samples.row(0, named=True)
    closes = panel.filter(pl.col("code") == row["code"], pl.col("date") <= row["date"])["close"].to_numpy()[-21:]
    assert row["volatility_20"] == pytest.approx(np.diff(np.log(closes)).std(ddof=1), rel=1e-9)


def test_the_description_counts_what_is_there_and_is_what_build_returned(built):
    folder, description = built
    assert read_description(folder) == json.loads(json.dumps(description))
    for split in SPLITS:
        dataset, counts = load_split(folder, split), description["counts"][split]
        assert counts["n"] == len(dataset) == sum(counts["classes"].values()) == sum(counts["sectors"])
        assert list(counts["classes"].values()) == np.bincount(dataset.labels, minlength=3).tolist()
    train = load_split(folder, "train").labels
    assert description["train_class_frequencies"] == pytest.approx(np.bincount(train, minlength=3) / len(train))
    assert description["source"] == SOURCE and description["universe"] == "common"
    assert description["features"] == list(FEW_FEATURES) and len(description["sectors"]) == 20


def test_the_scaler_sees_the_rows_of_train_windows_and_no_others(built):
    _, description = built
    panel = small_panel()
    ends = choose_samples(panel, make_labels(panel), DatasetSpec(borders=BORDERS)).ends["train"]
    rows = np.unique(np.concatenate([np.arange(end - 59, end + 1) for end in ends]))
    expected = RobustScaler.fit(compute_features(panel, FEW_FEATURES)[rows], FEW_FEATURES)
    assert description["scaler"] == expected.to_dict()
    assert panel["date"][rows].max() <= BORDERS.train_end


def test_train_is_the_same_to_the_last_bit_whatever_happens_after_its_end(tmp_path, built):
    folder, description = built
    later = pl.col("date") > BORDERS.train_end
    rng = np.random.default_rng(1)
    noise = pl.Series(rng.uniform(0.5, 2, small_panel().height))
    changed = (
        small_panel()
        .with_columns([pl.when(later).then(pl.col(c) * noise).otherwise(c) for c in ("open", "high", "low", "close")])
        .filter(~(later & (pl.col("code") == "000040")))
    )
    other = make(tmp_path / "other", changed)
    assert other["scaler"] == description["scaler"]
    ours, theirs = load_split(folder, "train"), load_split(tmp_path / "other", "train")
    sees_one_day_further = "forward_return_skip1"  # close t+1 -> t+6, for scores alone
    same, other_samples = ours.samples.drop(sees_one_day_further), theirs.samples.drop(sees_one_day_further)
    assert [name for name in same.columns if not same[name].equals(other_samples[name])] == []
    for a, b in zip(ours.batch(range(len(ours))), theirs.batch(range(len(theirs))), strict=True):
        assert a.equal(b)


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("day", [105, 120, 170, 201, 215])
def test_the_samples_known_at_a_day_do_not_depend_on_later_bars(day, stride):
    borders = Borders(DAYS[80], DAYS[81], DAYS[92], DAYS[93], DAYS[239])
    panel = small_panel()

    def known(bars):
        labels = make_labels(bars)
        spec = DatasetSpec(borders=borders, window=20, stride=stride, train_fraction=0.5)
        ends = choose_samples(bars, labels, spec).ends
        labelled = bars.select("code", "date").hstack(labels)
        table = pl.concat(labelled[rows].with_columns(split=pl.lit(name)) for name, rows in ends.items())
        # a stock that looks delisted at `day` may trade again later: its last labels are provisional, and flagged so
        table = table.filter((pl.col("label_end") <= DAYS[day]) & ~pl.col("label_cut_short"))
        return set(table.select("code", "date", "label", "split").rows())

    whole = known(panel)
    assert len(whole) > 100
    for later in (pl.lit(False), pl.col("code") != "000040", pl.col("date").dt.day() != 3):  # none, one gone, some gone
        assert known(panel.filter((pl.col("date") <= DAYS[day]) | later)) == whole


def test_stride_takes_every_kth_row_of_a_stock_on_days_that_differ_between_stocks():
    panel = small_panel()
    labels = make_labels(panel)
    every = choose_samples(panel, labels, DatasetSpec(borders=BORDERS)).ends
    thinned = choose_samples(panel, labels, DatasetSpec(borders=BORDERS, stride={"train": 4, "val": 1, "test": 2}))
    assert set(thinned.ends["train"]) < set(every["train"])
    np.testing.assert_array_equal(thinned.ends["val"], every["val"])
    codes = panel["code"].to_numpy()
    train = thinned.ends["train"]
    steps = np.diff(train)[codes[train[1:]] == codes[train[:-1]]]
    assert set(steps) == {4}
    assert len({panel["date"][int(train[codes[train] == code][0])] for code in np.unique(codes[train])}) > 1
    assert thinned.left_out["train_stride"] == len(every["train"]) - len(train)


def test_train_fraction_thins_train_by_code_and_day_and_nothing_else():
    panel = small_panel()
    labels = make_labels(panel)
    every, third = (
        choose_samples(panel, labels, DatasetSpec(borders=BORDERS, train_fraction=f)).ends for f in (1.0, 0.3)
    )
    fewer = choose_samples(
        panel.filter(pl.col("code") != "000050"),
        labels.filter(panel["code"] != "000050"),
        DatasetSpec(borders=BORDERS, train_fraction=0.3),
    ).ends
    assert 0.2 < len(third["train"]) / len(every["train"]) < 0.4
    assert len(third["val"]) == len(every["val"]) and len(third["test"]) == len(every["test"])
    rest = panel.filter(pl.col("code") != "000050").select("code", "date")[fewer["train"]]
    assert rest.equals(panel.select("code", "date")[third["train"]].filter(pl.col("code") != "000050"))


def test_warm_up_asks_for_more_history(built):
    panel = small_panel()
    ends = choose_samples(panel, make_labels(panel), DatasetSpec(borders=BORDERS, warm_up=20)).ends["train"]
    assert panel.filter(pl.col("code") == "000050")["date"][79] == panel[ends].filter(code="000050")["date"].min()


def test_names_and_the_oracles_probabilities_stand_beside_the_samples(tmp_path):
    class Truth:
        def __init__(self, n):
            self.probabilities = np.tile([0.2, 0.5, 0.3], (n, 1)) + np.arange(n)[:, None] * 1e-9

    listing = pl.DataFrame({"code": ["000050", "000010"], "name": ["five", "one"]})
    make(tmp_path / "d", listing=listing, oracle=lambda codes, dates: Truth(len(dates)))
    table = load_split(tmp_path / "d", "val").samples
    assert table.filter(code="000050")["name"].unique().to_list() == ["five"]
    np.testing.assert_allclose(table["oracle_p_buy"], 0.3 + np.arange(table.height) * 1e-9)


def test_an_identical_dataset_is_left_alone_and_another_one_needs_force(tmp_path):
    out = tmp_path / "d"
    first = make(out)
    (out / "notes.txt").write_text("mine")
    before, stamp = contents(out), (out / "rows" / "features.npy").stat().st_mtime_ns
    assert make(out, source=SOURCE | {"fetched": "later"}) == json.loads(json.dumps(first))
    assert (out / "rows" / "features.npy").stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match=r"holds another dataset .* --force"):
        make(out, threshold=0.05)
    assert contents(out) == before and [p.name for p in tmp_path.iterdir()] == ["d"]
    assert make(out, threshold=0.05, force=True)["fingerprint"] != first["fingerprint"]
    assert load_split(out, "test").samples["label"].to_list() != []
    assert (out / "notes.txt").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_a_folder_of_somebody_else_is_never_written_over(tmp_path):
    np.save(tmp_path / "labels.npy", np.zeros(3))
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"not empty and has no dataset\.json"):
        make(tmp_path, force=True)
    assert contents(tmp_path) == before


def test_a_build_that_fails_half_way_leaves_nothing_behind(tmp_path, monkeypatch):
    make(tmp_path / "d")
    before = contents(tmp_path)
    monkeypatch.setattr(build, "digests_of", lambda folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make(tmp_path / "d", threshold=0.05, force=True)
    with pytest.raises(ZeroDivisionError):
        make(tmp_path / "new")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("stop", [OSError("no space left on device"), KeyboardInterrupt()])
def test_a_stop_between_the_two_renames_leaves_the_old_dataset_where_it_was(tmp_path, monkeypatch, stop):
    make(tmp_path / "d")
    before, rename = contents(tmp_path), Path.rename

    def stops(path, target):
        if "building" in path.name:
            raise stop
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", stops)
    with pytest.raises(type(stop)):
        make(tmp_path / "d", threshold=0.05, force=True)
    assert contents(tmp_path) == before


def test_the_fingerprint_is_of_the_data_not_of_the_day_it_was_built(tmp_path, built):
    _, description = built
    assert make(tmp_path / "a")["fingerprint"] == description["fingerprint"]
    bars = small_panel().with_columns(volume=pl.col("volume") + (pl.col("date") == DAYS[230]).cast(pl.Int64))
    assert make(tmp_path / "b", bars)["fingerprint"] != description["fingerprint"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 0}, "stride: expected"),
        ({"stride": {"train": 1}}, "one for each of"),
        ({"window": 200}, "split train: expected samples from .* found none"),
        ({"features": ("return_1", "no_such")}, "no_such"),
    ],
)
def test_bad_options_are_refused_and_write_nothing(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make(tmp_path / "d", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_panel_without_a_sector_for_each_row_is_refused(tmp_path):
    for panel in (small_panel().drop("sector"), small_panel().with_columns(sector=pl.lit(None, pl.Int16))):
        with pytest.raises(ValueError, match="complete column `sector`"):
            make(tmp_path / "d", panel)
    with pytest.raises(ValueError, match="found 20 for code 000010"):
        make(tmp_path / "d", small_panel().with_columns(sector=pl.lit(20, pl.Int16)))


def test_new_days_extend_test_and_change_nothing_old(tmp_path):
    early = small_panel().filter(pl.col("date") <= DAYS[220])
    old = make(tmp_path / "d", early)
    before = {split: load_split(tmp_path / "d", split) for split in SPLITS}
    old_batches = {split: [t.clone() for t in d.batch(range(len(d)))] for split, d in before.items()}
    old_samples = {split: d.samples for split, d in before.items()}
    new = extend_dataset(tmp_path / "d", small_panel(), source=SOURCE)
    assert new["scaler"] == old["scaler"] and new["borders"] == old["borders"]
    assert new["counts"]["test"]["n"] > old["counts"]["test"]["n"]
    for split in SPLITS:
        dataset = load_split(tmp_path / "d", split)
        index = dataset.samples.with_row_index().join(old_samples[split], on=["code", "date"], how="semi")["index"]
        assert len(index) == len(before[split])
        for a, b in zip(dataset.batch(index.to_numpy()), old_batches[split], strict=True):
            assert a.equal(b)


def halved_before(panel, day, *codes):
    """A split inside the history that the old bars did not know of."""
    earlier = pl.col("code").is_in(codes) & (pl.col("date") < day)
    return panel.with_columns(pl.when(earlier).then(pl.col("close") / 2).otherwise("close").alias("close"))


def test_an_extension_with_other_adjustments_or_earlier_borders_is_refused(tmp_path):
    make(tmp_path / "d")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"10 of \d+ old samples in 2 of 9 stocks .*000050, 000070"):
        extend_dataset(tmp_path / "d", halved_before(small_panel(), DAYS[100], "000050", "000070"), source=SOURCE)
    with pytest.raises(ValueError, match="are of 2 stocks .* do not have.*000010, 000030.*download folder"):
        extend_dataset(tmp_path / "d", small_panel().filter(~pl.col("code").is_in(["000010", "000030"])), source=SOURCE)
    with pytest.raises(ValueError, match="borders only grow"):
        extend_dataset(tmp_path / "d", small_panel(), source=SOURCE, test_end=BORDERS.test_end - timedelta(days=1))
    with pytest.raises(ValueError, match=r"dataset\.json to extend"):
        extend_dataset(tmp_path / "none", small_panel(), source=SOURCE)
    assert contents(tmp_path) == before
