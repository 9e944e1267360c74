"""A synthetic Korean-like market whose truth is known: bars, listing, state, and the class probabilities given it."""

from lasps.data.sources.synthetic.market import SyntheticMarket, make_market
from lasps.data.sources.synthetic.oracle import OracleForecast

__all__ = ["OracleForecast", "SyntheticMarket", "make_market"]
