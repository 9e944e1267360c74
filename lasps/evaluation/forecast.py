"""A forecast: the class probabilities of one model on one split, beside what happened.

Arrays with one row per sample, sorted by day; made from logits, probabilities, a table or a file, and written as the
one table that `prediction_schema` describes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from lasps.evaluation.focal_calibration import calibrated_probabilities
from lasps.evaluation.prediction_schema import (
    N_EXAMPLES,
    P_COLUMNS,
    RAW_P_COLUMNS,
    SCHEMA,
    checked_table,
    digest_of,
    keys_of,
)
from lasps.files import write_atomically

SAMPLE_COLUMNS = ("code", "date", "forward_return", "forward_return_skip1", "volatility_20")
DIGEST = "lasps.sha256"
"""Key of a prediction file's own metadata: the digest of its table."""


@dataclass(frozen=True, eq=False)
class Forecast:
    """p (N, 3) calibrated, raw_p (N, 3) as trained; labels, sectors (N,); rows sorted by day.

    `day` (N,) indexes `dates`, `codes` (N,) numbers the stocks; both None without dates. `keys` has the columns code
    and date, or row. forward_return (close t -> t+5), forward_return_skip1 (t+1 -> t+6), volatility (20 days) and
    own_score (a ranking signal other than P(BUY) - P(SELL)): (N,), NaN where unknown, None where there is none.
    model, split and seed are None where unknown.
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
    given_keys: pl.DataFrame | None = field(default=None, repr=False)
    model: str | None = None
    split: str | None = None
    seed: int | None = None
    cache: dict[str, Any] = field(default_factory=dict, repr=False)
    """Intermediate results that several metrics share."""

    # ---------------------------------------------------------------------------------------- from

    @classmethod
    def from_logits(
        cls,
        logits: ArrayLike,
        labels: ArrayLike,
        sector_ids: ArrayLike,
        *,
        samples: pl.DataFrame | None = None,
        gamma: ArrayLike = 0.0,
        class_weights: ArrayLike | None = None,
    ) -> Forecast:
        """The forecast of a model trained with FocalLoss(gamma, class_weights), rows in the dataset's order.

        Args:
            logits: (N, 3); p is calibrated from them, raw_p is their softmax.
            labels, sector_ids: (N,) integers.
            samples: the dataset's samples.parquet (code, date, forward returns, ...); None for data without dates: row
                numbers stand in, and intervals over days are then impossible.
            gamma: one number, or (N,) where the model's heads were trained with different ones.

        Raises:
            ValueError: other lengths, or values that `prediction_schema` refuses.
        """
        z = np.asarray(logits)
        p, raw = calibrated_probabilities(z, gamma, class_weights), calibrated_probabilities(z, 0.0)
        columns = dict(zip(RAW_P_COLUMNS, raw.T, strict=False))
        return _from_arrays(p, labels, sector_ids, samples, columns)

    @classmethod
    def from_probabilities(
        cls,
        probabilities: ArrayLike,
        labels: ArrayLike,
        sector_ids: ArrayLike,
        *,
        samples: pl.DataFrame | None = None,
        score: ArrayLike | None = None,
    ) -> Forecast:
        """As `from_logits`, of calibrated probabilities (N, 3).

        Args:
            score: (N,) a ranking signal other than P(BUY) - P(SELL); NaN where unknown.
        """
        columns = {} if score is None else {"score": np.asarray(score, dtype=np.float64)}
        return _from_arrays(np.asarray(probabilities, dtype=np.float64), labels, sector_ids, samples, columns)

    @classmethod
    def from_table(cls, table: pl.DataFrame, where: str = "predictions") -> Forecast:
        """The forecast that a table holds; null returns become NaN.

        Raises:
            ValueError: the table is not as `prediction_schema` says, or holds several models, splits or seeds.
        """
        return _of_checked(checked_table(table, where), where)

    @classmethod
    def read(cls, path: str | Path) -> Forecast:
        """Read a prediction file: parquet, or CSV with code as text.

        Raises:
            FileNotFoundError, ValueError: no such file, not parquet or CSV, other values than were written (a file of
                `write` carries its digest), or what `from_table` refuses.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no prediction file {path}; validate_model.py and compare.py write them")
        try:
            if path.suffix.lower() == ".csv":
                table, written = pl.read_csv(path, schema_overrides={"code": pl.String, "date": pl.String}), None
            else:
                table, written = pl.read_parquet(path), pl.read_parquet_metadata(path).get(DIGEST)
        except (pl.exceptions.PolarsError, OSError, pl.exceptions.PanicException) as error:
            raise ValueError(
                f"{path} is no prediction table (parquet or .csv), or it is damaged: {str(error).splitlines()[0]}"
            ) from error
        if written is not None and written != digest_of(table):
            raise ValueError(
                f"{path}: expected the table that was written, found other values (digest {written[:12]} "
                f"stands in the file, {digest_of(table)[:12]} is right): the file was damaged or altered. "
                "Validate the model again"
            )
        return cls.from_table(table, str(path))

    # ---------------------------------------------------------------------------------------- to

    @cached_property
    def keys(self) -> pl.DataFrame:
        """(N,) rows' keys: code and date, or row."""
        if self.given_keys is not None:
            return self.given_keys
        if self.day is None or self.codes is None:
            return pl.DataFrame({"row": np.arange(self.n)})
        dates = pl.Series(self.dates, dtype=pl.Date)
        return pl.DataFrame({"code": [f"{code:06d}" for code in self.codes], "date": dates[self.day]})

    @property
    def table(self) -> pl.DataFrame:
        """The prediction table of `prediction_schema`, rows sorted by key."""
        optional = {
            "forward_return": self.forward_return,
            "forward_return_skip1": self.forward_return_skip1,
            "volatility_20": self.volatility,
        }
        columns: dict[str, Any] = {name: values for name, values in optional.items() if values is not None}
        columns |= {"sector": self.sectors, "label": self.labels, **dict(zip(P_COLUMNS, self.p.T, strict=True))}
        if self.raw_p is not None:
            columns |= dict(zip(RAW_P_COLUMNS, self.raw_p.T, strict=True))
        if self.own_score is not None:
            columns["score"] = self.own_score
        table = self.keys.with_columns(pl.Series(name, values) for name, values in columns.items())
        told = {"model": self.model, "split": self.split, "seed": self.seed}
        table = table.with_columns(pl.lit(value).alias(name) for name, value in told.items() if value is not None)
        return table.with_columns(pl.col(name).cast(SCHEMA[name].dtype) for name in table.columns).with_columns(
            pl.col(name).fill_nan(None) for name in (*optional, "score") if name in table.columns
        )

    def write(self, path: str | Path) -> Path:
        """Write the table as parquet with its digest, atomically: an error leaves the old file."""
        table = checked_table(self.table, str(path))
        metadata = {DIGEST: digest_of(table)}
        return write_atomically(path, lambda file: table.write_parquet(file, metadata=metadata))

    def named(self, model: str | None = None, split: str | None = None, seed: int | None = None) -> Forecast:
        """The same forecast under another model, split or seed; None leaves what is known."""
        return replace(
            self, model=model or self.model, split=split or self.split, seed=self.seed if seed is None else seed
        )

    # ---------------------------------------------------------------------------------------- of it

    @property
    def n(self) -> int:
        return len(self.labels)

    @cached_property
    def n_days(self) -> int:
        """Days that have rows; 0 without dates."""
        return 0 if self.day is None else len(np.unique(self.day))

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(N,) class of the largest probability; ties go to the first."""
        return self.p.argmax(axis=1)

    @property
    def score(self) -> NDArray[np.float64]:
        """(N,) the ranking signal: its own score where it has one, else P(BUY) - P(SELL)."""
        return self.own_score if self.own_score is not None else self.p[:, 2] - self.p[:, 0]

    def where(self, mask: NDArray[np.bool_]) -> Forecast:
        """The rows of the mask; days keep their numbers, so that intervals see the same calendar."""

        def cut(x: NDArray[Any] | None) -> NDArray[Any] | None:
            return None if x is None else x[mask]

        keys = None if self.given_keys is None else self.given_keys.filter(mask)
        arrays = {
            name: cut(getattr(self, name))
            for name in (
                "p",
                "labels",
                "sectors",
                "day",
                "raw_p",
                "forward_return",
                "forward_return_skip1",
                "volatility",
                "own_score",
                "codes",
            )
        }
        return replace(self, **arrays, given_keys=keys, cache={})  # type: ignore[arg-type]

    def only(self, mask: NDArray[np.bool_]) -> Forecast:
        """The rows of the mask on the days that they have: a forecast of its own."""
        cut = self.where(mask)
        if cut.day is None or cut.codes is None:
            return cut
        days, day = np.unique(cut.day, return_inverse=True)
        codes = np.unique(cut.codes, return_inverse=True)[1]
        return replace(cut, day=day, dates=[self.dates[d] for d in days], codes=codes, cache={})

    def same_as(self, other: Forecast) -> bool:
        """Whether both give the same probabilities and scores for the same rows."""
        return bool(
            np.array_equal(self.p, other.p)
            and np.array_equal(self.score, other.score, equal_nan=True)
            and self.keys.equals(other.keys)
        )


def _from_arrays(
    p: NDArray[np.float64],
    labels: ArrayLike,
    sector_ids: ArrayLike,
    samples: pl.DataFrame | None,
    columns: Mapping[str, NDArray[Any]],
) -> Forecast:
    y, sectors = np.asarray(labels), np.asarray(sector_ids)
    if p.shape != (len(y), 3) or len(sectors) != len(y) or (samples is not None and len(samples) != len(y)):
        rows = "none" if samples is None else len(samples)
        raise ValueError(
            f"expected probabilities ({len(y)}, 3) and as many sectors and samples as labels, "
            f"got {p.shape}, {len(sectors)} sectors, {rows} samples"
        )
    keys: dict[str, Any] = {"row": np.arange(len(y))}
    if samples is not None and {"code", "date"} <= set(samples.columns):
        keys = {name: samples[name] for name in SAMPLE_COLUMNS if name in samples.columns}
    table = pl.DataFrame(keys | {"sector": sectors, "label": y, **dict(zip(P_COLUMNS, p.T, strict=True)), **columns})
    return Forecast.from_table(table, "predictions of a model")


def _of_checked(table: pl.DataFrame, where: str) -> Forecast:
    def column(name: str) -> NDArray[np.float64] | None:
        return table[name].fill_null(np.nan).to_numpy() if name in table.columns else None

    day, codes, dates = None, None, []
    if keys_of(table) != ["row"]:
        dates = table["date"].unique().sort().to_list()
        day = table["date"].rank("dense").to_numpy().astype(np.int64) - 1
        codes = table["code"].rank("dense").to_numpy().astype(np.int64) - 1
    raw = table.select(RAW_P_COLUMNS).to_numpy() if set(RAW_P_COLUMNS) <= set(table.columns) else None
    return Forecast(
        table.select(P_COLUMNS).to_numpy(),
        table["label"].to_numpy().astype(np.int64),
        table["sector"].to_numpy().astype(np.int64),
        day,
        dates,
        raw,
        column("forward_return"),
        column("forward_return_skip1"),
        column("volatility_20"),
        column("score"),
        codes,
        table.select(keys_of(table)),
        _only(table, "model", where),
        _only(table, "split", where),
        _only(table, "seed", where),
    )


def _only(table: pl.DataFrame, column: str, where: str) -> Any:
    values = table[column].drop_nulls().unique().to_list() if column in table.columns else []
    if len(values) > 1:
        raise ValueError(
            f"{where}: one table holds one model on one split, found {column} {values[:4]}: filter it first"
        )
    return values[0] if values else None


# ------------------------------------------------------------------------------------------------ two of them


@dataclass(frozen=True)
class Alignment:
    """What two forecasts have in common: rows on both sides, rows only one side has, some of their keys."""

    n: int
    only_a: int
    only_b: int
    examples: tuple[str, ...] = ()


def align(a: Forecast, b: Forecast, names: tuple[str, str] = ("a", "b")) -> tuple[Forecast, Forecast, Alignment]:
    """Both forecasts cut to the rows they share; the very same objects where these are all they have.

    Raises:
        ValueError: different kinds of keys, no common row, or labels that differ on a common row.
    """
    keys = a.keys.columns
    if sorted(keys) != sorted(b.keys.columns):
        raise ValueError(f"cannot align {names[0]} (keys {keys}) with {names[1]} (keys {b.keys.columns})")
    if a.keys is b.keys or a.keys.equals(b.keys.select(keys)):
        _check_same_labels(a, b, names)
        return a, b, Alignment(a.n, 0, 0)
    rows_a, rows_b = _common_rows(a, b), _common_rows(b, a)
    if not rows_a.any():
        raise ValueError(f"{names[0]} and {names[1]} have no row in common (keys {keys}): different splits or data?")
    lone = pl.concat([x.keys.filter(~rows).head(N_EXAMPLES).select(keys) for x, rows in ((a, rows_a), (b, rows_b))])
    cut_a, cut_b = a.only(rows_a), b.only(rows_b)
    _check_same_labels(cut_a, cut_b, names)
    examples = tuple(" ".join(str(v) for v in row) for row in lone.iter_rows())
    return cut_a, cut_b, Alignment(cut_a.n, int((~rows_a).sum()), int((~rows_b).sum()), examples)


def _common_rows(a: Forecast, b: Forecast) -> NDArray[np.bool_]:
    """(N,) which rows of `a` are in `b`, too."""
    marked = a.keys.join(b.keys.with_columns(there=True), on=a.keys.columns, how="left", maintain_order="left")
    return marked["there"].fill_null(False).to_numpy()


def _check_same_labels(a: Forecast, b: Forecast, names: tuple[str, str]) -> None:
    differ = np.flatnonzero(a.labels != b.labels)
    if len(differ):
        i = int(differ[0])
        example = a.keys.row(i, named=True) | {names[0]: int(a.labels[i]), names[1]: int(b.labels[i])}
        raise ValueError(
            f"{names[0]} and {names[1]} disagree about {len(differ)} labels, e.g. {example}: "
            "they were not made from the same data"
        )
