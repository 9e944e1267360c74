"""The frozen backbone's shared features, computed once per (backbone weights, data) and cached on disk.

An entry is a folder `{precision}-{backbone}-{data}` of features.npy, labels.npy, sector_ids.npy and meta.json with each
file's size and SHA-256. It is written beside its final name and renamed when complete, and it is verified when read, so
a killed run or a damaged disk costs a second pass, never a wrong result.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loguru import logger
from torch import Tensor, nn
from tqdm import tqdm

from lasps.config.model_config import TRAINING_CONFIG
from lasps.data.datasets.scan import create_array
from lasps.files import sweep, sync, write_synced
from lasps.reproducibility import sha256_of, tensor_fingerprint
from lasps.training.batches import Batch
from lasps.training.heads.data import HeadSamples
from lasps.training.heads.sample_sources import SampleSource, sources_of
from lasps.training.inference import evaluating
from lasps.window_parts import Reads

HEAD_PREFIXES = ("common_head.", "sector_heads.")
CACHE_VERSION = 1  # raise it when the same weights and data give other features
CHECKED_SAMPLES = 16
CHECK_TOLERANCE = 0.02  # bf16 keeps 8 bits, and a batch of another size sums in another order
KEPT_ENTRIES = 8  # train and val of the last few backbones; guess, not tuned
MAPPED_BYTES = 64 * 2**20  # larger features stay on disk, memory-mapped


def shared_samples(
    model: nn.Module,
    loaders: Any,
    *,
    device: str | torch.device = "cpu",
    cache_dir: Path | None = None,
    batch_size: int = TRAINING_CONFIG["eval_batch_size"],
    with_days: bool = False,
    desc: str = "shared features",
) -> HeadSamples:
    """The samples behind `loaders` as the heads see them: one pass of the backbone in eval mode, or none if cached.

    Args:
        model: with `encode(ts, img) -> (B, D)`. Its modes are restored; weights, buffers and gradients are untouched.
        loaders: `{sector: loader}`, or one loader or dataset over many sectors.
        cache_dir: where features are cached; None computes them in memory.
        with_days: look up each sample's date in the datasets' `samples` table; without one, days are None.

    Raises:
        ValueError: NaN or infinite features (the batch is named), or samples of another sector than their loader's.
    """
    sources = sources_of(loaders)
    prefix = f"{_precision(device)}-{backbone_fingerprint(model)[:16]}"
    days = _days_of(sources) if with_days else None
    entry = _known_entry(cache_dir, prefix, sources, batch_size, desc) if cache_dir is not None else None
    found = read_entry(entry) if entry is not None else None
    if found is not None and not _still_true(found, model, sources, torch.device(device)):
        logger.warning(f"{desc}: cached features do not match this code; recomputing")
        found = None
    if found is None:
        found = _compute(model, sources, torch.device(device), batch_size, desc, cache_dir, prefix)
    else:
        _check_sectors(sources, found.sector_ids)
        logger.info(f"{desc}: {len(found)} samples cached by an earlier pass")
    if days is None or len(days) != len(found):
        return found
    return HeadSamples(found.features, found.labels, found.sector_ids, days, found.fingerprint)


def backbone_fingerprint(model: nn.Module) -> str:
    """SHA-256 of all weights and buffers but the heads'."""
    backbone = {name: value for name, value in model.state_dict().items() if not name.startswith(HEAD_PREFIXES)}
    state = tensor_fingerprint(backbone)
    return hashlib.sha256(f"{CACHE_VERSION}:{type(model).__qualname__}:{state}".encode()).hexdigest()


# ---------------------------------------------------------------------------------------------------- the pass


def _compute(
    model: nn.Module,
    sources: list[SampleSource],
    device: torch.device,
    batch_size: int,
    desc: str,
    cache_dir: Path | None,
    prefix: str,
) -> HeadSamples:
    digest = None if all(source.fingerprint for source in sources) else hashlib.sha256()
    folder = None if cache_dir is None else _fresh_folder(cache_dir)
    with _removed_on_error(folder):
        features, labels, sectors = _encode(model, sources, device, batch_size, desc, digest, folder)
        data = _described(sources) if digest is None else f"content-{digest.hexdigest()}"
        if cache_dir is None or folder is None:
            return HeadSamples(torch.from_numpy(features), labels, sectors, fingerprint=f"{prefix}-{data}")
        entry = cache_dir / f"{prefix}-{data[:40]}"
        _publish(folder, entry, features, labels, sectors, f"{prefix}-{data}")
    del features
    _forget_old(cache_dir, entry)
    cached = read_entry(entry)
    if cached is None:
        raise ValueError(f"{entry}: features just written cannot be read back: check the disk, or use cache=False")
    return cached


