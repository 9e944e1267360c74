"""A comparison: several models on the same days as tidy frames, their differences with intervals, and a verdict.

Pages, terminal, MLflow and notebooks only show it. A model's metrics are over its own rows and days, whatever it is
compared with; a difference is over the rows (and, for day-wise metrics, the days) that both sides have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from lasps.config.settings import CLASS_NAMES
from lasps.evaluation import metrics, verdict
from lasps.evaluation.forecast import Forecast, align
from lasps.evaluation.frames import SCHEMAS, Row, frame
from lasps.evaluation.models import ORACLE, Entry, day_rows, model_metrics, model_rows, month_frame, notes_on
from lasps.evaluation.pairs import (
    all_pairs,
    deployed_of,
    family_of,
    on_common_rows,
    pair_rows,
    same_forecasts,
    with_family,
)
from lasps.evaluation.portfolio import Costs

Forecasts = Mapping[str, Sequence[Forecast]]
"""split -> one forecast per seed"""
NO_VALUE = "in-sample class frequencies of the compared rows (no training frequencies were given)"
HEADLINE_OTHERS = (verdict.ENSEMBLE, verdict.BLEND, verdict.MLP, *verdict.MUST_BEAT, ORACLE)


@dataclass(frozen=True)
class Comparison:
    """The frames (columns: `frames.SCHEMAS`), and what follows from them.

    Of identical models only the first one given stands in the frames; `identical` names the others. `pairs` holds b
    minus a in every metric; those of the family (the default pairs) come first. splits: test first. deployed: the
    model that is for use. notes: leak alarms first. all_metrics: model -> split -> metrics, as in the JSON.
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
    deployed: str
    notes: tuple[str, ...]
    sector_names: tuple[str, ...]
    all_metrics: Mapping[str, Mapping[str, dict[str, Any]]]

    # ---------------------------------------------------------------------------------------- what follows

    @property
    def verdict_split(self) -> str | None:
        """The split that the verdict is about; None where all are selection splits."""
        return next((split for split in self.splits if split not in verdict.SELECTION_SPLITS), None)

    @property
    def selection_splits(self) -> list[str]:
        """Those of its splits that something was chosen on: shown, never tested."""
        return sorted(verdict.SELECTION_SPLITS & set(self.splits))

    @property
    def main(self) -> Comparison:
        """The split to be shown first: the one that the verdict is about, else the first."""
        return self.on(self.verdict_split or self.splits[0])

    def on(self, split: str) -> Comparison:
        """The same with one split's rows."""
        cut: dict[str, Any] = {
            f.name: getattr(self, f.name).filter(split=split)
            for f in fields(self)
            if f.name in SCHEMAS and f.name != "identical"
        }
        return replace(self, **cut, splits=(split,))

    @property
    def family(self) -> pl.DataFrame:
        """The default pairs' rows of log loss."""
        return self.pairs.filter(pl.col("family"), metric=verdict.PRIMARY)

    @property
    def predecessor(self) -> str | None:
        """The model that the deployed one is compared with sector by sector: the first default pair of two models."""
        return next(iter(self.family.filter(role="model")["a"]), None)

    @property
    def headline(self) -> list[str]:
        """The models given; then ensemble, blend, mlp, LightGBM, volatility bins, the oracle where they are known."""
        kinds: dict[str, str] = dict(self.models.select("model", "kind").iter_rows())
        return [m for m, kind in kinds.items() if kind == "model"] + [m for m in HEADLINE_OTHERS if m in kinds]

    def names_of(self, model: str) -> list[str]:
        """The model and the names of those that are identical with it."""
        return [model, *self.identical.filter(same_as=model)["name"]]

    @cached_property
    def first_line(self) -> str:
        """Whether the deployed model beats LightGBM and volatility bins, on the main split."""
        main = self.main
        rows = main.pairs.filter(pl.col("role") != "model", b=self.deployed, metric=verdict.PRIMARY).to_dicts()
        return verdict.first_line(self.deployed, {row["a"]: row for row in rows}, main.splits[0])

    @cached_property
    def verdict(self) -> tuple[str, ...]:
        """At most four sentences on the main split: the deployed model against the others, baselines, the oracle. And,
        where they are known, what the blend is worth, and a warning where the MLP on the skip does as well.
        """
        main = self.main
        (split,) = main.splits
        log_loss = dict(main.models.select("model", "log_loss").iter_rows())
        closed = verdict.gap_closed(log_loss, self.deployed, split)
        last = [self.first_line, *([closed] if closed else [])]
        primary = main.pairs.filter(metric=verdict.PRIMARY)
        of_blend = {row["a"]: row for row in primary.filter(b=verdict.BLEND).to_dicts()}
        network = verdict.ENSEMBLE if verdict.ENSEMBLE in log_loss else self.deployed
        of_mlp = next(iter(primary.filter(a=verdict.MLP, b=network).to_dicts()), None)
        more = [verdict.together(of_blend, log_loss, split, network), verdict.cheapest(of_mlp, split)]
        said = []
        for a in main.family.filter(role="model")["a"][: 4 - len(last)]:
            pair = {row["metric"]: row for row in main.pairs.filter(a=a, b=self.deployed).to_dicts()}
            said.append(verdict.sentence(pair, main.sectors.filter(a=a, b=self.deployed).to_dicts(), split))
        return (*said, *last, *(sentence for sentence in more if sentence))

    # ---------------------------------------------------------------------------------------- JSON

    def as_json(self) -> dict[str, Any]:
        """JSON-ready: models {name: {split: metrics}}, pairs, sectors, verdict, first_line, notes, rows, prior ...

        Identical models have an entry and pairs each, with differences of zero between them, so that a reader finds a
        pair by the names that were given.
        """
        pair = ("split", "a", "b", "metric")
        seeds = self.pair_seeds.rows_by_key(pair, named=True)
        return {
            "models": {
                name: {split: m | ({} if name == model else {"same_as": model}) for split, m in by_split.items()}
                for model, by_split in self.all_metrics.items()
                for name in self.names_of(model)
            },
            "pairs": self._under_all_names(
                row | {"by_seed": [_by_seed(seed) for seed in seeds.get(tuple(row[k] for k in pair), ())] or None}
                for row in self.pairs.to_dicts()
            )
            + self._identical_pairs(),
            "sectors": self._under_all_names(row | {"metric": verdict.PRIMARY} for row in self.sectors.to_dicts()),
            "verdict": "\n".join(self.verdict),
            "first_line": self.first_line,
            "notes": list(self.notes),
            "rows": {
                split: {row["model"]: {"own": row["own"], "compared": row["compared"]} for row in rows}
                for split, rows in self.rows.rows_by_key("split", named=True).items()
            },
            "prior": {
                split: {"values": [row["share"] for row in rows], "source": rows[0]["source"]}
                for split, rows in self.prior.rows_by_key("split", named=True).items()
            },
            "sector_names": list(self.sector_names),
            "splits": list(self.splits),
            "selection_splits": self.selection_splits,
            "deployed": self.deployed,
            "identical": dict(self.identical.iter_rows()),
        }

    def _under_all_names(self, rows: Iterable[Row]) -> list[Row]:
        """Rows of pairs under every name that their sides were given, intervals as [low, high]."""
        names = {model: self.names_of(model) for model in self.all_metrics}
        return [
            {k: v for k, v in row.items() if k not in ("low", "high")} | {"interval": _interval(row), "a": a, "b": b}
            for row in rows
            for a in names[row["a"]]
            for b in names[row["b"]]
        ]

    def _identical_pairs(self) -> list[Row]:
        """The differences of models that are the same: zero, wherever the metric exists."""
        pairs = [(model, a, b) for model in self.all_metrics for a, b in combinations(self.names_of(model), 2)]
        return [
            {
                "split": split,
                "a": a,
                "b": b,
                "metric": metric,
                "family": False,
                "role": "model",
                "difference": 0.0,
                "n": m["n"],
                "n_days": m["n_days"] or 0,
                "n_seeds": len(m["seeds"]),
                "over": "days",
                **dict.fromkeys(("interval", "p_value", "adjusted_p", "better", "by_seed")),
            }
            for model, a, b in pairs
            for split, m in self.all_metrics[model].items()
            for metric in metrics.METRICS
            if m[metric] is not None
        ]


