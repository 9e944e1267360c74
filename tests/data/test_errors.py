import zipfile
import zlib

import polars as pl
import pytest

from lasps.data.errors import DataError, explained


def overflow() -> None:
    pl.Series("volume", [1.0, float("inf")]).to_frame().select(pl.col("volume").cast(pl.Int64))


def panic() -> None:
    raise pl.exceptions.PanicException("index out of bounds")


def torn_zip() -> None:
    raise zipfile.BadZipFile("File is not a zip file")


def torn_gzip() -> None:
    zlib.decompress(b"nonsense")


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        (overflow, "column 'volume'.*inf"),
        (panic, "index out of bounds"),
        (torn_zip, "not a zip file"),
        (torn_gzip, "incorrect header check"),
    ],
)
def test_a_librarys_exception_becomes_one_line_with_place_and_advice(fault, seen) -> None:
    message = rf"^bars\.csv: expected numbers, got: .*{seen}.*\. Do this$"
    with pytest.raises(ValueError, match=message) as raised, explained("bars.csv", "numbers", "Do this"):
        fault()
    assert isinstance(raised.value, DataError) and raised.value.__cause__ is not None
    assert "\n" not in str(raised.value)


def test_errors_that_already_say_what_to_do_and_errors_of_our_own_code_pass_unchanged() -> None:
    for error in (ValueError("said"), KeyError("bug"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as raised, explained("bars.csv", "numbers"):
            raise error
        assert raised.value is error
