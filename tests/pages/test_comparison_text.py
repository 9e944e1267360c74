"""`make compare` in the terminal: the verdict, one table, the pairs that were asked for."""

from dataclasses import replace

import polars as pl
import pytest

from lasps.pages.comparison_text import short_verdict, show_comparison


def lines_of(comparison, capsys, **options) -> list[str]:
    show_comparison(comparison, **options)
    return capsys.readouterr().out.splitlines()


def test_the_answer_comes_first_in_at_most_four_lines_then_one_table_and_the_default_pairs(made, capsys) -> None:
    lines = lines_of(made(), capsys)
    assert lines[0].startswith("phase2_best is better than phase3_final") and "" in lines[:5]
    names = [line.split()[0] for line in lines if line]
    assert names.count("phase1_best") == 1 and names.count("prior") == 0
    assert names[-4:] == ["phase3_final", "lightgbm", "volatility_bins", "oracle"]
    assert sum(line.startswith("phase2_best minus") for line in lines) == 1


def test_full_adds_every_baseline_pair_and_split(made, capsys) -> None:
    lines = lines_of(made(splits=("test", "val")), capsys, full=True)
    assert sum(line.startswith("prior ") for line in lines) >= 4 and any(line.startswith("val:") for line in lines)
    after = lines[next(i for i, line in enumerate(lines) if line.startswith("val:")) :]
    assert not any(line.endswith(("better", "worse", "undecided")) for line in after)


@pytest.mark.parametrize("options", [{}, {"dated": False}, {"n_days": 30}, {"models": ("phase2_best", "lightgbm")}])
def test_tables_fit_a_hundred_columns_and_no_column_is_empty(made, capsys, options) -> None:
    lines = lines_of(made(**options), capsys, full=True)
    tables = [line for line in lines if "  " in line]
    assert len(tables) > 5 and max(map(len, tables)) <= 100
    assert not any("None" in line or "nan" in line for line in lines)


def test_identical_models_are_named_once(made, capsys) -> None:
    comparison = made(models=("phase1_best", "phase2_best", "lightgbm"))
    comparison = replace(comparison, identical=pl.DataFrame({"name": ["phase3_final"], "same_as": ["phase1_best"]}))
    lines = lines_of(comparison, capsys)
    assert [line for line in lines if "phase3_final is" in line] == [
        "phase3_final is phase1_best: Phase 3 found nothing better."
    ]


def test_the_numbers_of_the_verdict_are_left_to_the_table() -> None:
    assert short_verdict(["a beats LightGBM (log loss -0.04 [-0.05, -0.03]) and b (-0.1) on test (its half)."]) == [
        "a beats LightGBM and b on test (its half)."
    ]
