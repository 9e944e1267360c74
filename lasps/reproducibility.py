"""What makes a run repeatable and its files trustworthy: seeds, digests, the commit, strict JSON, atomic writes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

CHUNK = 1 << 20


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices): one seed, the same bits on the same machine and thread count."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (for code of others that draws from the global generator)
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def derived_seed(*parts: int | str) -> int:
    """A seed in 0..2^63-1 that depends on all parts, e.g. (seed, "phase1", epoch)."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def tensor_fingerprint(state: Mapping[str, Tensor]) -> str:
    """A SHA-256 over names, types, shapes and bytes of tensors; their order in `state` does not matter."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def git_commit(folder: str | Path | None = None) -> str | None:
    """The commit around `folder` (default: this repo), with "+changes" where files differ; None without git."""
    where = Path(folder) if folder is not None else Path(__file__).resolve().parents[1]
    try:
        commit = _git(where, "rev-parse", "HEAD")
        return commit + ("+changes" if _git(where, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(where: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(where), *arguments], check=True, capture_output=True, text=True,
                          timeout=10).stdout.strip()


def write_atomically(path: str | Path, content: str | bytes | Callable[[BinaryIO], object]) -> Path:
    """Write a file in one step: whoever looks sees the old file or the whole new one, after a crash too.

    A temporary file in the same folder is written, synchronised to disk and renamed; an error removes it and leaves
    the old file.

    Args:
        path: the file; its folder is made where it is missing.
        content: text, bytes, or a function that writes to the open binary file.

    Returns:
        The path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write_synced(temporary, content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)
    return path


def write_synced(path: Path, content: str | bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file and wait until it is on the disk."""
    with open(path, "wb") as file:
        if callable(content):
            content(file)
        else:
            file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def json_text(value: Any) -> str:
    """`value` as readable, strict JSON: NaN and infinities, which JSON lacks, become null.

    Raises:
        TypeError: something in it is no mapping, list, text, number, path or NumPy array.
    """
    return json.dumps(json_ready(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def json_ready(value: Any) -> Any:
    """`value` of types that JSON has: NumPy's become Python's, paths text, NaN and infinities None."""
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_ready(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return json_ready(value.tolist())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value
