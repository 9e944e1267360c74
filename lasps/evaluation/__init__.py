"""Evaluation of forecasts: calibrated probabilities, metrics, baselines, intervals over days, reports.

Everything here takes plain arrays and tables and returns numbers; it knows no model and no dataset.
"""
