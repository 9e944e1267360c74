"""The task and its data: how far a label looks ahead, what makes a class, and how long a sample looks back.

These are the defaults of every dataset. What one dataset was built with stands in its dataset.json, and code that has
a dataset at hand reads it from there.
"""

from __future__ import annotations

HORIZON = 5
"""Traded days ahead whose return is predicted: a trading week."""

THRESHOLD = 0.03
"""Return over the horizon from which a label is BUY (SELL from minus this)."""

WINDOW = 60
"""Traded days in one sample, its own day included: a quarter of a year."""

CHART_SIZE = (96, 180)
"""Height x width of a sample's chart, 3 pixels for each of the 60 days (Jiang, Kelly & Xiu 2023)."""

TRAIN_SHARE, VAL_SHARE = 0.70, 0.15
"""Shares of the market's days, first to last, where no borders are given; the rest is test."""
