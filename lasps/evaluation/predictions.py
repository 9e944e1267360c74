"""The prediction table: one row per sample, the only thing that every comparison needs.

Columns: code (text) and date, or `row` for data that nobody dated; sector, label, p_sell, p_hold, p_buy; and, where
known, forward_return (close t -> t+5), forward_return_skip1 (t+1 -> t+6), raw_p_* (softmax as trained), volatility_20,
score (a ranking signal, where it is not P(BUY) - P(SELL)), model, split, seed. p_* are calibrated, raw_p_* are not.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from lasps.evaluation.calibration import corrected_probabilities

P_COLUMNS = ("p_sell", "p_hold", "p_buy")
RAW_P_COLUMNS = ("raw_p_sell", "raw_p_hold", "raw_p_buy")
SAMPLE_COLUMNS = ("code", "date", "forward_return", "forward_return_skip1", "volatility_20")
COLUMN_TYPES: dict[str, pl.DataType] = {
    "code": pl.String(), "date": pl.Date(), "row": pl.Int64(), "sector": pl.Int16(), "label": pl.Int8(),
    "forward_return": pl.Float64(), "forward_return_skip1": pl.Float64(), "volatility_20": pl.Float64(),
    "score": pl.Float64(),
    **{name: pl.Float64() for name in (*P_COLUMNS, *RAW_P_COLUMNS)},
    "model": pl.String(), "split": pl.String(), "seed": pl.Int64(),
}  # fmt: skip
SUM_TOLERANCE = 1e-4  # float32 rounding of three probabilities, with room
N_EXAMPLES = 3


def _raw_probabilities(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    return corrected_probabilities(logits, gamma=0.0)


def prediction_table(
    *,
    labels: ArrayLike,
    sector_ids: ArrayLike,
    probabilities: ArrayLike | None = None,
    logits: ArrayLike | None = None,
    gamma: ArrayLike = 0.0,
    class_weights: ArrayLike | None = None,
    samples: pl.DataFrame | None = None,
    model: str | None = None,
    split: str | None = None,
    seed: int | None = None,
    score: ArrayLike | None = None,
) -> pl.DataFrame:
    """Build and check a prediction table from arrays of one split, in the dataset's order.

    Args:
        labels, sector_ids: (N,) integers.
        probabilities: (N, 3), already calibrated; or
        logits: (N, 3) of a model trained with FocalLoss(gamma, class_weights); p_* are then the corrected
            probabilities and raw_p_* the softmax.
        gamma: one number, or (N,) where the model's heads were trained with different ones.
        samples: the dataset's samples.parquet (code, date, forward returns, ...); None for data without dates:
            a `row` column stands in, and intervals over days are then impossible.
        score: (N,) a ranking signal other than P(BUY) - P(SELL); NaN where unknown.

    Raises:
        ValueError: other lengths, both or neither of probabilities and logits, or what `check_predictions` refuses.
    """
    if (probabilities is None) == (logits is None):
        raise ValueError("give exactly one of probabilities and logits")
    if logits is not None:
        z = np.asarray(logits)
        p, raw = corrected_probabilities(z, gamma, class_weights), _raw_probabilities(z)
    else:
        p, raw = np.asarray(probabilities, dtype=np.float64), None
    y, sectors = np.asarray(labels), np.asarray(sector_ids)
    if p.shape != (len(y), 3) or len(sectors) != len(y) or (samples is not None and len(samples) != len(y)):
        rows = "none" if samples is None else len(samples)
        raise ValueError(f"expected probabilities ({len(y)}, 3) and as many sectors and samples as labels, "
                         f"got {p.shape}, {len(sectors)} sectors, {rows} samples")  # fmt: skip
    columns = _key_columns(samples, len(y)) | {"sector": sectors, "label": y}
    columns |= {name: p[:, i] for i, name in enumerate(P_COLUMNS)}
    if raw is not None:
        columns |= {name: raw[:, i] for i, name in enumerate(RAW_P_COLUMNS)}
    if score is not None:
        columns["score"] = np.asarray(score, dtype=np.float64)
    table = pl.DataFrame(columns)
    for name, value in (("model", model), ("split", split), ("seed", seed)):
        if value is not None:
            table = table.with_columns(pl.lit(value).alias(name))
    return check_predictions(table, where=f"predictions of {model or 'a model'}")


def _key_columns(samples: pl.DataFrame | None, n: int) -> dict[str, object]:
    if samples is None or not {"code", "date"} <= set(samples.columns):
        return {"row": np.arange(n)}
    return {name: samples[name] for name in SAMPLE_COLUMNS if name in samples.columns}


def keys_of(table: pl.DataFrame) -> list[str]:
    """["code", "date"], or ["row"] for a table without dates."""
    return ["code", "date"] if {"code", "date"} <= set(table.columns) else ["row"]


def seed_of(table: pl.DataFrame) -> int | None:
    """The seed of the model that made the table; None where unknown."""
    return int(table["seed"][0]) if "seed" in table.columns and table["seed"][0] is not None else None


def check_predictions(table: pl.DataFrame, where: str = "predictions") -> pl.DataFrame:
    """The table with its columns' types settled and sorted by key, or a ValueError that names rows and remedy."""
    if not len(table):
        raise ValueError(f"{where}: expected at least one row, got an empty table")
    needed = {"sector", "label", *P_COLUMNS}
    if "row" not in table.columns:
        needed |= {"code", "date"}
    missing = sorted(needed - set(table.columns))
    if missing:
        raise ValueError(f"{where}: expected columns {sorted(needed)}, missing are {missing}; found {table.columns}")
    if "code" in table.columns and table.schema["code"] != pl.String:
        raise ValueError(f"{where}: code must be text (numbers lose leading zeros), got {table.schema['code']}")
    table = _with_types(table, where)
    _check_rows(table, where)
    return table.sort([k for k in ("date", "code", "row") if k in keys_of(table)])


