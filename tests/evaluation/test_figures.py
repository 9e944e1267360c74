"""Pictures are drawn from plain arrays; class colours and sector names are the same everywhere."""

from __future__ import annotations

import copy

import matplotlib
import numpy as np
import pandas as pd
import pytest
from fontTools.ttLib import TTFont
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from lasps.config.sectors import SECTORS
from lasps.config.settings import CLASS_COLORS, CLASS_NAMES
from lasps.evaluation import figures, run_figures
from lasps.evaluation.class_accuracy import Share
from lasps.evaluation.forecast import Forecast
from lasps.pipeline.validation_tracking import validation_figures
from lasps.tuning import figures as study_figures

SHARES = {name: Share(0.3 + 0.1 * i, 0.25, 0.7, 100) for i, name in enumerate(CLASS_NAMES)}
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
POINTS = {
    name: [{"probability": 0.2, "share": 0.25, "n": 9}, {"probability": 0.4, "share": 0.35, "n": 9}]
    for name in CLASS_NAMES
}
SECTOR_ROWS = pd.DataFrame(
    {
        "sector": [3, 7, 19],
        "n": [100, 200, 300],
        "difference": [0.01, -0.02, -0.03],
        "low": [-0.01, -0.03, np.nan],
        "high": [0.03, -0.01, np.nan],
        "significant": [False, True, True],
    }
)
LABELS = pd.DataFrame({"year": [2023, 2024], "n": [5, 6], "SELL": [0.2, 0.3], "HOLD": [0.6, 0.4], "BUY": [0.2, 0.3]})
CHARTS = np.random.default_rng(0).integers(0, 255, (4, 3, 96, 180), dtype=np.uint8)

