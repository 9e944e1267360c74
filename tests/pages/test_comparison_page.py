"""The comparison page: what is on it, in which order, and that nothing on it is empty or said twice."""

import re
from dataclasses import replace

import polars as pl
import pytest

from lasps.pages.comparison import comparison_page
from lasps.pages.comparison_view import FEW_DAYS

ORDER = ["verdict", "first", "classes", "sectors", "time", "calibration", "returns", "rest"]
LIMIT = 3_000_000
"""Bytes of a page, its bundle included."""


def ids(page: str) -> list[str]:
    return [name for name in re.findall(r' id="([a-z]+)"', page) if name in ORDER]


def test_the_page_answers_first_and_explains_in_order(made) -> None:
    page = comparison_page(made(splits=("test", "val")))
    assert ids(page) == ORDER
    assert len(page.encode()) < LIMIT and not re.search(r'(src|href)="(?!data:)', page)
    first = page[page.index('id="first"') : page.index('id="classes"')]
    assert first.count("<tr") == 1 + 6 and first.count('class="chart"') == 1


def test_the_first_table_has_the_phases_lightgbm_volatility_bins_and_the_oracle_only(made) -> None:
    page = comparison_page(made())
    first = page[page.index('id="first"') : page.index('id="classes"')]
    names = re.findall(r'<td class="text">([a-z0-9_]+)<small>', first)
    assert names == ["phase1_best", "phase3_final", "phase2_best", "lightgbm", "volatility_bins", "oracle"]


def test_identical_models_are_named_once_with_the_reason(made) -> None:
    comparison = made(models=("phase1_best", "phase2_best", "lightgbm"))
    comparison = replace(comparison, identical=pl.DataFrame({"name": ["phase3_final"], "same_as": ["phase1_best"]}))
    page = comparison_page(comparison)
    assert page.count("phase3_final is phase1_best: Phase 3 found nothing better.") == 1


@pytest.mark.parametrize("n_days", [30, FEW_DAYS - 1, FEW_DAYS, 135])
def test_few_days_are_said_where_numbers_rest_on_them(made, n_days: int) -> None:
    page = comparison_page(made(n_days=n_days))
    assert (page.count('class="few"') >= 4) == (n_days < FEW_DAYS) and ('class="few"' in page) == (n_days < FEW_DAYS)


def test_data_without_dates_has_no_part_that_needs_them(made) -> None:
    page = comparison_page(made(dated=False))
    assert ids(page) == ["verdict", "first", "classes", "sectors", "calibration", "rest"] and ">None" not in page


def test_one_model_without_baselines_still_makes_a_page(made) -> None:
    page = comparison_page(made(models=("phase2_best",)))
    assert "<h2>" in page and 'id="sectors"' not in page and ids(page)[:2] == ["verdict", "first"]


def test_a_selection_split_is_shown_but_not_tested(made) -> None:
    page = comparison_page(made(splits=("val",)))
    assert "a selection split: shown, not tested" in page and not re.search(r"<td[^>]*>better<", page)
    assert '"answer":"not tested"' in page


def test_sectors_have_korean_and_english_names(made) -> None:
    page = comparison_page(made())
    assert "Pharmaceuticals<small>의약품</small>" in page and 'lang="en"' in page


def test_a_leak_is_said_above_everything(made) -> None:
    comparison = made()
    comparison = replace(
        comparison, notes=("test: lightgbm may know the future: look for a feature of tomorrow.", "prior is in-sample")
    )
    page = comparison_page(comparison)
    assert page.index('class="alarm"') < page.index('id="first"') and page.count("may know the future") == 1
    assert page.index("Note: prior is in-sample") > page.index('id="rest"')


def test_quintiles_that_nobody_could_compute_are_not_drawn(made) -> None:
    comparison = made()
    assert "Rank IC within fifths" not in comparison_page(comparison)
    rows = [
        {"split": "test", "model": "phase2_best", "quintile": k, "rank_ic": 0.1 * k, "n_days": 100} for k in range(1, 6)
    ]
    comparison = replace(comparison, quintiles=pl.DataFrame(rows, schema=comparison.quintiles.schema))
    assert "Rank IC within fifths" in comparison_page(comparison)