def _with_types(table: pl.DataFrame, where: str) -> pl.DataFrame:
    casts = [pl.col(name).cast(kind) for name, kind in COLUMN_TYPES.items() if name in table.columns]
    try:
        return table.with_columns(casts)
    except (pl.exceptions.InvalidOperationError, pl.exceptions.SchemaError) as error:
        raise ValueError(f"{where}: a column has the wrong type: {str(error).splitlines()[0]}") from error


def _check_rows(table: pl.DataFrame, where: str) -> None:
    keys, p = keys_of(table), [pl.col(name) for name in P_COLUMNS]
    finite = [c.is_not_null() & c.is_finite() for c in p]
    total = pl.sum_horizontal(*p)
    faults = {
        "NaN, null or infinite probabilities": ~pl.all_horizontal(*finite),
        "probabilities outside 0..1": ~pl.all_horizontal(*[c.is_between(-1e-9, 1 + 1e-9) for c in p]),
        f"probabilities whose sum is not 1 (+-{SUM_TOLERANCE:g})": (total - 1).abs() > SUM_TOLERANCE,
        "labels outside 0..2 or missing (predictions without outcomes cannot be judged)":
            pl.col("label").is_null() | ~pl.col("label").is_between(0, 2),
        "missing sectors": pl.col("sector").is_null() | (pl.col("sector") < 0),
        f"missing {' or '.join(keys)}": pl.any_horizontal(*[pl.col(k).is_null() for k in keys]),
    }  # fmt: skip
    for what, fault in faults.items():
        bad = table.filter(fault.fill_null(False))
        if len(bad):
            examples = bad.select(*keys, "label", *P_COLUMNS).head(N_EXAMPLES).to_dicts()
            raise ValueError(f"{where}: {len(bad)} of {len(table)} rows have {what}, e.g. {examples}")
    if table.select(keys).is_duplicated().any():
        bad = table.filter(table.select(keys).is_duplicated()).select(keys)
        raise ValueError(f"{where}: {len(bad)} rows share their key {keys}, e.g. {bad.head(N_EXAMPLES).to_dicts()}; "
                         "one table holds one model on one split")  # fmt: skip


