"""A comparison: several models on the same days as tidy frames, their differences with intervals, and a verdict.

Pages, terminal, MLflow and notebooks only show it. A model's metrics are over its own rows and days, whatever it is
compared with; a difference is over the rows (and, for day-wise metrics, the days) that both sides have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import polars as pl

from lasps.config.settings import CLASS_NAMES
from lasps.evaluation import metrics, verdict
from lasps.evaluation.comparison_frames import (
    SCHEMAS,
    day_frame,
    frame,
    model_rows,
    month_frame,
    pair_rows,
)
from lasps.evaluation.forecast import Forecast, align
from lasps.evaluation.model_metrics import days_note, leak_note, model_metrics
from lasps.evaluation.pairs import Entry, Pair, adjusted, all_pairs, deployed_of, family_of, make_pair
from lasps.evaluation.portfolio import Costs

Tables = Mapping[str, Sequence[Forecast]]
"""split -> one forecast per seed"""
NO_VALUE = "in-sample class frequencies of the compared rows (no training frequencies were given)"


@dataclass(frozen=True)
class Comparison:
    """The frames (columns: `comparison_frames.SCHEMAS`), and what they come to.

    Of identical models only the first one given stands in the frames; `identical` names the others. `pairs` holds b
    minus a in every metric; those of the family (the default pairs) come first. splits: test first. judged: the split
    that the verdict is about; None where all are selection splits. verdict: at most four sentences. notes: leak alarms
    first. details: model -> split -> all metrics, as in the JSON; seed_differences: (split, a, b, metric) -> per seed.
    """

    models: pl.DataFrame
    pairs: pl.DataFrame
    sectors: pl.DataFrame
    sector_models: pl.DataFrame
    classes: pl.DataFrame
    confusion: pl.DataFrame
    days: pl.DataFrame
    months: pl.DataFrame
    deciles: pl.DataFrame
    books: pl.DataFrame
    calibration: pl.DataFrame
    coverage: pl.DataFrame
    quintiles: pl.DataFrame
    seeds: pl.DataFrame
    pair_seeds: pl.DataFrame
    rows: pl.DataFrame
    prior: pl.DataFrame
    identical: pl.DataFrame
    splits: tuple[str, ...]
    judged: str | None
    deployed: str
    verdict: tuple[str, ...]
    first_line: str
    notes: tuple[str, ...]
    sector_names: tuple[str, ...]
    details: Mapping[str, Mapping[str, dict[str, Any]]]
    seed_differences: Mapping[tuple[str, str, str, str], list[dict[str, Any]] | None]

    @property
    def selection_splits(self) -> list[str]:
        """Those of its splits that something was chosen on: shown, never judged."""
        return sorted(verdict.SELECTION_SPLITS & set(self.splits))

    def on(self, split: str) -> Comparison:
        """The same with one split's rows."""
        cut = {
            f.name: getattr(self, f.name).filter(split=split)
            for f in fields(self)
            if f.name in SCHEMAS and f.name != "identical"
        }
        return replace(self, **cut, splits=(split,))  # type: ignore[arg-type]

    def family(self, split: str | None = None) -> pl.DataFrame:
        """The default pairs' log loss on a split (None: the judged one, else the first), in the order to be shown."""
        on = split or self.judged or self.splits[0]
        return self.pairs.filter(pl.col("family"), split=on, metric=verdict.PRIMARY)

    def names_of(self, model: str) -> list[str]:
        """The model and the names of those that are identical with it."""
        return [model, *self.identical.filter(same_as=model)["name"]]

    def as_json(self) -> dict[str, Any]:
        """JSON-ready: models {name: {split: metrics}}, pairs, sectors, verdict, first_line, notes, rows, prior ...

        Identical models have an entry and pairs each, with differences of zero between them, so that a reader finds a
        pair by the names that were given.
        """
        names = {model: self.names_of(model) for model in self.details}
        pairs = [
            self._pair_json(row, a, b)
            for row in self.pairs.to_dicts()
            for a in names[row["a"]]
            for b in names[row["b"]]
        ] + self._identical_pairs()
        sectors = [
            _with_interval(row) | {"a": a, "b": b, "metric": verdict.PRIMARY}
            for row in self.sectors.to_dicts()
            for a in names[row["a"]]
            for b in names[row["b"]]
        ]
        models = {
            name: {split: m | ({} if name == model else {"same_as": model}) for split, m in by_split.items()}
            for model, by_split in self.details.items()
            for name in names[model]
        }
        return {
            "models": models,
            "pairs": pairs,
            "sectors": sectors,
            "verdict": "\n".join(self.verdict),
            "first_line": self.first_line,
            "notes": list(self.notes),
            "rows": self._rows_json(),
            "prior": self._prior_json(),
            "sector_names": list(self.sector_names),
            "splits": list(self.splits),
            "selection_splits": self.selection_splits,
            "deployed": self.deployed,
            "identical": dict(self.identical.iter_rows()),
        }

    def _pair_json(self, row: dict[str, Any], a: str, b: str) -> dict[str, Any]:
        by_seed = self.seed_differences[row["split"], row["a"], row["b"], row["metric"]]
        return _with_interval(row) | {"a": a, "b": b, "by_seed": by_seed}

    def _identical_pairs(self) -> list[dict[str, Any]]:
        """The differences of models that are the same: zero, wherever the metric exists."""
        pairs = [
            (model, names[i], names[j])
            for model in self.details
            if len(names := self.names_of(model)) > 1
            for i in range(len(names))
            for j in range(i + 1, len(names))
        ]
        return [
            {
                "split": split,
                "a": a,
                "b": b,
                "metric": metric,
                "family": False,
                "role": "model",
                "difference": 0.0,
                "p_value": None,
                "adjusted_p": None,
                "n": m["n"],
                "n_days": m["n_days"] or 0,
                "n_seeds": len(m["seeds"]),
                "over": "days",
                "better": None,
                "interval": None,
                "by_seed": None,
            }
            for model, a, b in pairs
            for split, m in self.details[model].items()
            for metric in metrics.METRICS
            if m[metric] is not None
        ]

    def _rows_json(self) -> dict[str, dict[str, dict[str, int]]]:
        found: dict[str, dict[str, dict[str, int]]] = {}
        for row in self.rows.to_dicts():
            found.setdefault(row["split"], {})[row["model"]] = {"own": row["own"], "compared": row["compared"]}
        return found

    def _prior_json(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for row in self.prior.to_dicts():
            found.setdefault(row["split"], {"values": [], "source": row["source"]})["values"].append(row["share"])
        return found


def _with_interval(row: dict[str, Any]) -> dict[str, Any]:
    interval = None if row["low"] is None else [row["low"], row["high"]]
    return {k: v for k, v in row.items() if k not in ("low", "high")} | {"interval": interval}


# ------------------------------------------------------------------------------------------------ making one


def compare(
    models: Mapping[str, Tables],
    *,
    prior: Sequence[float] | None = None,
    prior_source: str = "given",
    baselines: Mapping[str, Tables] | None = None,
    sector_names: Sequence[str] | None = None,
    costs: Costs | None = None,
) -> Comparison:
    """Compare models: {name: {split: one forecast per seed}}; baselines likewise.

    Args:
        prior: training class frequencies; None takes those of the compared rows and says so.
        prior_source: where the prior comes from, for the report.

    Raises:
        ValueError: no models, two without a row in common, other labels for the same row.
    """
    if not models:
        raise ValueError("nothing to compare: expected at least one model")
    given = _Given(models, {n: t for n, t in (baselines or {}).items() if n not in models}, tuple(sector_names or ()))
    parts = [_Part.of(given, split, prior, prior_source, costs) for split in given.splits]
    frames = {name: pl.concat([part.frames[name] for part in parts]) for name in SCHEMAS if name != "identical"}
    judged = next((s for s in given.splits if s not in verdict.SELECTION_SPLITS), None)
    spoken = parts[given.splits.index(judged or given.splits[0])]
    details: dict[str, dict[str, dict[str, Any]]] = {}
    for part in parts:
        for name, m in part.metrics.items():
            details.setdefault(name, {})[part.split] = m
    return Comparison(
        **frames,
        identical=frame("identical", [{"name": n, "same_as": s} for n, s in given.identical.items()]),
        splits=given.splits,
        judged=judged,
        deployed=given.deployed,
        verdict=spoken.verdict(given.deployed),
        first_line=spoken.first_line(given.deployed),
        sector_names=given.sector_names,
        details=details,
        notes=tuple(sorted((n for part in parts for n in part.notes), key=lambda n: "may know the future" not in n)),
        seed_differences={
            (part.split, p.a, p.b, metric): found
            for part in parts
            for p in part.pairs
            for metric, found in p.by_seed.items()
        },
    )


class _Given:
    """What was given, with the names of identical models and without their forecasts."""

    def __init__(self, models: Mapping[str, Tables], baselines: Mapping[str, Tables], names: tuple[str, ...]) -> None:
        self.sector_names = names
        self.models, self.baselines = models, baselines
        known = {split for tables in models.values() for split in tables}
        first = [split for split in ("test", "val", "train") if split in known]
        self.splits = (*first, *sorted(known - set(first)))
        self.notes: dict[str, list[str]] = {split: [] for split in self.splits}
        entries = {split: self._entries(split) for split in self.splits}
        self.identical = _identical(entries)
        self.entries = {split: [e for e in found if e.name not in self.identical] for split, found in entries.items()}
        chosen = deployed_of(list(models))
        self.deployed = self.identical.get(chosen, chosen)
        left = [e.name for e in self.entries[self.splits[0]] if not e.baseline]
        self.family = family_of(left, list(baselines), self.deployed)

    def _entries(self, split: str) -> list[Entry]:
        """All models and baselines of the split; rows that one seed of a model has and another lacks are left out."""
        found = []
        for name, tables in (*self.models.items(), *self.baselines.items()):
            seeds = tables.get(split, ())
            if not seeds:
                continue
            common = seeds[0]
            for other in seeds[1:]:
                common = align(common, other, (f"{name} (seed {common.seed})", f"{name} (seed {other.seed})"))[0]
            cut = [align(f, common, (name, name))[0] for f in seeds]
            self.notes[split] += [
                f"{split}: {f.n - common.n:,} of {f.n:,} rows of {name} (seed {f.seed}) are not in every other seed "
                "and are left out"
                for f in seeds
                if f.n > common.n
            ]
            found.append(Entry(name, [f.seed for f in seeds], cut, name in self.baselines))
        return sorted(found, key=lambda e: e.kind == "oracle")


def _identical(entries: Mapping[str, Sequence[Entry]]) -> dict[str, str]:
    """Name -> the first given model that is the same to the bit on every split that either has."""
    of: dict[str, dict[str, Entry]] = {}
    for split, found in entries.items():
        for entry in found:
            of.setdefault(entry.name, {})[split] = entry
    same: dict[str, str] = {}
    names = list(of)
    for i, name in enumerate(names):
        for first in (n for n in names[:i] if n not in same):
            if of[first].keys() == of[name].keys() and all(of[first][s].same_as(e) for s, e in of[name].items()):
                same[name] = first
                break
    return same


@dataclass(frozen=True)
class _Part:
    """One split of a comparison."""

    split: str
    metrics: dict[str, dict[str, Any]]
    pairs: list[Pair]
    frames: dict[str, pl.DataFrame]
    notes: list[str]

    @classmethod
    def of(cls, given: _Given, split: str, prior: Sequence[float] | None, source: str, costs: Costs | None) -> _Part:
        entries, selection = given.entries[split], split in verdict.SELECTION_SPLITS
        base, source = (prior, source) if prior is not None else (_own_prior(entries[0].forecasts[0]), NO_VALUE)
        found = {e.name: model_metrics(e, base, costs) for e in entries}
        pairs = adjusted(
            [
                make_pair(a, b, not a.baseline or (a.name, b.name) in given.family)
                for a, b in all_pairs(entries, given.deployed)
            ],
            given.family,
        )
        counts = _row_counts(entries)
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in SCHEMAS}
        for part in (*(model_rows(e, found[e.name]) for e in entries), *(pair_rows(p, selection) for p in pairs)):
            for name, more in part.items():
                rows[name] += more
        rows["rows"] = counts
        rows["prior"] = [{"class": c, "share": p, "source": source} for c, p in zip(CLASS_NAMES, base, strict=True)]
        for row in (*rows["sectors"], *rows["sector_models"]):
            row["name"] = _sector_name(given.sector_names, row["sector"])
        frames = {
            name: frame(name, [{"split": split} | row for row in found_rows])
            for name, found_rows in rows.items()
            if name != "identical"
        }
        frames["days"] = day_frame(entries, base, split)
        frames["months"] = month_frame(frames["days"])
        notes = [*given.notes[split], *_notes(split, counts, found, in_sample=prior is None)]
        return cls(split, found, pairs, frames, notes)

    def first_line(self, deployed: str) -> str:
        """Whether the deployed model beats LightGBM and volatility bins."""
        return verdict.first_line(
            deployed, {p.a: p for p in self.pairs if p.b == deployed and p.role != "model"}, self.split
        )

    def verdict(self, deployed: str) -> tuple[str, ...]:
        """At most four sentences: the deployed model against the others, the baselines, the oracle."""
        closed = verdict.gap_closed({name: m["log_loss"] for name, m in self.metrics.items()}, deployed, self.split)
        last = [self.first_line(deployed), *([closed] if closed else [])]
        own = [p for p in self.pairs if p.family and p.role == "model"]
        said = [verdict.sentence(p, self.split) for p in own[: 4 - len(last)]]
        return (*said, *(line for line in last if line))


