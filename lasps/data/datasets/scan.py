"""Looking once, and completely, at arrays on disk: content digests, and stamps that spare the second look.

A scan reads every byte of an array in chunks. Its result is stamped into `.scan.json` beside the arrays, under a key
made of each file's size, modification time, change time, inode and a digest of its content: the whole of a file of up
to 16 MB, of a larger one 64 sampled blocks (its other bytes are compared by `make check-data DEEP=1`). Any difference
there, and the stamp is not used. A folder that cannot be written is simply scanned each time.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from loguru import logger
from tqdm import tqdm

from lasps.files import write_atomically

SCAN_VERSION = 2
"""Raised whenever a scan checks more than before: stamps of other versions are not used."""

STAMP_NAME = ".scan.json"
CHUNK_BYTES = 8 << 20
SAMPLED_BLOCKS = 64
BLOCK_BYTES = 4096
WHOLE_BYTES = 16 << 20
"""Files up to this size are read whole each time: 16 MB take SHA-256 20 to 60 ms."""
RACY_SECONDS = 0.05
"""A file changed this shortly before the scan could change again within one tick of the file system's clock."""


class MissingFileError(FileNotFoundError, ValueError):
    """A file or folder that was asked for is not there: a FileNotFoundError, and like every user error a ValueError."""


def open_array(path: str | Path, what: str) -> np.ndarray:
    """Memory-map an .npy file, copy on write, so that reading makes no anonymous memory.

    Raises:
        MissingFileError: there is no such file.
        ValueError: it is no readable .npy array (truncated, pickled objects, another format).
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(
            f"{what}: expected a .npy file at {path}, found none. Check the path, or run `make data` to build a dataset"
        )
    try:
        with path.open("rb") as file:
            empty = 0 in _read_header(file)[0]
        array = np.load(path, mmap_mode=None if empty else "c", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(
            f"{what}: expected a plain .npy array at {path}, numpy cannot read it ({error}). The file is "
            "truncated or of another kind: build or copy it again"
        ) from error
    if array.dtype.hasobject or array.dtype.names is not None:
        raise ValueError(f"{what}: expected numbers, {path} holds dtype {array.dtype}")
    return array.view(np.ndarray)


def create_array(path: Path, dtype: Any, shape: tuple[int, ...]) -> np.memmap:
    """A new .npy file to write into, mapped, whose room on the disk is taken at once.

    Without that, writing to the map of a full disk ends the process with a bus error.

    Raises:
        OSError: no room.
    """
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _read_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if reader is None:
        raise ValueError(f"unknown .npy version {version}")
    return reader(file)


def chunks(array: np.ndarray, desc: str) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first index, C-contiguous chunk) over the first axis, with a progress bar on large arrays."""
    row_bytes = max(1, array.nbytes // max(1, len(array)))
    step = max(1, CHUNK_BYTES // row_bytes)
    quiet = True if array.nbytes < 1 << 30 else None
    for start in tqdm(range(0, len(array), step), desc=desc, disable=quiet, leave=False):
        yield start, np.ascontiguousarray(array[start : start + step])


def digest(array: np.ndarray, check: Callable[[int, np.ndarray], None] | None = None, desc: str = "scan") -> str:
    """SHA-256 of an array's dtype, shape and values (C order), calling `check(first index, chunk)` on the way."""
    state = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    for start, chunk in chunks(array, desc):
        if check is not None:
            check(start, chunk)
        state.update(chunk.reshape(-1).view(np.uint8).data)
    return state.hexdigest()


def frame_digest(frame: pl.DataFrame) -> str:
    """SHA-256 of a table's values, whatever the file's version and compression."""
    state = hashlib.sha256()
    for column in frame:
        state.update(f"{column.name}:{column.dtype}".encode())
        if column.dtype == pl.String:
            values = np.frombuffer("\n".join(column.fill_null("\0").to_list()).encode(), dtype=np.uint8)
        else:
            values = column.to_physical().to_numpy()
        state.update(np.ascontiguousarray(values).tobytes())
    return state.hexdigest()


def combine(parts: Mapping[str, Any]) -> str:
    """SHA-256 of named parts, whatever their order."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def stamped(folder: Path, files: Mapping[str, Path], scan: Callable[[], dict[str, str]]) -> dict[str, str]:
    """`scan()`, or its stamped result in `folder` if no file has changed since.

    Args:
        folder: where the stamp lies.
        files: role -> path of every file that the scan reads.
        scan: returns role -> digest, and raises ValueError on bad content (then nothing is stamped).
    """
    identities = {role: _identity(path) for role, path in sorted(files.items())}
    key = {"version": SCAN_VERSION, "files": identities}
    stamps = read_stamps(folder / STAMP_NAME)
    for stamp in stamps:
        if stamp["key"] == key:
            return stamp["digests"]
    racy = any(time.time() - path.stat().st_mtime < RACY_SECONDS for path in files.values())
    digests = scan()
    if not racy:
        kept = [stamp for stamp in stamps if set(stamp["key"]["files"]) != set(identities)]
        _write_stamps(folder / STAMP_NAME, [*kept, {"key": key, "digests": digests}])
    return digests


def _identity(path: Path) -> list[Any]:
    stat = path.stat()
    state = hashlib.sha256()
    with path.open("rb") as file:
        if stat.st_size <= WHOLE_BYTES:
            return [
                path.name,
                stat.st_size,
                stat.st_mtime_ns,
                stat.st_ctime_ns,
                stat.st_ino,
                hashlib.file_digest(file, "sha256").hexdigest(),
            ]
        for offset in np.linspace(0, max(0, stat.st_size - BLOCK_BYTES), SAMPLED_BLOCKS).astype(np.int64).tolist():
            file.seek(offset)
            state.update(file.read(BLOCK_BYTES))
    return [path.name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, state.hexdigest()]


def read_stamps(path: Path) -> list[dict[str, Any]]:
    """The stamps in a file, each {"key": ..., "digests": {role: digest}}; none where it cannot be read."""
    try:
        stamps = json.loads(path.read_text())
        return [s for s in stamps if isinstance(s["digests"], dict) and isinstance(s["key"]["files"], dict)]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _write_stamps(path: Path, stamps: list[dict[str, Any]]) -> None:
    try:
        write_atomically(path, json.dumps(stamps))
    except OSError as error:
        logger.debug(f"no scan stamp in {path.parent}: {error}")
