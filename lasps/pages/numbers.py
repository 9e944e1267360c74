"""Numbers as people read them: on pages with a true minus, in the terminal with a hyphen; '-' where undefined."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

POINTS = frozenset({"accuracy", "balanced_accuracy", "macro_f1", "expected_calibration_error"})
"""Metrics whose differences are shown in percentage points."""
MINUS = "−"


def known(value: float | None) -> bool:
    """Whether there is a number to show."""
    return value is not None and not math.isnan(value)


def percent(value: float | None, digits: int = 1) -> str:
    """0.5321 -> '53.2'."""
    return decimal(None if value is None else 100 * value, digits)


def decimal(value: float | None, digits: int = 4) -> str:
    """1.03534 -> '1.0353'; thousands separated."""
    return f"{value:,.{digits}f}" if value is not None and known(value) else "-"


def count(value: float | None) -> str:
    """8078 -> '8,078'."""
    return decimal(value, 0)


def own_days(row: Mapping[str, Any], metric: str) -> str:
    """'5 of 60 days' of a day-wise metric that does not exist on all days; '' where it does, or on none."""
    days, all_days = row.get(f"{metric}_days"), row.get("n_days")
    return "" if not days or not all_days or days == all_days else f"{days:,} of {all_days:,} days"


def signed(value: float | None, digits: int = 4) -> str:
    """0.0123 -> '+0.0123'."""
    return f"{value:+,.{digits}f}" if value is not None and known(value) else "-"


def difference(metric: str, value: float | None, low: float | None, high: float | None, unit: bool = False) -> str:
    """'-0.0436 [-0.0532, -0.0340]'; shares as percentage points."""
    scale, digits = (100.0, 2) if metric in POINTS else (1.0, 4)
    if not known(value):
        return "-"
    text = signed(scale * value, digits) + (" points" if unit and metric in POINTS else "")  # type: ignore[operator]
    if not (known(low) and known(high)):
        return text
    return f"{text} [{signed(scale * low, digits)}, {signed(scale * high, digits)}]"  # type: ignore[operator]


def p_value(p: float | None) -> str:
    """'< 0.0001', '0.0312'."""
    return "< 0.0001" if known(p) and p < 0.0001 else decimal(p, 4)  # type: ignore[operator]


def true_minus(text: str) -> str:
    """Hyphens before digits as minus signs, for pages."""
    return re.sub(r"(?<![\w-])-(?=[\d.])", MINUS, text)
