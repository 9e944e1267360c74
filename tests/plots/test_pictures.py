"""Plots are drawn from frames; class colours and sector names are the same everywhere."""

from __future__ import annotations

import copy

import matplotlib
import numpy as np
import pandas as pd
import polars as pl
import pytest
from fontTools.ttLib import TTFont
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from lasps.config.sectors import SECTORS
from lasps.config.settings import CLASS_NAMES
from lasps.evaluation.forecast import Forecast
from lasps.pipeline.validation_tracking import validation_plots
from lasps.plots import comparison, market, style, training, tuning
from lasps.plots.chart_grid import chart_grid
from lasps.plots.colors import CLASS_COLORS

CLASSES = pl.DataFrame(
    [
        {"model": model, "class": name, "n": 100, "accuracy": accuracy, "low": low, "high": high}
        for model in ("phase3_final", "phase2_best")
        for name, accuracy, low, high in (
            ("SELL", 0.3, 0.25, 0.7),
            ("HOLD", 0.4, None, None),
            ("BUY", None, None, None),
        )
    ]
).with_columns(split=pl.lit("test"))
CELLS = pl.DataFrame(
    [
        {"model": model, "true": true, "predicted": predicted, "n": n * (true == predicted), "share": share}
        for model, n, share in (("a", 5.0, 1 / 3), ("b", 0.0, None))
        for true in CLASS_NAMES
        for predicted in CLASS_NAMES
    ]
)
CURVE = pd.DataFrame({"step": [0, 1, 2], "train": [np.nan, 0.4, 0.3], "val": [1.0, 0.9, 0.95]})
TRIALS = pd.DataFrame(
    {
        "number": range(4),
        "value": [1.0, 1.1, 0.9, 1.2],
        "state": ["COMPLETE"] * 3 + ["PRUNED"],
        "params_lr": [1e-4, 1e-3, 1e-3, 1e-2],
        "params_epochs": [3, 4, 5, 6],
        "params_min_samples": [20, 100, 50, 30],
    }
)
POINTS = pl.DataFrame(
    [
        {"model": model, "class": name, "probability": p, "share": share, "n": 9}
        for model in "ab"
        for name in CLASS_NAMES
        for p, share in ((0.2, 0.25), (0.4, 0.35))
    ]
)
CHANGES = pl.DataFrame({"from": ["SELL"], "to": ["BUY"], "n": [5], "right": [0.6], "before": [0.2]})
SECTOR_ROWS = pl.DataFrame(
    {
        "sector": [3, 7, 19],
        "n": [100, 200, 300],
        "difference": [0.01, -0.02, -0.03],
        "low": [-0.01, -0.03, None],
        "high": [0.03, -0.01, None],
        "better": [None, "b", "a"],
    }
)
LABELS = pd.DataFrame({"year": [2023, 2024], "n": [5, 6], "SELL": [0.2, 0.3], "HOLD": [0.6, 0.4], "BUY": [0.2, 0.3]})
CHARTS = np.random.default_rng(0).integers(0, 255, (4, 3, 96, 180), dtype=np.uint8)

