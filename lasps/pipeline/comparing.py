"""What a comparison is made from: checkpoints, MLflow runs and prediction files, the baselines, the prior."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from loguru import logger

from lasps.data.datasets.dataset import Dataset
from lasps.data.splits import SPLITS
from lasps.evaluation.forecast import Forecast
from lasps.pipeline.validation import keep_predictions, predictions_path, validate_checkpoint
from lasps.tracking import download_predictions
from lasps.tracking.queries import RUN_ID
from lasps.training.ensembles import open_model

TABLE_SUFFIXES = (".parquet", ".csv")
PHASE1 = "phase1_best"


@dataclass(frozen=True)
class Source:
    """One model of a comparison: [NAME=]WHERE[,WHERE ...], where each WHERE is one seed of it.

    WHERE is a checkpoint (.pt), an ensemble (.json), a prediction file or the id of an MLflow run.
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
            raise ValueError(
                f"{text!r}: expected [NAME=]WHERE[,WHERE ...], where each WHERE is a checkpoint, a "
                "prediction file or a run id; one of them is empty"
            )
        return cls((listed,) if Path(listed).exists() else wheres, name)


@dataclass(frozen=True)
class Loader:
    """How tables are come by: the splits asked for, and the dataset that checkpoints predict."""

    splits: Sequence[str]
    data: Dataset
    device: str = "cpu"
    batch_size: int = 512

    def forecasts(self, where: str) -> list[Forecast]:
        """One forecast per split, each with its model's name and its split.

        A prediction file brings its own split: its `split` column, else ".val." or ".test." in its name, else the
        first that is asked for; a file of another split gives nothing, with a warning. A checkpoint's predictions are
        written beside it, as validate_model.py does.

        Raises:
            ValueError, FileNotFoundError: nothing of that name, or a table or checkpoint that is refused.
        """
        path = Path(where)
        if path.suffix in TABLE_SUFFIXES:
            forecast = Forecast.read(path)
            split = _split_of(forecast, path, self.splits)
            if split not in self.splits:
                logger.warning(f"{path} holds predictions on {split}, asked for is {', '.join(self.splits)}: left out")
                return []
            return [forecast.named(forecast.model or path.name.split(".")[0], split)]
        if path.suffix in (".pt", ".json") or path.exists():
            return [self._validated(path, split) for split in self.splits]
        return [_of_run(where, split) for split in self.splits]

    def _validated(self, path: Path, split: str) -> Forecast:
        checkpoint = open_model(path, self.device)
        forecast = validate_checkpoint(checkpoint, self.data, split, self.batch_size).forecast
        keep_predictions(forecast, predictions_path(path, checkpoint.name, split))
        return forecast


def _of_run(run_id: str, split: str) -> Forecast:
    if not re.fullmatch(RUN_ID, run_id):
        raise ValueError(
            f"{run_id}: expected a checkpoint (.pt), a prediction file (.parquet, .csv) or the id "
            "of an MLflow run (32 hexadecimal digits); there is no such file"
        )
    forecast = Forecast.read(download_predictions(run_id, split))
    return forecast.named(forecast.model or run_id[:8], split)


def _split_of(forecast: Forecast, path: Path, splits: Sequence[str]) -> str:
    named = [s for s in SPLITS if s in path.name.split(".")]
    return forecast.split or (named[0] if named else splits[0])


def load_models(texts: Iterable[str], loader: Loader) -> dict[str, dict[str, list[Forecast]]]:
    """{name: {split: one forecast per seed}} in the order given; each text is a `Source`.

    Models of the same name count as seeds of one if their seeds are known and differ; otherwise each gets its
    folder's name in front.

    Raises:
        ValueError: see `Loader.forecasts`; nothing on the splits asked for; one seed twice within one source.
    """
    by_name: dict[str, list[tuple[Source, list[Forecast]]]] = {}
    for source in map(Source.parse, texts):
        found = [forecast for where in source.wheres for forecast in loader.forecasts(where)]
        if found:
            by_name.setdefault(source.name or str(found[0].model), []).append((source, found))
    models: dict[str, dict[str, list[Forecast]]] = {}
    for name, members in by_name.items():
        all_seeds = _are_seeds([f for _, found in members for f in found])
        if len(members) > 1 and not all_seeds:
            logger.info(f"several models called {name} without seeds of their own: told apart by where they are")
        own = [name] * len(members) if all_seeds else _own_names(name, [source for source, _ in members])
        for new_name, (source, found) in zip(own, members, strict=True):
            _refuse_equal_seeds(source, found)
            for forecast in found:
                models.setdefault(new_name, {}).setdefault(str(forecast.split), []).append(forecast.named(new_name))
    if not models:
        raise ValueError(f"nothing to compare on {', '.join(loader.splits)}")
    return models


def _seeds_by_split(forecasts: Iterable[Forecast]) -> list[list[int | None]]:
    seen: dict[str | None, list[int | None]] = {}
    for forecast in forecasts:
        seen.setdefault(forecast.split, []).append(forecast.seed)
    return list(seen.values())


def _are_seeds(forecasts: Iterable[Forecast]) -> bool:
    """Whether every split's forecasts have known and different seeds (files of one model on two splits do)."""
    return all(len(s) == 1 or (None not in s and len(set(s)) == len(s)) for s in _seeds_by_split(forecasts))


def _refuse_equal_seeds(source: Source, forecasts: Iterable[Forecast]) -> None:
    for seeds in _seeds_by_split(forecasts):
        known = [s for s in seeds if s is not None]
        if len(set(known)) < len(known):
            raise ValueError(
                f"{','.join(source.wheres)}: expected one model trained from different seeds, got seeds "
                f"{seeds}. Give models that are not seeds of one as separate arguments."
            )


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
    data: Dataset, models: Mapping[str, Mapping[str, Sequence[Forecast]]]
) -> tuple[tuple[float, ...] | None, str]:
    """(training class frequencies, where they come from) if the rows are this dataset's, else (None, why not)."""
    shares = data.training_shares()
    if shares is None:
        return None, f"{data.folder} has no training labels"
    for split, seeds in next(iter(models.values())).items():
        if not _same_data(data.split(split).samples, seeds[0]):
            return None, f"the predictions on {split} are not of the dataset in {data.folder}"
    known = data.folder / ("dataset.json" if data.description else "train/labels.npy")
    return shares, f"training frequencies, {known}"


def _same_data(samples: pl.DataFrame | None, forecast: Forecast) -> bool:
    """Whether every row of the forecast is a sample of the dataset; rows without dates cannot tell and are believed."""
    if forecast.day is None or samples is None or not {"code", "date"} <= set(samples.columns):
        return True
    return forecast.keys.join(samples, on=["code", "date"], how="anti").is_empty()
