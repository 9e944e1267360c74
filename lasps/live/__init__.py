"""Living with a model: forecasts written down evening after evening, and scored when their days have come."""
