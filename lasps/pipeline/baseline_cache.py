"""Baselines fitted once per dataset, and cached."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loguru import logger
from tqdm import tqdm

from lasps.data.datasets.dataset import Dataset
from lasps.data.splits import SPLITS
from lasps.evaluation import baselines
from lasps.evaluation.forecast import Forecast
from lasps.pipeline.summary import baseline_split
from lasps.reproducibility import write_atomically

BASELINE_VERSION = 4
"""Part of the cache's key: raise it when a baseline's forecast changes."""
NOTHING = ":none"
"""Marks in the cache's list a baseline that the data cannot feed."""


def cached_baselines(
    data: Dataset,
    splits: Sequence[str],
    cache_dir: Path,
    names: Sequence[str] = tuple(baselines.BASELINES),
    seeds: Mapping[str, int] | None = None,
) -> dict[str, dict[str, list[Forecast]]]:
    """Baselines as `load_models` gives models, fitted once per dataset (by content) and cached under `cache_dir`.

    Args:
        seeds: of how many seeds (0, 1, ...) each of `baselines.SEEDED` is wanted; 1 where it is not said.
    """
    cache = BaselineCache.of(data, cache_dir)
    wanted = [(name, seed) for name in names for seed in range((seeds or {}).get(name, 1))]
    cached = {
        (name, seed): {split: cache.read(file_name(name, seed), split) for split in splits} for name, seed in wanted
    }
    missing = [unit for unit, by_split in cached.items() if None in by_split.values()]
    if missing:
        logger.info(f"Fitting {in_words(missing)} (once: they are cached)")
        arrays = {split: baseline_split(data, split) for split in SPLITS}
        for name, seed in tqdm(missing, desc="baselines", disable=None):
            facts: dict[str, Mapping[str, int]] = {}
            wanted_splits = {split: arrays[split] for split in {*splits, "val", "test"}}
            found = baselines.fit_baselines(arrays["train"], arrays["val"], wanted_splits, [name], seed, facts)
            made = found.get(name, {})
            cache.write(file_name(name, seed), {s: made.get(s) for s in wanted_splits}, facts.get(name, {}))
            cached[name, seed] = {split: [made[split]] if split in made else [] for split in splits}
    out: dict[str, dict[str, list[Forecast]]] = {}
    for (name, _), of_unit in cached.items():
        for split, forecasts in of_unit.items():
            if forecasts:
                out.setdefault(name, {}).setdefault(split, []).extend(forecasts)
    return out


def in_words(units: Sequence[tuple[str, int]]) -> str:
    """Baselines and how many seeds of each: 'mlp, lightgbm (5 seeds)'."""
    counts = Counter(name for name, _ in units)
    return ", ".join(f"{name} ({n} seeds)" if n > 1 else name for name, n in counts.items())


def file_name(baseline: str, seed: int) -> str:
    """What a baseline's cached forecasts are called."""
    return f"{baseline}.seed{seed}" if baseline in baselines.SEEDED else baseline


@dataclass(frozen=True)
class BaselineCache:
    """The forecasts of one dataset's baselines in a folder; `complete` in it lists what is whole."""

    folder: Path

    @classmethod
    def of(cls, data: Dataset, cache_dir: Path) -> BaselineCache:
        """The cache of a dataset, by its content."""
        fingerprints = [data.split(split).fingerprint for split in SPLITS]
        content = "|".join([str(BASELINE_VERSION), *fingerprints])
        return cls(Path(cache_dir) / f"baselines-{hashlib.sha256(content.encode()).hexdigest()[:16]}")

    def read(self, name: str, split: str) -> list[Forecast] | None:
        """A cached forecast, empty where the data cannot feed the baseline; None: to be fitted."""
        known = self._known()
        if f"{name}.{split}{NOTHING}" in known:
            return []
        path = self.folder / f"{name}.{split}.parquet"
        if f"{name}.{split}" not in known or not path.is_file():
            return None
        try:
            return [Forecast.read(path)]
        except ValueError as error:
            logger.warning(f"{error}. The baseline is fitted again")
            return None

    def facts(self, name: str) -> dict[str, int]:
        """What early stopping decided; empty where nothing is known."""
        path = self.folder / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def write(self, name: str, forecasts: Mapping[str, Forecast | None], facts: Mapping[str, int]) -> None:
        """Keep a baseline's forecasts of some splits, None where the data cannot feed it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if facts:
            write_atomically(self.folder / f"{name}.json", json.dumps(facts))
        for split, forecast in forecasts.items():
            if forecast is not None:
                forecast.write(self.folder / f"{name}.{split}.parquet")
        new = {f"{name}.{split}" + (NOTHING if forecast is None else "") for split, forecast in forecasts.items()}
        write_atomically(self.folder / "complete", "\n".join(sorted(self._known() | new)) + "\n")

    def _known(self) -> set[str]:
        complete = self.folder / "complete"
        return set(complete.read_text(encoding="utf-8").split()) if complete.is_file() else set()