DRAWN = {
    "heads": lambda: figures.head_curves(dict.fromkeys(range(6), CURVE), 1, {0: 100}, kept_start={2}),
    "no heads": lambda: figures.head_curves({}),
    "phases": lambda: figures.phase_curves({"phase1_best": CURVE, "phase3_final": CURVE}),
    "classes": lambda: figures.class_accuracy_bars({"phase3_final": SHARES, "phase2_best": SHARES}),
    "confusion": lambda: figures.confusion_matrices({"a": np.eye(3, dtype=int) * 5, "b": np.zeros((3, 3), dtype=int)}),
    "sectors": lambda: figures.sector_differences(SECTOR_ROWS, "phase3_final", "phase2_best"),
    "reliability": lambda: figures.reliability({"a": POINTS, "b": POINTS}),
    "changes": lambda: figures.change_bars(
        pd.DataFrame({"from": ["SELL"], "to": ["BUY"], "n": [5], "right": [0.6], "before": [0.2]}), "a", "b"
    ),
    "no changes": lambda: figures.change_bars(
        pd.DataFrame({"from": [], "to": [], "n": [], "right": [], "before": []}), "a", "b"
    ),
    "labels": lambda: figures.label_shares(LABELS, "year", "Labels by year"),
    "coverage": lambda: figures.coverage(
        pd.DataFrame({"date": pd.date_range("2024-01-01", periods=9), "stocks": 5}), {"val": pd.Timestamp("2024-01-05")}
    ),
    "history": lambda: study_figures.study_history(TRIALS),
    "slices": lambda: study_figures.study_slices(TRIALS, {"lr": (1e-4, 1e-3)}),
    "importance": lambda: study_figures.study_importance({"lr": 0.7, "epochs": 0.3}),
    "judgement": lambda: study_figures.judgement({"start": 1.02, "default": 1.0, "best": 0.99}, -0.01, [-0.02, 0.0]),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_can_be_drawn_and_has_a_title(name):
    figure = DRAWN[name]()
    assert isinstance(figure, Figure) and figure.get_suptitle()
    FigureCanvasAgg(figure).draw()


def test_a_wall_of_charts_takes_uint8_and_floats_alike_and_says_the_calls_in_their_colours():
    sheets = [
        np.asarray(figures.chart_sheet(charts, [0, 1, 2, 0], [0, 2, 2, 1], ["x"] * 4, columns=3))
        for charts in (CHARTS, CHARTS / np.float32(255))
    ]
    assert np.array_equal(*sheets)
    without = np.asarray(figures.chart_sheet(CHARTS, [0, 1, 2, 0], columns=3))
    assert without.shape == sheets[0].shape and not np.array_equal(without, sheets[0])
    lower = sheets[0][300:]  # the second row, which holds the fourth chart alone
    row, column = np.argwhere((lower == CHARTS[3, :, 0, 0]).all(axis=-1))[0]
    assert np.array_equal(lower[row : row + 2 * 96 : 2, column : column + 2 * 180 : 2], np.moveaxis(CHARTS[3], 0, -1))


def test_classes_have_their_own_colours():
    bars = figures.label_shares(LABELS, "year", "x").axes[0].containers
    assert [to_hex(bar.patches[0].get_facecolor()) for bar in bars] == [CLASS_COLORS[name] for name in CLASS_NAMES]
    assert CLASS_COLORS["BUY"] == "#d1363a"


def test_sectors_are_korean_where_a_font_can_and_english_elsewhere(monkeypatch):
    monkeypatch.setattr(figures, "korean_font", lambda: "NanumGothic")
    assert figures.sector_name(4) == SECTORS[4].korean
    monkeypatch.setattr(figures, "korean_font", lambda: None)
    assert figures.sector_name(4) == SECTORS[4].english
    assert figures.sector_name(4, [s.korean for s in SECTORS]) == SECTORS[4].english
    assert figures.sector_name(4, ["a", "b", "c", "d", "Banks"]) == "Banks"
    assert figures.sector_name(99) == figures.sector_name(99, ["a"]) == "sector 99"


@pytest.mark.parametrize("name", ["Noto Sans CJK KR", "NanumGothic"])
def test_a_korean_font_installed_after_matplotlib_listed_the_fonts_is_found(name, tmp_path, monkeypatch):
    monkeypatch.setattr(figures.font_manager, "fontManager", copy.copy(figures.font_manager.fontManager))
    known = [font for font in figures.font_manager.fontManager.ttflist if font.name not in figures.KOREAN_FONTS]
    monkeypatch.setattr(figures.font_manager.fontManager, "ttflist", known)
    broken, new = tmp_path / "a-broken.ttf", tmp_path / "SomeFile-Regular.ttf"
    broken.write_bytes(b"no font")
    renamed(new, name)
    monkeypatch.setattr(figures.font_manager, "findSystemFonts", lambda: [str(new), str(broken)])
    assert figures.korean_font.__wrapped__() == name


def renamed(path, name):
    """DejaVu Sans under another family name."""
    font = TTFont(figures.font_manager.findfont("DejaVu Sans"))
    for record in font["name"].names:
        if record.nameID in (1, 16):
            font["name"].setName(name, record.nameID, record.platformID, record.platEncID, record.langID)
    font.save(path)


def test_every_text_gets_the_korean_font_and_the_callers_settings_stay(monkeypatch):
    before = dict(matplotlib.rcParams)
    monkeypatch.setattr(figures, "korean_font", lambda: "DejaVu Serif")  # stands in for one that is installed
    figure = DRAWN["labels"]()
    FigureCanvasAgg(figure).draw()
    assert {tuple(text.get_fontfamily()) for text in figure.findobj(Text) if text.get_text()} == {
        ("DejaVu Sans", "DejaVu Serif")
    }  # the Korean font is asked for what the first one lacks
    assert dict(matplotlib.rcParams) == before


def test_a_phase_leaves_its_learning_curves_and_a_validation_its_pictures():
    phase1 = run_figures.learning_curves("phase1_best", {"train_loss": [0.5, 0.4], "val_loss": [0.45, 0.44]})
    heads = {
        "3": {"n": 150, "losses": [0.4, 0.3], "val_losses": [1.0, 0.9, 0.95]},
        "7": {"n": 120, "losses": [0.4, 0.3], "val_losses": []},
    }
    phase2 = run_figures.learning_curves("phase2_best", {"sectors": heads, "best_epoch": 1})
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 90)
    forecast = Forecast.from_probabilities(random.dirichlet([3, 3, 3], 90), labels, labels)
    validated = validation_figures(forecast, "phase2_best", "test")
    assert set(validated) == {"test_class_accuracy", "test_confusion", "test_reliability"}
    for figure in (phase1, phase2, *validated.values()):
        FigureCanvasAgg(figure).draw()
