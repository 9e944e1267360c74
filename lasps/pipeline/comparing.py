"""What a comparison is made from: checkpoints, MLflow runs and prediction files, the baselines, the prior."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from loguru import logger

from lasps.data.datasets.loading import load_split, read_description
from lasps.evaluation import baselines
from lasps.evaluation.metrics import class_frequencies
from lasps.evaluation.predictions import keys_of, read_predictions, write_predictions
from lasps.pipeline.summary import as_baseline_split
from lasps.pipeline.validation import open_checkpoint, validate_checkpoint
from lasps.tracking import download_predictions

SPLITS = ("train", "val", "test")
BASELINE_VERSION = 1
"""Part of the cache's key: raise it when a baseline's forecast changes."""
RUN_ID = "[0-9a-f]{32}"
TABLE_SUFFIXES = (".parquet", ".csv")


@dataclass(frozen=True)
class Source:
    """One input of a comparison: NAME=WHERE, or WHERE alone (a .pt file, a prediction file, an MLflow run id)."""

    where: str
    name: str | None = None

    @classmethod
    def parse(cls, text: str) -> Source:
        name, equals, where = text.partition("=")
        return cls(where, name) if equals and name and not Path(text).exists() else cls(text)


def load_tables(
    source: Source, splits: Sequence[str], data_dir: Path, device: str, batch_size: int
) -> list[pl.DataFrame]:
    """The source's prediction tables on the splits, each with its `model` and `split` column.

    A prediction file brings its own split: its `split` column, else ".val." or ".test." in its name, else the first
    of `splits`; a file of a split that was not asked for gives nothing, with a warning.

    Raises:
        ValueError, FileNotFoundError: nothing of that name, or a table or checkpoint that is refused.
    """
    path = Path(source.where)
    if path.suffix in TABLE_SUFFIXES:
        table = read_predictions(path)
        split = _split_of(table, path, splits)
        if split not in splits:
            logger.warning(f"{path} holds predictions on {split}, asked for is {', '.join(splits)}: left out")
            return []
        return [_named(table, source.name or _model_of(table) or path.name.split(".")[0], split)]
    if path.suffix == ".pt" or path.exists():
        checkpoint = open_checkpoint(path, device)
        found = [validate_checkpoint(checkpoint, data_dir, split, device, batch_size) for split in splits]
        return [_named(v.table, source.name or checkpoint.name, v.split) for v in found]
    return [_of_run(source, split) for split in splits]


def _of_run(source: Source, split: str) -> pl.DataFrame:
    if not re.fullmatch(RUN_ID, source.where):
        raise ValueError(f"{source.where}: expected a checkpoint (.pt), a prediction file (.parquet, .csv) or the id "
                         "of an MLflow run (32 hexadecimal digits); there is no such file")  # fmt: skip
    table = read_predictions(download_predictions(source.where, split))
    return _named(table, source.name or _model_of(table) or source.where[:8], split)


def _named(table: pl.DataFrame, name: str, split: str) -> pl.DataFrame:
    return table.with_columns(model=pl.lit(name), split=pl.lit(split))


def _model_of(table: pl.DataFrame) -> str | None:
    return _only_value(table, "model")


def _only_value(table: pl.DataFrame, column: str) -> str | None:
    values = table[column].drop_nulls().unique().to_list() if column in table.columns else []
    if len(values) > 1:
        raise ValueError(f"one table holds one model on one split, found {column} {values[:4]}: filter it first")
    return values[0] if values else None


def _split_of(table: pl.DataFrame, path: Path, splits: Sequence[str]) -> str:
    named = [s for s in SPLITS if s in path.name.split(".")]
    return _only_value(table, "split") or (named[0] if named else splits[0])


def load_models(
    texts: Iterable[str], splits: Sequence[str], data_dir: Path, device: str = "cpu", batch_size: int = 512
) -> dict[str, dict[str, list[pl.DataFrame]]]:
    """{name: {split: one table per seed}} in the order given.

    Sources of the same name are seeds of one model if their seeds differ and are known; otherwise each gets its
    folder's name in front.
    """
    loaded = [(text, load_tables(Source.parse(text), splits, data_dir, device, batch_size)) for text in texts]
    by_name: dict[str, list[tuple[str, list[pl.DataFrame]]]] = {}
    for text, tables in loaded:
        if tables:
            by_name.setdefault(tables[0]["model"][0], []).append((text, tables))
    models: dict[str, dict[str, list[pl.DataFrame]]] = {}
    for name, members in by_name.items():
        if len(members) > 1 and not _are_seeds(members):
            logger.info(f"several models called {name} without seeds of their own: told apart by where they are")
            for own, (_, tables) in zip(_own_names(name, members), members, strict=True):
                _collect(models, own, tables)
            continue
        for _, tables in members:
            _collect(models, name, tables)
    if not models:
        raise ValueError(f"nothing to compare on {', '.join(splits)}")
    return models


def _are_seeds(members: list[tuple[str, list[pl.DataFrame]]]) -> bool:
    """Whether every split's tables have known and different seeds (files of one model on two splits do)."""
    seen: dict[str, list[object]] = {}
    for _, tables in members:
        for t in tables:
            seen.setdefault(t["split"][0], []).append(t["seed"][0] if "seed" in t.columns else None)
    return all(len(s) == 1 or (None not in s and len(set(s)) == len(s)) for s in seen.values())