def _interval(row: Row) -> list[float] | None:
    return None if row["low"] is None else [row["low"], row["high"]]


def _by_seed(row: Row) -> Row:
    return {"seed": row["seed"], "difference": row["difference"], "interval": _interval(row)}


# ------------------------------------------------------------------------------------------------ making one


def compare(
    models: Mapping[str, Forecasts],
    *,
    prior: Sequence[float] | None = None,
    prior_source: str = "given",
    baselines: Mapping[str, Forecasts] | None = None,
    sector_names: Sequence[str] | None = None,
    costs: Costs | None = None,
    remarks: Sequence[str] = (),
) -> Comparison:
    """Compare models: {name: {split: one forecast per seed}}; baselines likewise.

    Args:
        remarks: further notes, shown before its own.
        prior: training class frequencies; None takes those of the compared rows and says so.
        prior_source: where the prior comes from, for the report.

    Raises:
        ValueError: no models, two without a row in common, other labels for the same row.
    """
    if not models:
        raise ValueError("nothing to compare: expected at least one model")
    baselines = {name: forecasts for name, forecasts in (baselines or {}).items() if name not in models}
    known = {split for forecasts in models.values() for split in forecasts}
    first = [split for split in ("test", "val", "train") if split in known]
    splits = (*first, *sorted(known - set(first)))
    notes: list[str] = list(remarks)
    entries = {split: _entries(split, models, baselines, notes) for split in splits}
    identical = _identical(entries)
    entries = {split: [e for e in found if e.name not in identical] for split, found in entries.items()}
    chosen = deployed_of(list(models))
    deployed = identical.get(chosen, chosen)
    family = family_of([e.name for e in entries[splits[0]] if not e.baseline], list(baselines), deployed)
    rows: dict[str, list[Row]] = {name: [] for name in SCHEMAS}
    rows["identical"] = [{"name": name, "same_as": model} for name, model in identical.items()]
    all_metrics: dict[str, dict[str, dict[str, Any]]] = {}
    for split in splits:
        base, source = (prior, prior_source) if prior is not None else (_own_prior(entries[split][0]), NO_VALUE)
        found = {e.name: model_metrics(e, base, costs) for e in entries[split]}
        of_split = _model_frames(entries[split], found, base) | _pair_frames(entries[split], split, deployed, family)
        of_split["prior"] = [{"class": c, "share": p, "source": source} for c, p in zip(CLASS_NAMES, base, strict=True)]
        for name, more in of_split.items():
            rows[name] += [row | {"split": split} for row in more]
        for name, m in found.items():
            all_metrics.setdefault(name, {})[split] = m
        notes += _notes(split, of_split["rows"], found, in_sample=prior is None)
    names = tuple(sector_names or ())
    for row in (*rows["sectors"], *rows["sector_models"]):
        row["name"] = names[row["sector"]] if row["sector"] < len(names) else f"sector {row['sector']}"
    frames = {name: frame(name, found_rows) for name, found_rows in rows.items()}
    frames["months"] = month_frame(frames["days"])
    alarms_first = tuple(sorted(notes, key=lambda note: "may know the future" not in note))
    return Comparison(
        **frames, splits=splits, deployed=deployed, notes=alarms_first, sector_names=names, all_metrics=all_metrics
    )