def _own_prior(f: Forecast) -> tuple[float, ...]:
    return tuple((np.asarray(metrics.class_frequencies(f.labels)) + 1e-6) / (1 + 3e-6))


def _sector_name(names: Sequence[str], sector: int) -> str:
    return names[sector] if sector < len(names) else f"sector {sector}"


def _row_counts(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """How many rows each model has, and how many all of them have."""
    common = entries[0].forecasts[0]
    for entry in entries[1:]:
        common = align(common, entry.forecasts[0], (entries[0].name, entry.name))[0]
    return [{"model": e.name, "own": e.forecasts[0].n, "compared": common.n} for e in entries]


def _notes(
    split: str, counts: Sequence[Mapping[str, Any]], found: Mapping[str, Mapping[str, Any]], in_sample: bool
) -> list[str]:
    notes = [
        f"{split}: {note}"
        for name, m in found.items()
        for note in (leak_note(name, m["leak"]), days_note(name, m))
        if note
    ]
    if in_sample:
        notes.append(f"{split}: prior and majority are {NO_VALUE}")
    return notes + [
        f"{split}: {row['own'] - row['compared']:,} of {row['own']:,} rows of {row['model']} are not in every other "
        "model: its metrics are over all of its rows, each difference over the rows that both sides have"
        for row in counts
        if row["own"] > row["compared"]
    ]
