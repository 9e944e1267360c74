"""Warnings are errors here, except for those that a dependency causes inside another one."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """MLflow uses what SQLAlchemy 2.1 deprecates; neither is ours to change."""
    config.addinivalue_line("filterwarnings", "ignore:The ``noload`` loader strategy:DeprecationWarning")