def _entries(
    split: str, models: Mapping[str, Forecasts], baselines: Mapping[str, Forecasts], notes: list[str]
) -> list[Entry]:
    """All models and baselines of the split; rows that one seed of a model has and another lacks are left out."""
    found = []
    for name, forecasts in (*models.items(), *baselines.items()):
        seeds = forecasts.get(split, ())
        if not seeds:
            continue
        common = seeds[0]
        for other in seeds[1:]:
            common = align(common, other, (f"{name} (seed {common.seed})", f"{name} (seed {other.seed})"))[0]
        notes += [
            f"{split}: {f.n - common.n:,} of {f.n:,} rows of {name} (seed {f.seed}) are not in every other seed and "
            "are left out"
            for f in seeds
            if f.n > common.n
        ]
        found.append(Entry(name, [align(f, common, (name, name))[0] for f in seeds], name in baselines))
    return sorted(found, key=lambda e: e.kind == ORACLE)


def _identical(entries: Mapping[str, Sequence[Entry]]) -> dict[str, str]:
    """Name -> the first given model that is the same to the bit on every split that either has."""
    of: dict[str, dict[str, Entry]] = {}
    for split, found in entries.items():
        for entry in found:
            of.setdefault(entry.name, {})[split] = entry
    same: dict[str, str] = {}
    for first, name in combinations(of, 2):
        if (
            not {first, name} & same.keys()
            and of[first].keys() == of[name].keys()
            and all(same_forecasts(of[first][split], entry) for split, entry in of[name].items())
        ):
            same[name] = first
    return same