DRAWN = {
    "heads": lambda: training.head_curves(dict.fromkeys(range(6), CURVE), 1, {0: 100}, refused={2}),
    "no heads": lambda: training.head_curves({}),
    "phases": lambda: training.phase_curves({"phase1_best": CURVE, "phase3_final": CURVE}),
    "classes": lambda: comparison.class_accuracy(CLASSES),
    "confusion": lambda: comparison.confusion(CELLS),
    "sectors": lambda: comparison.sector_differences(SECTOR_ROWS, "phase3_final", "phase2_best"),
    "reliability": lambda: comparison.calibration(POINTS),
    "changes": lambda: comparison.changed_classes(CHANGES, "a", "b"),
    "no changes": lambda: comparison.changed_classes(CHANGES.clear(), "a", "b"),
    "labels": lambda: market.label_shares(LABELS, "year", "Labels by year"),
    "coverage": lambda: market.coverage(
        pd.DataFrame({"date": pd.date_range("2024-01-01", periods=9), "stocks": 5}), {"val": pd.Timestamp("2024-01-05")}
    ),
    "history": lambda: tuning.study_history(TRIALS),
    "slices": lambda: tuning.study_slices(TRIALS, {"lr": (1e-4, 1e-3)}),
    "importance": lambda: tuning.study_importance({"lr": 0.7, "epochs": 0.3}),
    "evaluation": lambda: tuning.final_evaluation({"start": 1.02, "default": 1.0, "best": 0.99}, -0.01, [-0.02, 0.0]),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_can_be_drawn_and_has_a_title(name):
    figure = DRAWN[name]()
    assert isinstance(figure, Figure) and figure.get_suptitle()
    FigureCanvasAgg(figure).draw()


def test_a_chart_grid_takes_uint8_and_floats_alike_and_names_predicted_classes_in_their_colours():
    grids = [
        np.asarray(chart_grid(charts, [0, 1, 2, 0], [0, 2, 2, 1], ["x"] * 4, columns=3))
        for charts in (CHARTS, CHARTS / np.float32(255))
    ]
    assert np.array_equal(*grids)
    without = np.asarray(chart_grid(CHARTS, [0, 1, 2, 0], columns=3))
    assert without.shape == grids[0].shape and not np.array_equal(without, grids[0])
    lower = grids[0][300:]  # the second row, which holds the fourth chart alone
    row, column = np.argwhere((lower == CHARTS[3, :, 0, 0]).all(axis=-1))[0]
    assert np.array_equal(lower[row : row + 2 * 96 : 2, column : column + 2 * 180 : 2], np.moveaxis(CHARTS[3], 0, -1))


def test_classes_have_their_own_colours():
    bars = market.label_shares(LABELS, "year", "x").axes[0].containers
    assert [to_hex(bar.patches[0].get_facecolor()) for bar in bars] == [CLASS_COLORS[name] for name in CLASS_NAMES]
    assert CLASS_COLORS["BUY"] == "#d1363a"


def test_sectors_are_korean_where_a_font_can_and_english_elsewhere(monkeypatch):
    monkeypatch.setattr(style, "korean_font", lambda: "NanumGothic")
    assert style.sector_name(4) == SECTORS[4].korean
    monkeypatch.setattr(style, "korean_font", lambda: None)
    assert style.sector_name(4) == SECTORS[4].english
    assert style.sector_name(4, [s.korean for s in SECTORS]) == SECTORS[4].english
    assert style.sector_name(4, ["a", "b", "c", "d", "Banks"]) == "Banks"
    assert style.sector_name(99) == style.sector_name(99, ["a"]) == "sector 99"


@pytest.mark.parametrize("name", ["Noto Sans CJK KR", "NanumGothic"])
def test_a_korean_font_installed_after_matplotlib_listed_the_fonts_is_found(name, tmp_path, monkeypatch):
    monkeypatch.setattr(style.font_manager, "fontManager", copy.copy(style.font_manager.fontManager))
    known = [font for font in style.font_manager.fontManager.ttflist if font.name not in style.KOREAN_FONTS]
    monkeypatch.setattr(style.font_manager.fontManager, "ttflist", known)
    broken, new = tmp_path / "a-broken.ttf", tmp_path / "SomeFile-Regular.ttf"
    broken.write_bytes(b"no font")
    renamed(new, name)
    monkeypatch.setattr(style.font_manager, "findSystemFonts", lambda: [str(new), str(broken)])
    assert style.korean_font.__wrapped__() == name


def renamed(path, name):
    """DejaVu Sans under another family name."""
    font = TTFont(style.font_manager.findfont("DejaVu Sans"))
    for record in font["name"].names:
        if record.nameID in (1, 16):
            font["name"].setName(name, record.nameID, record.platformID, record.platEncID, record.langID)
    font.save(path)


def test_every_text_gets_the_korean_font_and_the_callers_settings_stay(monkeypatch):
    before = dict(matplotlib.rcParams)
    monkeypatch.setattr(style, "korean_font", lambda: "DejaVu Serif")  # stands in for one that is installed
    figure = DRAWN["labels"]()
    FigureCanvasAgg(figure).draw()
    assert {tuple(text.get_fontfamily()) for text in figure.findobj(Text) if text.get_text()} == {
        ("DejaVu Sans", "DejaVu Serif")
    }  # the Korean font is asked for what the first one lacks
    assert dict(matplotlib.rcParams) == before


def test_a_phase_leaves_its_learning_curves_and_a_validation_its_plots():
    phase1 = training.learning_curves("phase1_best", {"train_loss": [0.5, 0.4], "val_loss": [0.45, 0.44]})
    heads = {
        "3": {"n": 150, "losses": [0.4, 0.3], "val_losses": [1.0, 0.9, 0.95]},
        "7": {"n": 120, "losses": [0.4, 0.3], "val_losses": []},
    }
    phase2 = training.learning_curves("phase2_best", {"sectors": heads, "best_epoch": 1})
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 90)
    forecast = Forecast.from_probabilities(random.dirichlet([3, 3, 3], 90), labels, labels).named("phase2_best", "test")
    validated = validation_plots(forecast)
    assert set(validated) == {"test_class_accuracy", "test_confusion", "test_reliability"}
    for figure in (phase1, phase2, *validated.values()):
        FigureCanvasAgg(figure).draw()


def test_the_overview_shows_sectors_only_where_a_pair_has_them():
    for sectors, visible in ((SECTOR_ROWS, True), (SECTOR_ROWS.clear(), False)):
        figure = comparison.overview(CLASSES, sectors, "phase3_final", "phase2_best")
        FigureCanvasAgg(figure).draw()
        assert figure.axes[1].get_visible() == visible
