"""A scan's stamp that cannot be written costs the next reader time, and leaves nothing behind."""

import os
from pathlib import Path

from lasps.data.datasets.scan import STAMP_NAME, stamped


def test_a_stamp_that_cannot_be_written_leaves_no_temporary(tmp_path: Path) -> None:
    array = tmp_path / "rows.npy"
    array.write_bytes(b"rows")
    os.utime(array, (1, 1))  # long enough ago to be stamped
    (tmp_path / STAMP_NAME).mkdir()
    assert stamped(tmp_path, {"rows": array}, lambda: {"rows": "ab"}) == {"rows": "ab"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [STAMP_NAME, "rows.npy"]
