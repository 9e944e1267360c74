"""Numbers as people read them, the same in sentences, in the terminal and on pages; '-' where undefined."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

POINTS = frozenset({"accuracy", "balanced_accuracy", "macro_f1", "expected_calibration_error"})
"""Metrics whose differences are shown in percentage points."""
MINUS = "−"


def signed(value: float | None, digits: int = 4, sign: str = "+") -> str:
    """0.0123 -> '+0.0123'; thousands separated."""
    return "-" if value is None or math.isnan(value) else f"{value:{sign},.{digits}f}"


def decimal(value: float | None, digits: int = 4) -> str:
    """1.03534 -> '1.0353'; thousands separated."""
    return signed(value, digits, sign="")


def percent(value: float | None, digits: int = 1) -> str:
    """0.5321 -> '53.2'."""
    return decimal(None if value is None else 100 * value, digits)


def count(value: float | None) -> str:
    """8078 -> '8,078'."""
    return decimal(value, 0)


def own_days(row: Mapping[str, Any], metric: str) -> str:
    """'5 of 60 days' of a day-wise metric that does not exist on all days; '' where it does, or on none."""
    days, all_days = row.get(f"{metric}_days"), row.get("n_days")
    return "" if not days or not all_days or days == all_days else f"{days:,} of {all_days:,} days"


def difference(
    metric: str, value: float | None, low: float | None, high: float | None, digits: int = 2, unit: str = ""
) -> str:
    """'-0.0436 [-0.0532, -0.0340]'; shares in percentage points, with so many digits and a unit after the value."""
    scale = 100.0 if metric in POINTS else 1.0
    text, *ends = (
        signed(None if x is None else scale * x, digits if metric in POINTS else 4) for x in (value, low, high)
    )
    if text == "-":
        return text
    text += unit if metric in POINTS else ""
    return text if "-" in ends else f"{text} [{', '.join(ends)}]"


def p_value(p: float | None) -> str:
    """'< 0.0001', '0.0312'."""
    return "< 0.0001" if p is not None and p < 0.0001 else decimal(p, 4)


def true_minus(text: str) -> str:
    """Hyphens before digits as minus signs, for pages."""
    return re.sub(r"(?<![\w-])-(?=[\d.])", MINUS, text)
