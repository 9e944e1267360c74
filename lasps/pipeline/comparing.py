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
from lasps.data.splits import SPLITS
from lasps.evaluation import baselines
from lasps.evaluation.metrics import class_frequencies
from lasps.evaluation.predictions import keys_of, read_predictions, seed_of, write_predictions
from lasps.pipeline.summary import baseline_split
from lasps.pipeline.validation import open_checkpoint, predictions_path, validate_checkpoint
from lasps.reproducibility import write_atomically
from lasps.tracking import download_predictions

BASELINE_VERSION = 2
"""Part of the cache's key: raise it when a baseline's forecast changes."""
RUN_ID = "[0-9a-f]{32}"
TABLE_SUFFIXES = (".parquet", ".csv")
PHASE1 = "phase1_best"


@dataclass(frozen=True)
class Source:
    """One model of a comparison: [NAME=]WHERE[,WHERE ...], where each WHERE is one seed of it.

    WHERE is a checkpoint (.pt), a prediction file or the id of an MLflow run.
    """

    wheres: tuple[str, ...]
    name: str | None = None

    @classmethod
    def parse(cls, text: str) -> Source:
        """Raises ValueError for an empty WHERE; a file that has this very text as its name is one WHERE."""
        if Path(text).exists():
            return cls((text,))
        before, equals, after = text.partition("=")
        name, listed = (before, after) if equals and before else (None, text)
        wheres = tuple(listed.split(","))
        if not all(wheres):
            raise ValueError(f"{text!r}: expected [NAME=]WHERE[,WHERE ...], where each WHERE is a checkpoint, a "
                             "prediction file or a run id; one of them is empty")  # fmt: skip
        return cls((listed,) if Path(listed).exists() else wheres, name)


@dataclass(frozen=True)
class Loader:
    """How tables are come by: the splits asked for, and the dataset that checkpoints predict."""

    splits: Sequence[str]
    data_dir: Path
    device: str = "cpu"
    batch_size: int = 512

    def tables(self, where: str) -> list[pl.DataFrame]:
        """One prediction table per split, each with its `model` and `split` column.

        A prediction file brings its own split: its `split` column, else ".val." or ".test." in its name, else the
        first that is asked for; a file of another split gives nothing, with a warning. A checkpoint's tables are
        written beside it, as validate_model.py does.

        Raises:
            ValueError, FileNotFoundError: nothing of that name, or a table or checkpoint that is refused.
        """
        path = Path(where)
        if path.suffix in TABLE_SUFFIXES:
            table = read_predictions(path)
            split = _split_of(table, path, self.splits)
            if split not in self.splits:
                logger.warning(f"{path} holds predictions on {split}, asked for is {', '.join(self.splits)}: left out")
                return []
            return [_named(table, _only_value(table, "model") or path.name.split(".")[0], split)]
        if path.suffix == ".pt" or path.exists():
            return [self._validated(path, split) for split in self.splits]
        return [_of_run(where, split) for split in self.splits]

    def _validated(self, path: Path, split: str) -> pl.DataFrame:
        checkpoint = open_checkpoint(path, self.device)
        table = validate_checkpoint(checkpoint, self.data_dir, split, self.device, self.batch_size).table
        try:
            write_predictions(table, predictions_path(path, checkpoint.name, split))
        except OSError as error:
            logger.warning(f"the predictions of {path} on {split} are not kept: {error}")
        return _named(table, checkpoint.name, split)


def _of_run(run_id: str, split: str) -> pl.DataFrame:
    if not re.fullmatch(RUN_ID, run_id):
        raise ValueError(f"{run_id}: expected a checkpoint (.pt), a prediction file (.parquet, .csv) or the id "
                         "of an MLflow run (32 hexadecimal digits); there is no such file")  # fmt: skip
    table = read_predictions(download_predictions(run_id, split))
    return _named(table, _only_value(table, "model") or run_id[:8], split)


def _named(table: pl.DataFrame, name: str, split: str) -> pl.DataFrame:
    return table.with_columns(model=pl.lit(name), split=pl.lit(split))


def _only_value(table: pl.DataFrame, column: str) -> str | None:
    values = table[column].drop_nulls().unique().to_list() if column in table.columns else []
    if len(values) > 1:
        raise ValueError(f"one table holds one model on one split, found {column} {values[:4]}: filter it first")
    return values[0] if values else None


def _split_of(table: pl.DataFrame, path: Path, splits: Sequence[str]) -> str:
    named = [s for s in SPLITS if s in path.name.split(".")]
    return _only_value(table, "split") or (named[0] if named else splits[0])


