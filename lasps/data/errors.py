"""The one place where an exception of a library becomes an error that a user can act on.

The data path runs on polars, pyarrow and the standard library's decompressors. Their exceptions are no ValueError, name
neither file nor row and say nothing about what to do; some of polars' are not even an Exception (a panic).
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import polars as pl

LIBRARY_ERRORS: tuple[type[BaseException], ...] = (
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OverflowError,
)
ADVICE = "Correct these values in the source or read it again; LASPS_LOG=DEBUG shows where it was raised"


class DataError(ValueError):
    """Data that cannot be used: what was expected, what came, where, what to do."""


@contextmanager
def explained(where: Any, expected: str, advice: str = ADVICE) -> Iterator[None]:
    """Turn every library's exception inside the block into a DataError; a ValueError passes as it is.

    Args:
        where: the file or the step, named first.
        expected: what should have been there, e.g. "a readable parquet file".
        advice: what to do.
    """
    try:
        yield
    except LIBRARY_ERRORS as error:
        raise DataError(f"{where}: expected {expected}, got: {_first_lines(error)}. {advice}") from error


def _first_lines(error: BaseException) -> str:
    """What the library says, without its traces of expressions and plans."""
    text = str(error).split("\n\n")[0].strip()
    return " ".join(text.split()).rstrip(".")[:400] or type(error).__name__
