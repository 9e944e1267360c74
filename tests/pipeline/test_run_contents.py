"""What a run shows: the charts that the network is given, and what became of classes and sectors."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from matplotlib.colors import to_hex

from lasps.config.sectors import SECTORS
from lasps.config.settings import CLASS_NAMES
from lasps.data.datasets.dataset import Dataset
from lasps.data.datasets.description import load_split
from lasps.evaluation.comparison import compare
from lasps.evaluation.directions import SharedDirections
from lasps.pipeline.direction_tracking import direction_tables
from lasps.pipeline.phase_tracking import log_charts
from lasps.pipeline.summary import validate_all
from lasps.pipeline.validation import validate_checkpoint
from lasps.pipeline.validation_tracking import log_validation
from lasps.plots.colors import CLASS_COLORS
from lasps.tracking import NullTracker
from lasps.training.checkpoints import Checkpoint
from lasps.training.inference import predict, shared_features
from tests.pipeline.conftest import Job, move_heads


class Keeper:
    """A tracker that keeps the figures and tables of all its runs, by run and name."""

    def __init__(self) -> None:
        self.name = ""
        self.figures: dict[tuple[str, str], Any] = {}
        self.tables: dict[tuple[str, str], pl.DataFrame] = {}
        self.metrics: dict[str, dict[str, float]] = {}

    @contextmanager
    def run(self, name: str, **_: Any) -> Iterator[Keeper]:
        self.name = name
        yield self

    def log_figure(self, figure: Any, name: str) -> None:
        self.figures[self.name, name] = figure

    def log_table(self, frame: pl.DataFrame, name: str) -> None:
        self.tables[self.name, name] = frame

    def log_checkpoint(self, path: Path, metrics: dict[str, float], **_: Any) -> None:
        self.metrics |= {self.name: self.metrics.get(self.name, {}) | metrics}

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


def test_a_run_shows_the_very_charts_that_batches_hold_under_their_labels(job: Job) -> None:
    train, keeper = load_split(job.data_dir, "train"), Keeper()
    log_charts(keeper, train)  # type: ignore[arg-type]
    sheet = np.asarray(keeper.figures["", "train_charts"])
    rows = np.linspace(0, len(train) - 1, 12).astype(int)
    _, charts, _, labels = train.batch(rows)
    for chart, label in zip(charts.numpy(), labels.numpy(), strict=True):
        shown = np.moveaxis(chart, 0, -1).repeat(2, axis=0).repeat(2, axis=1)
        top, left = place_of(shown, sheet)
        assert chart.max() > 0 and to_hex(sheet[top - 1, left - 1] / 255) == CLASS_COLORS[CLASS_NAMES[label]]


def place_of(part: np.ndarray, whole: np.ndarray) -> tuple[int, int]:
    """Row and column of the picture `part` (h, w, 3) in the picture `whole`."""
    height, width, channels = part.shape
    busiest = int((part > 0).sum(axis=(1, 2)).argmax())  # a line that stands nowhere else
    for y in range(len(whole) - height + 1):
        x, rest = divmod(whole[y + busiest].tobytes().find(part[busiest].tobytes()), channels)
        if x >= 0 and rest == 0 and np.array_equal(whole[y : y + height, x : x + width], part):
            return y, x
    raise AssertionError("the picture is not in the other one")


def test_nothing_is_drawn_where_nothing_is_tracked() -> None:
    class Unread:
        """Data that nobody may look at."""

        def __len__(self) -> int:
            pytest.fail("it was read")

    log_charts(NullTracker(), Unread())  # type: ignore[arg-type]
    with pytest.raises(pytest.fail.Exception, match="it was read"):
        log_charts(Keeper(), Unread())  # type: ignore[arg-type]


def test_the_runs_of_a_finished_job_show_classes_and_what_phase_2_changed_by_sector(job: Job, tmp_path: Path) -> None:
    keeper, folder = Keeper(), Path(shutil.copytree(job.output_dir, tmp_path / "checkpoints"))
    move_heads(folder / "phase2_best.pt", job.meta("phase2_best"), seed=1)
    found = validate_all(Dataset.open(job.data_dir), folder, "cpu", keeper)  # type: ignore[arg-type]
    run = "validate phase2_best"
    classes = keeper.tables[run, "test_classes.json"]
    table = found["phase2_best"]["test"].forecast.table
    called = table.select(pl.concat_list("p_sell", "p_hold", "p_buy").list.arg_max().cast(pl.Int64)).to_series()
    for c, row in enumerate(classes.iter_rows(named=True)):
        is_class, is_called, hits = table["label"] == c, called == c, ((table["label"] == c) & (called == c)).sum()
        assert (row["class"], row["n"], row["called"]) == (CLASS_NAMES[c], is_class.sum(), is_called.sum())
        assert row["accuracy"] == pytest.approx(hits / row["n"])
        assert row["precision"] == (pytest.approx(hits / row["called"]) if row["called"] else None)

    sectors = keeper.tables[run, "test_minus_phase3_final_by_sector.json"]
    pairs = compare(
        {name: {"test": [found[name]["test"].forecast]} for name in ("phase3_final", "phase2_best")},
        prior=found["phase2_best"]["test"].prior,
    ).as_json()["sectors"]
    assert sectors["n"].sum() == len(table)
    np.testing.assert_array_equal(sectors["difference"] != 0, sectors["sector"] % 2 == 0)
    for row, pair in zip(sectors.iter_rows(named=True), pairs, strict=True):
        assert (row["sector"], row["n"], row["difference"]) == (pair["sector"], pair["n"], pair["difference"])
        assert (None if row["low"] is None else [row["low"], row["high"]]) == pair["interval"]
    assert (run, "learning_curves") in keeper.figures
    ticks = [tick.get_text() for tick in keeper.figures[run, "test_sector_differences"].axes[0].get_yticklabels()]
    assert len(ticks) == len(sectors) and all(f"(n {n:,})" in " ".join(ticks) for n in sectors["n"])
    assert [key for key in keeper.figures if "differences" in key[1]] == [(run, "test_sector_differences")]

    by_sector = keeper.tables[run, "test_sectors.json"]
    shown = keeper.metrics[run]
    for row in by_sector.iter_rows(named=True):
        assert row["name"] == SECTORS[row["sector"]].english
        assert row["n"] == sum(row[f"class_counts_{name}"] for name in CLASS_NAMES)
        assert shown.get(f"test/sector_{row['sector']:02d}/class_accuracy/BUY") == row["class_accuracy_BUY"]
    per_sector = [key for key in shown if "/sector_" in key]
    assert len(per_sector) <= 2 * 7 * len(by_sector)  # of two splits; MLflow's page draws a chart for each metric


def test_the_run_of_phase_2_shows_what_its_sectors_share(job: Job) -> None:
    keeper = Keeper()
    checkpoint = Checkpoint.open(job.output_dir / "phase2_best.pt")
    log_validation(validate_checkpoint(checkpoint, Dataset.open(job.data_dir), "val"), keeper)  # type: ignore[arg-type]
    saved = checkpoint.card.history["directions"]
    weights, readings, movement = (
        keeper.tables[keeper.name, f"directions_{name}.json"] for name in ("weights", "readings", "movement")
    )
    assert len(weights) == len(saved["sectors"]) * len(saved["classes"][0])
    assert set(readings["feature"]) <= set(checkpoint.card.data["features"])
    assert (keeper.name, "shared_directions") in keeper.figures

    dataset = load_split(job.data_dir, "val")
    before, after = (
        Checkpoint.open(job.output_dir / f"{name}.pt")
        for name in (
            "common_change" if checkpoint.card.history["common_change_accepted"] else "phase3_final",
            "phase2_best",
        )
    )
    shared = shared_features(after.model, dataset)
    change = SharedDirections.of(saved).change(shared, dataset.sector_ids)
    moved = predict(after.model, dataset).logits - predict(before.model, dataset).logits
    refused = set(movement.filter("refused")["sector"])
    own = ~np.isin(dataset.sector_ids, list(refused))
    assert np.allclose(moved[own], change[own], atol=1e-3) and not moved[~own].any()
    assert (movement["mean_kl"] > 0).any()


def test_heads_that_share_nothing_have_no_such_picture(job: Job) -> None:
    validation = validate_checkpoint(
        Checkpoint.open(job.output_dir / "phase3_final.pt"), Dataset.open(job.data_dir), "val"
    )
    assert direction_tables(validation.checkpoint, validation.dataset) == {}
