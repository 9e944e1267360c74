"""Where bars come from: the synthetic market, files, the exchange."""