def load_models(texts: Iterable[str], loader: Loader) -> dict[str, dict[str, list[pl.DataFrame]]]:
    """{name: {split: one table per seed}} in the order given; each text is a `Source`.

    Models of the same name count as seeds of one if their seeds are known and differ; otherwise each gets its
    folder's name in front.

    Raises:
        ValueError: see `Loader.tables`; nothing on the splits asked for; one seed twice within one source.
    """
    by_name: dict[str, list[tuple[Source, list[pl.DataFrame]]]] = {}
    for source in map(Source.parse, texts):
        tables = [table for where in source.wheres for table in loader.tables(where)]
        if tables:
            by_name.setdefault(source.name or tables[0]["model"][0], []).append((source, tables))
    models: dict[str, dict[str, list[pl.DataFrame]]] = {}
    for name, members in by_name.items():
        all_seeds = _are_seeds([t for _, tables in members for t in tables])
        if len(members) > 1 and not all_seeds:
            logger.info(f"several models called {name} without seeds of their own: told apart by where they are")
        own = [name] * len(members) if all_seeds else _own_names(name, [source for source, _ in members])
        for new_name, (source, tables) in zip(own, members, strict=True):
            _refuse_equal_seeds(source, tables)
            for table in tables:
                split = table["split"][0]
                models.setdefault(new_name, {}).setdefault(split, []).append(_named(table, new_name, split))
    if not models:
        raise ValueError(f"nothing to compare on {', '.join(loader.splits)}")
    return models


def _seeds_by_split(tables: Iterable[pl.DataFrame]) -> list[list[int | None]]:
    seen: dict[str, list[int | None]] = {}
    for table in tables:
        seen.setdefault(table["split"][0], []).append(seed_of(table))
    return list(seen.values())


def _are_seeds(tables: Iterable[pl.DataFrame]) -> bool:
    """Whether every split's tables have known and different seeds (files of one model on two splits do)."""
    return all(len(s) == 1 or (None not in s and len(set(s)) == len(s)) for s in _seeds_by_split(tables))


def _refuse_equal_seeds(source: Source, tables: Iterable[pl.DataFrame]) -> None:
    for seeds in _seeds_by_split(tables):
        known = [s for s in seeds if s is not None]
        if len(set(known)) < len(known):
            raise ValueError(f"{','.join(source.wheres)}: expected one model trained from different seeds, got seeds "
                             f"{seeds}. Give models that are not seeds of one as separate arguments.")  # fmt: skip


def _own_names(name: str, sources: Sequence[Source]) -> list[str]:
    folders = [Path(source.wheres[0]).resolve().parent.name for source in sources]
    if len(sources) == 1:
        return [name]
    if len(set(folders)) == len(folders):
        return [f"{folder}/{name}" for folder in folders]
    return [f"{name} ({i})" for i in range(1, len(sources) + 1)]


def phase1_beside(texts: Iterable[str]) -> list[str]:
    """The phase1_best that lies beside each checkpoint or prediction file, a baseline of its own: those that exist."""
    found: dict[str, None] = {}
    for where in (where for text in texts for where in Source.parse(text).wheres):
        path = Path(where)
        rest = "pt" if path.suffix == ".pt" else path.name.partition(".")[2]
        beside = path.with_name(f"{PHASE1}.{rest}")
        if path.suffix in (".pt", *TABLE_SUFFIXES) and beside.is_file():
            found[str(beside)] = None
    return list(found)


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
) -> dict[str, dict[str, list[pl.DataFrame]]]:
    """Baselines as `load_models` gives models, fitted once per dataset (by content) and kept under `cache_dir`."""
    fingerprints = [load_split(data_dir, split).fingerprint for split in SPLITS]
    content = "|".join([str(BASELINE_VERSION), *fingerprints])
    folder = Path(cache_dir) / f"baselines-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
    files = {name: {split: folder / f"{name}.{split}.parquet" for split in splits} for name in names}
    complete = folder / "complete"
    done = set(complete.read_text(encoding="utf-8").split()) if complete.is_file() else set()
    missing = [name for name in names if not {f"{name}.{split}" for split in splits} <= done]
    if missing:
        logger.info(f"fitting baselines {', '.join(missing)}")
        arrays = {split: baseline_split(data_dir, split) for split in SPLITS}
        found = baselines.fit_baselines(arrays["train"], arrays["val"], {s: arrays[s] for s in splits}, missing)
        for name, by_split in found.items():
            for split, table in by_split.items():
                write_predictions(table, files[name][split])
        done |= {f"{name}.{split}" for name in missing for split in splits}
        write_atomically(complete, "\n".join(sorted(done)) + "\n")
    kept = {n: {s: [read_predictions(p)] for s, p in by_split.items() if p.is_file()} for n, by_split in files.items()}
    return {name: by_split for name, by_split in kept.items() if by_split}