@torch.no_grad()
def _encode(
    model: nn.Module,
    sources: list[SampleSource],
    device: torch.device,
    batch_size: int,
    desc: str,
    digest: Any,
    folder: Path | None,
) -> tuple[np.ndarray, Tensor, Tensor]:
    """Features float32 (N, D), labels (N,), sector ids (N,): into a file in `folder` where the number is known."""
    lengths = [None if source.indices is None else len(source.indices) for source in sources]
    total = None if None in lengths else sum(n for n in lengths if n is not None)
    features: np.ndarray | None = None
    parts: list[np.ndarray] = []
    labels: list[Tensor] = []
    sectors: list[Tensor] = []
    done = 0
    reads = getattr(model, "reads", None) if digest is None else None  # a digest is of whole windows
    model.to(device)
    with evaluating(model), tqdm(total=total, desc=desc, unit="sample", unit_scale=True, disable=None) as bar:
        for batch in _all_batches(sources, batch_size, reads):
            if digest is not None:
                _hash_batch(digest, batch)
            found = _encode_batch(model, batch, device, done)
            if total is None:
                parts.append(found)
            else:
                if features is None:
                    features = _storage(folder, (total, found.shape[1]))
                features[done : done + len(found)] = found
            labels.append(batch.labels.cpu())
            sectors.append(batch.sector_ids.cpu())
            done += len(found)
            bar.update(len(found))
    if done == 0:
        raise ValueError(f"{desc}: expected at least one sample behind the loaders, got none: check the split")
    if features is None:
        features = np.concatenate(parts)
    return features, torch.cat(labels), torch.cat(sectors)


def _encode_batch(model: nn.Module, batch: Batch, device: torch.device, done: int) -> np.ndarray:
    half = torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()
    with half:
        shared = model.encode(batch.time_series.to(device), batch.charts.to(device))  # type: ignore[operator]
    found = shared.float().cpu()
    bad = ~torch.isfinite(found).all(dim=1)
    if bad.any():
        raise ValueError(
            f"expected finite shared features, got NaN or infinity for {int(bad.sum())} of samples {done}.."
            f"{done + len(bad) - 1}, first {done + int(bad.nonzero()[0, 0])}: the backbone's weights or its input are "
            "broken there"
        )
    features: np.ndarray = found.numpy()
    return features


@torch.no_grad()
def _still_true(cached: HeadSamples, model: nn.Module, sources: list[SampleSource], device: torch.device) -> bool:
    """Whether the backbone still gives the first cached features: weights say nothing of changed code."""
    model.to(device)
    batch = next(sources[0].batches(CHECKED_SAMPLES, getattr(model, "reads", None)), None)
    if batch is None or len(cached) == 0:
        return False
    with evaluating(model):
        found = _encode_batch(model, batch, device, 0)
    return bool(np.allclose(found, cached.features[: len(found)].numpy(), rtol=CHECK_TOLERANCE, atol=CHECK_TOLERANCE))


def _check_sectors(sources: list[SampleSource], sector_ids: Tensor) -> None:
    """As reading the samples does: an earlier pass may have read them through other loaders."""
    sizes = [len(source.indices) for source in sources if source.indices is not None]
    for source, own in zip(sources, torch.split(sector_ids, sizes), strict=True):
        source.check_sectors(own)


def _all_batches(sources: list[SampleSource], batch_size: int, reads: Reads | None = None) -> Iterator[Batch]:
    for source in sources:
        yield from source.batches(batch_size, reads)


def _storage(folder: Path | None, shape: tuple[int, int]) -> np.ndarray:
    if folder is None:
        return np.empty(shape, dtype=np.float32)
    return create_array(folder / "features.npy", np.float32, shape)


def _precision(device: str | torch.device) -> str:
    return "bf16" if torch.device(device).type == "cuda" else "fp32"


# ---------------------------------------------------------------------------------------------------- keys


def _known_entry(cache_dir: Path, prefix: str, sources: list[SampleSource], batch_size: int, desc: str) -> Path | None:
    """The entry that holds these samples, if there can be one: by the datasets' fingerprints, else by content."""
    if all(source.fingerprint for source in sources):
        return cache_dir / f"{prefix}-{_described(sources)[:40]}"
    if any(source.indices is None for source in sources) or not list(cache_dir.glob(f"{prefix}-content-*")):
        return None  # an iterable may end after one pass; and nothing cached, nothing to look for
    digest = hashlib.sha256()
    for batch in tqdm(_all_batches(sources, batch_size), desc=f"{desc}: hash", unit="batch", disable=None):
        _hash_batch(digest, batch)
    return cache_dir / f"{prefix}-{f'content-{digest.hexdigest()}'[:40]}"