def write_predictions(table: pl.DataFrame, path: str | Path) -> Path:
    """Write the checked table as parquet, atomically: an error leaves the old file."""
    path = Path(path)
    table = check_predictions(table, where=str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            table.write_parquet(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def read_predictions(path: str | Path) -> pl.DataFrame:
    """Read and check one prediction file (parquet, or CSV with code as text).

    Raises:
        FileNotFoundError, ValueError: no such file, not parquet or CSV, or what `check_predictions` refuses.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no prediction file {path}; validate_model.py and compare.py write them")
    try:
        if path.suffix.lower() == ".csv":
            table = pl.read_csv(path, schema_overrides={"code": pl.String}, try_parse_dates=True)
        else:
            table = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ValueError(f"{path} is no prediction table (parquet or .csv): {str(error).splitlines()[0]}") from error
    return check_predictions(table, where=str(path))


@dataclass(frozen=True)
class Alignment:
    """What two tables have in common: rows on both sides, rows only one side has, some of their keys."""

    n: int
    only_a: int
    only_b: int
    examples: tuple[str, ...] = ()

    def sentence(self, a: str, b: str) -> str:
        if not (self.only_a or self.only_b):
            return f"{self.n:,} rows on both sides"
        return (f"{self.n:,} rows on both sides; left out: {self.only_a:,} only in {a}, {self.only_b:,} only in {b}, "
                f"e.g. {', '.join(self.examples)}")  # fmt: skip


def align(a: pl.DataFrame, b: pl.DataFrame, names: tuple[str, str] = ("a", "b")) -> tuple[
    pl.DataFrame, pl.DataFrame, Alignment
]:  # fmt: skip
    """Both tables cut to the keys they share, in the same order.

    Raises:
        ValueError: different kinds of keys, no common row, or labels that differ on a common row.
    """
    keys = keys_of(a)
    if keys != keys_of(b):
        raise ValueError(f"cannot align {names[0]} (keys {keys}) with {names[1]} (keys {keys_of(b)})")
    if len(a) == len(b) and a.select(keys).equals(b.select(keys)):
        _check_same_labels(a, b, keys, names)
        return a, b, Alignment(len(a), 0, 0)
    both_a, both_b = a.join(b.select(keys), on=keys, how="semi"), b.join(a.select(keys), on=keys, how="semi")
    lone = pl.concat([t.join(o, on=keys, how="anti").select(keys).head(N_EXAMPLES) for t, o in ((a, b), (b, a))])
    if not len(both_a):
        raise ValueError(f"{names[0]} and {names[1]} have no row in common (keys {keys}): different splits or data?")
    order = [k for k in ("date", "code", "row") if k in keys]
    both_a, both_b = both_a.sort(order), both_b.sort(order)
    _check_same_labels(both_a, both_b, keys, names)
    examples = tuple(" ".join(str(v) for v in row) for row in lone.iter_rows())
    return both_a, both_b, Alignment(len(both_a), len(a) - len(both_a), len(b) - len(both_b), examples)


def _check_same_labels(a: pl.DataFrame, b: pl.DataFrame, keys: list[str], names: tuple[str, str]) -> None:
    differ = (a["label"] != b["label"]).fill_null(True)
    if differ.any():
        example = {**a.filter(differ).select(*keys, "label").row(0, named=True), names[1]: b.filter(differ)["label"][0]}
        raise ValueError(f"{names[0]} and {names[1]} disagree about {differ.sum()} labels, e.g. {example}: "
                         "they were not made from the same data")  # fmt: skip


@dataclass(frozen=True)
class Forecast:
    """A prediction table as arrays, rows sorted by day.

    `day` (N,) indexes `dates`, `codes` (N,) numbers the table's stocks; both None without dates.
    """

    p: NDArray[np.float64]
    labels: NDArray[np.int64]
    sectors: NDArray[np.int64]
    day: NDArray[np.int64] | None
    dates: list[object]
    raw_p: NDArray[np.float64] | None = None
    forward_return: NDArray[np.float64] | None = None
    forward_return_skip1: NDArray[np.float64] | None = None
    volatility: NDArray[np.float64] | None = None
    own_score: NDArray[np.float64] | None = None
    codes: NDArray[np.int64] | None = None
    kept: dict[str, NDArray] = field(default_factory=dict, repr=False, compare=False)
    """Intermediate results that several metrics share."""

    @property
    def n(self) -> int:
        return len(self.labels)

    @property
    def n_days(self) -> int:
        """Days that have rows; 0 without dates."""
        return 0 if self.day is None else len(np.unique(self.day))

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(N,) class of the largest probability; ties go to the first."""
        return self.p.argmax(axis=1)

    @property
    def score(self) -> NDArray[np.float64]:
        """(N,) the ranking signal: the table's own score where it has one, else P(BUY) - P(SELL)."""
        return self.own_score if self.own_score is not None else self.p[:, 2] - self.p[:, 0]

    def where(self, mask: NDArray[np.bool_]) -> Forecast:
        """The rows of the mask; days keep their numbers, so that intervals see the same calendar."""

        def cut(x: NDArray | None) -> NDArray | None:
            return None if x is None else x[mask]

        return Forecast(self.p[mask], self.labels[mask], self.sectors[mask], cut(self.day), self.dates,
                        cut(self.raw_p), cut(self.forward_return), cut(self.forward_return_skip1),
                        cut(self.volatility), cut(self.own_score),
                        cut(self.codes))  # fmt: skip


def as_forecast(table: pl.DataFrame) -> Forecast:
    """The arrays of a checked table; absent columns are None, null returns NaN."""

    def column(name: str) -> NDArray[np.float64] | None:
        return table[name].cast(pl.Float64).fill_null(np.nan).to_numpy() if name in table.columns else None

    day, codes, dates = None, None, []
    if "date" in table.columns:
        dates = table["date"].unique().sort().to_list()
        day = table["date"].rank("dense").to_numpy().astype(np.int64) - 1
        codes = table["code"].rank("dense").to_numpy().astype(np.int64) - 1
    raw = table.select(RAW_P_COLUMNS).to_numpy() if set(RAW_P_COLUMNS) <= set(table.columns) else None
    return Forecast(
        p=table.select(P_COLUMNS).to_numpy().astype(np.float64),
        labels=table["label"].to_numpy().astype(np.int64),
        sectors=table["sector"].to_numpy().astype(np.int64),
        day=day, dates=dates, raw_p=raw,
        forward_return=column("forward_return"),
        forward_return_skip1=column("forward_return_skip1"),
        volatility=column("volatility_20"),
        own_score=column("score"),
        codes=codes,
    )  # fmt: skip
