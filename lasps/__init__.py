"""lasps: sector-aware SELL / HOLD / BUY prediction of Korean stocks, with every number traceable to its run."""

__version__ = "0.2.0"
