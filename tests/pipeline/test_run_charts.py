"""What a run shows of the charts that the network is given."""

from __future__ import annotations

from typing import Any

import numpy as np

from lasps.config.settings import CLASS_NAMES
from lasps.data.datasets.loading import load_split
from lasps.pipeline.phases import log_charts
from lasps.tracking import NullTracker
from tests.pipeline.conftest import Job


class FigureKeeper:
    """A tracker that keeps its figures."""

    def __init__(self) -> None:
        self.figures: dict[str, Any] = {}

    def log_figure(self, figure: Any, name: str) -> None:
        self.figures[name] = figure


def test_a_run_shows_the_very_charts_that_batches_hold_under_their_labels(job: Job) -> None:
    train, keeper = load_split(job.data_dir, "train"), FigureKeeper()
    log_charts(keeper, train)  # type: ignore[arg-type]
    axes = keeper.figures["train_charts"].axes
    rows = np.linspace(0, len(train) - 1, 12).astype(int)
    _, charts, _, labels = train.batch(rows)
    assert len(axes) == len(rows)
    for ax, chart, label in zip(axes, charts.numpy(), labels.numpy(), strict=True):
        assert np.array_equal(np.asarray(ax.images[0].get_array()), np.moveaxis(chart, 0, -1)) and chart.max() > 0
        assert ax.get_xlabel() == CLASS_NAMES[label]
    code, date = train.samples.select("code", "date").row(0)
    assert axes[0].get_title(loc="left") == f"{code}  {date}"


def test_nothing_is_drawn_where_nothing_is_tracked() -> None:
    log_charts(NullTracker(), None)  # type: ignore[arg-type]
