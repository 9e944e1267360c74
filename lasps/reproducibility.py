"""What makes a run repeatable and its files trustworthy: seeds, digests, the commit, strict JSON."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lasps.files import sync, write_atomically, write_synced

__all__ = [
    "derived_seed",
    "git_commit",
    "json_ready",
    "json_text",
    "seed_everything",
    "sha256_of",
    "sync",
    "tensor_fingerprint",
    "write_atomically",
    "write_synced",
]


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
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    return subprocess.run(
        ["git", "-C", str(where), *arguments], check=True, capture_output=True, text=True, timeout=10
    ).stdout.strip()


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
