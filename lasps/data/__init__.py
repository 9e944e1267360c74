"""Market data: sources, panel, features, labels, charts, datasets."""
