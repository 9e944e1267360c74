"""The report says first what must be admitted, and shows every model, pair and picture."""

import pytest

from lasps.evaluation import report_figures
from lasps.evaluation.comparison import compare
from lasps.evaluation.report import comparison_figures, comparison_html, comparison_text, text_table
from tests.evaluation.conftest import make_forecast, without_dates


@pytest.fixture(scope="module")
def result():
    days = {"n_days": 40, "n_stocks": 100, "market_seed": 2}
    models = {"phase3_final": {"test": [make_forecast(skill=0.3, **days)]},
              "<b>phase2</b>": {"test": [make_forecast(skill=0.9, **days)]}}  # fmt: skip
    baselines = {"lightgbm": {"test": [make_forecast(skill=1.0, **days)]}}
    return compare(models, prior=(0.3, 0.4, 0.3), prior_source="dataset.json", baselines=baselines,
                   sector_names=["Food", "Steel", "Banks"]).as_json()  # fmt: skip


def test_the_verdict_comes_first(result):
    lines = comparison_text(result).splitlines()
    assert lines[: len(result["verdict"].splitlines())] == result["verdict"].splitlines()
    assert any(line.startswith("phase3_final ") for line in lines)
    assert "majority HOLD (dataset.json)" in comparison_text(result)


def test_a_picture_becomes_part_of_the_page(result):
    _, figure = comparison_figures(result, "test")[0]
    assert report_figures.as_base64(figure).startswith("data:image/png;base64,iVBOR")


def test_the_page_is_one_file_with_its_pictures_and_escapes_names(result, monkeypatch):
    monkeypatch.setattr(report_figures, "as_base64", lambda figure: "data:image/png;base64,x")
    page = comparison_html(result)
    assert page.count("data:image/png;base64,") == len(comparison_figures(result, "test")) == 8
    assert "<b>phase2</b>" not in page and "&lt;b&gt;phase2" in page
    assert "http" not in page.replace("http-equiv", "") and "Steel" in page and "survivor" not in page.lower()[:500]


def test_undefined_numbers_are_a_dash(monkeypatch):
    monkeypatch.setattr(report_figures, "as_base64", lambda figure: "x")
    rows = without_dates(make_forecast(n_days=3, n_stocks=30))
    found = compare({"a": {"val": [rows]}}, prior=(0.3, 0.4, 0.3)).as_json()
    text = comparison_text(found)
    assert "no dates; a selection split" in text and " - " in text
    assert comparison_html(found).startswith("<!doctype html>")


def test_columns_are_as_wide_as_their_widest_cell():
    assert text_table(["a", "b"], [["long", "1"], ["x", "22"]]) == "a      b\nlong   1\nx     22"