def _described(sources: list[SampleSource]) -> str:
    digest = hashlib.sha256()
    for source in sources:
        assert source.indices is not None
        digest.update(f"{source.fingerprint}:{len(source.indices)}:".encode())
        digest.update(np.ascontiguousarray(source.indices).tobytes())
    return digest.hexdigest()


def _hash_batch(digest: Any, batch: Batch) -> None:
    for tensor in batch:
        assert isinstance(tensor, Tensor)
        digest.update(f"{tensor.dtype}{tuple(tensor.shape[1:])}".encode())
        digest.update(np.ascontiguousarray(tensor.cpu().numpy()).data)


def _days_of(sources: list[SampleSource]) -> np.ndarray | None:
    """Each sample's date as a day number (N,), None if any source does not know its dates."""
    found = []
    for source in sources:
        table = getattr(source.dataset, "samples", None)
        if source.indices is None or table is None or "date" not in getattr(table, "columns", ()):
            return None
        dates = table["date"].to_numpy()
        if len(dates) <= source.indices.max(initial=-1):
            return None
        found.append(dates[source.indices].astype("datetime64[D]").astype(np.int64))
    return np.concatenate(found) if found else None


# ---------------------------------------------------------------------------------------------------- the disk


def read_entry(entry: Path) -> HeadSamples | None:
    """A cached entry, verified; None if it is not there. A damaged one is removed with a warning."""
    if not entry.is_dir():
        return None
    try:
        meta = json.loads((entry / "meta.json").read_text())
        for name, expected in meta["files"].items():
            found = {"size": (entry / name).stat().st_size, "sha256": sha256_of(entry / name)}
            if found != expected:
                raise ValueError(f"{name} was altered")
        features = _load(entry / "features.npy")
        labels, sectors = np.load(entry / "labels.npy"), np.load(entry / "sector_ids.npy")
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning(f"{entry.name}: cached features are damaged ({error}); recomputing")
        shutil.rmtree(entry, ignore_errors=True)
        return None
    os.utime(entry)
    return HeadSamples(
        torch.from_numpy(features), torch.from_numpy(labels), torch.from_numpy(sectors), fingerprint=meta["fingerprint"]
    )


def _load(path: Path) -> np.ndarray:
    """Mapped copy-on-write when large, so that nobody can write to the file; else in memory."""
    array: np.ndarray = np.load(path, mmap_mode="c" if path.stat().st_size > MAPPED_BYTES else None)
    return array


def _publish(
    folder: Path, entry: Path, features: np.ndarray, labels: Tensor, sectors: Tensor, fingerprint: str
) -> None:
    arrays = {"features.npy": features, "labels.npy": labels.numpy(), "sector_ids.npy": sectors.numpy()}
    for name, values in arrays.items():
        if isinstance(values, np.memmap):  # written already
            values.flush()
            sync(folder / name)
        else:
            write_synced(folder / name, partial(np.save, arr=values))
    files = {name: {"size": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)} for name in arrays}
    write_synced(folder / "meta.json", json.dumps({"fingerprint": fingerprint, "files": files}, indent=2))
    shutil.rmtree(entry, ignore_errors=True)
    os.rename(folder, entry)
    sync(entry.parent)


@contextmanager
def _removed_on_error(folder: Path | None) -> Iterator[None]:
    """A full disk or a stop leaves no half-written folder behind."""
    try:
        yield
    except BaseException:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _fresh_folder(cache_dir: Path) -> Path:
    """A folder to write into; what killed runs left behind is removed."""
    cache_dir.mkdir(parents=True, exist_ok=True)
    sweep(cache_dir, ".writing-")
    folder = cache_dir / f".writing-{os.getpid()}-{os.urandom(4).hex()}"
    folder.mkdir()
    return folder


def _forget_old(cache_dir: Path, newest: Path) -> None:
    entries = sorted((e for e in cache_dir.iterdir() if (e / "meta.json").is_file()), key=lambda e: e.stat().st_mtime)
    for entry in entries[:-KEPT_ENTRIES]:
        if entry != newest:
            shutil.rmtree(entry, ignore_errors=True)