def _own_names(name: str, members: list[tuple[str, list[pl.DataFrame]]]) -> list[str]:
    folders = [Path(Source.parse(text).where).resolve().parent.name for text, _ in members]
    if len(set(folders)) == len(folders):
        return [f"{folder}/{name}" for folder in folders]
    return [f"{name} ({i})" for i in range(1, len(members) + 1)]


def _collect(models: dict[str, dict[str, list[pl.DataFrame]]], name: str, tables: list[pl.DataFrame]) -> None:
    for table in tables:
        models.setdefault(name, {}).setdefault(table["split"][0], []).append(table)


def prior_of(
    data_dir: Path, models: Mapping[str, Mapping[str, Sequence[pl.DataFrame]]]
) -> tuple[tuple[float, ...] | None, str]:
    """(training class frequencies, where they come from) if the tables are this dataset's, else (None, why not)."""
    labels = Path(data_dir) / "train" / "labels.npy"
    description = read_description(data_dir) if Path(data_dir).is_dir() else None
    known = (description or {}).get("train_class_frequencies")
    if known is None and not labels.is_file():
        return None, f"{data_dir} has no training labels"
    for split, seeds in next(iter(models.values())).items():
        if not _same_data(load_split(data_dir, split).samples, seeds[0]):
            return None, f"the predictions on {split} are not of the dataset in {data_dir}"
    if known is not None:
        return tuple(float(x) for x in known), f"training frequencies, {Path(data_dir) / 'dataset.json'}"
    return class_frequencies(np.load(labels)), f"training frequencies, {labels}"


def _same_data(samples: pl.DataFrame | None, table: pl.DataFrame) -> bool:
    """Whether every row of the table is a sample of the dataset; rows without dates cannot tell and are believed."""
    if keys_of(table) == ["row"] or samples is None or not {"code", "date"} <= set(samples.columns):
        return True
    return table.select("code", "date").join(samples, on=["code", "date"], how="anti").is_empty()


def cached_baselines(
    data_dir: Path, splits: Sequence[str], cache_dir: Path, names: Sequence[str] = tuple(baselines.BASELINES)
) -> dict[str, dict[str, pl.DataFrame]]:
    """Baseline tables on the splits, fitted once per dataset (by content) and kept under `cache_dir`."""
    datasets = {split: load_split(data_dir, split) for split in SPLITS}
    content = "|".join([str(BASELINE_VERSION), *(d.fingerprint for d in datasets.values())])
    folder = Path(cache_dir) / f"baselines-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
    files = {name: {split: folder / f"{name}.{split}.parquet" for split in splits} for name in names}
    complete = folder / "complete"
    done = set(complete.read_text(encoding="utf-8").split()) if complete.is_file() else set()
    missing = [name for name in names if not {f"{name}.{split}" for split in splits} <= done]
    if missing:
        logger.info(f"fitting baselines {', '.join(missing)}")
        arrays = {split: as_baseline_split(d) for split, d in datasets.items()}
        found = baselines.fit_baselines(arrays["train"], arrays["val"], {s: arrays[s] for s in splits}, missing)
        for name, by_split in found.items():
            for split, table in by_split.items():
                write_predictions(table, files[name][split])
        folder.mkdir(parents=True, exist_ok=True)
        done |= {f"{name}.{split}" for name in missing for split in splits}
        complete.write_text("\n".join(sorted(done)) + "\n", encoding="utf-8")
    kept = {n: {s: read_predictions(p) for s, p in by_split.items() if p.is_file()} for n, by_split in files.items()}
    return {name: by_split for name, by_split in kept.items() if by_split}
