"""What tests of training share."""

from collections.abc import Iterator

import pytest
from loguru import logger


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """Log lines as text."""
    kept: list[str] = []
    sink = logger.add(lambda message: kept.append(message.record["message"]), level="INFO")
    yield kept
    logger.remove(sink)
