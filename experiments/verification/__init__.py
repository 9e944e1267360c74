"""Checks of the whole product: known answers for `make verify`, and what `make torture` does to its commands."""