def _model_frames(
    entries: Sequence[Entry], found: Mapping[str, Mapping[str, Any]], prior: Sequence[float]
) -> dict[str, list[Row]]:
    """The rows of the frames about single models; the baseline of `days` is volatility_bins, else the prior."""
    rows: dict[str, list[Row]] = {"days": []}
    base = next((e for e in entries if e.name == "volatility_bins"), None)
    common = entries[0].forecasts[0]
    for entry in entries:
        for name, more in model_rows(entry, found[entry.name]).items():
            rows.setdefault(name, []).extend(more)
        rows["days"] += day_rows(*on_common_rows(entry, base or entry), prior, base is not None)
        common = align(common, entry.forecasts[0], (entries[0].name, entry.name))[0]
    rows["rows"] = [{"model": e.name, "own": e.forecasts[0].n, "compared": common.n} for e in entries]
    return rows


def _pair_frames(
    entries: Sequence[Entry], split: str, deployed: str, family: Sequence[tuple[str, str]]
) -> dict[str, list[Row]]:
    """The rows of the frames about pairs, the default ones first; sectors of those and of pairs of models."""
    selection = split in verdict.SELECTION_SPLITS
    made = {
        (a.name, b.name): pair_rows(a, b, selection, not a.baseline or (a.name, b.name) in family)
        for a, b in all_pairs(entries, deployed)
    }
    asked = [names for names in family if names in made]
    order = [*asked, *(names for names in made if names not in asked)]
    rows = {name: [row for names in order for row in made[names][name]] for name in ("pairs", "pair_seeds", "sectors")}
    return rows | {"pairs": with_family(rows["pairs"], family)}


def _own_prior(entry: Entry) -> tuple[float, ...]:
    return tuple((np.asarray(metrics.class_frequencies(entry.forecasts[0].labels)) + 1e-6) / (1 + 3e-6))


def _notes(split: str, counts: Sequence[Row], found: Mapping[str, Mapping[str, Any]], in_sample: bool) -> list[str]:
    notes = [f"{split}: {note}" for name, m in found.items() for note in notes_on(name, m)]
    if in_sample:
        notes.append(f"{split}: prior and majority are {NO_VALUE}")
    return notes + [
        f"{split}: {row['own'] - row['compared']:,} of {row['own']:,} rows of {row['model']} are not in every other "
        "model: its metrics are over all of its rows, each difference over the rows that both sides have"
        for row in counts
        if row["own"] > row["compared"]
    ]
