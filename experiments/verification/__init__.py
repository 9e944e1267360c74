"""Checks of the whole product from outside: what `make torture` does to its commands."""
