"""A made-up comparison: the frames that pages show, with numbers of a plausible size."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest

from lasps.config.sectors import SECTORS
from lasps.evaluation.comparison import Comparison
from lasps.evaluation.frames import SCHEMAS

CLASSES = ("SELL", "HOLD", "BUY")
LOG_LOSS = {
    "phase1_best": 0.9694,
    "phase3_final": 0.9675,
    "phase2_best": 0.9238,
    "prior": 1.0399,
    "lightgbm": 0.9702,
    "volatility_bins": 1.0229,
    "oracle": 0.8384,
}
FLOATS = pl.Float64()


def kind(name: str) -> str:
    return "model" if name.startswith("phase") else "oracle" if name == "oracle" else "baseline"


def pair(
    a: str, b: str, split: str, metric: str, difference: float | None, half: float | None, n_days: int
) -> dict[str, Any]:
    low, high = (None, None) if difference is None or half is None else (difference - half, difference + half)
    decided = low is not None and (low > 0 or high < 0) and split == "test"
    lower = metric == "log_loss"
    role = "oracle" if a == "oracle" else "model" if kind(a) == "model" else "baseline"
    family = b == "phase2_best" and a in ("phase3_final", "lightgbm", "volatility_bins")
    return {
        "split": split,
        "a": a,
        "b": b,
        "metric": metric,
        "family": family,
        "role": role,
        "difference": difference,
        "low": low,
        "high": high,
        "p_value": None if low is None else 0.001 if decided else 0.4,
        "adjusted_p": (0.003 if decided else 0.4) if family and lower and low is not None else None,
        "n": 8078,
        "n_days": n_days,
        "n_seeds": 1,
        "over": "days",
        "better": ("b" if (difference < 0) == lower else "a") if decided else None,
    }


class MadeUp(Comparison):
    """A comparison whose verdict is given."""

    verdict = (
        "phase2_best is better than phase3_final on test (log loss -0.0436 [-0.0532, -0.0340]); accuracy +3.3 "
        "points [+2.5, +4.0]; 8 of 20 sectors differ after correction.",
        "It beats LightGBM (log loss -0.0463 [-0.0587, -0.0340]) and volatility bins (-0.0991 [-0.1166, -0.0815]).",
        "It closes 51 % of the log-loss gap between volatility bins and the oracle.",
    )  # type: ignore[assignment]


def made_comparison(
    n_days: int = 135,
    models: tuple[str, ...] = tuple(LOG_LOSS),
    splits: tuple[str, ...] = ("test",),
    dated: bool = True,
    shift: float = 0.0,
    seed: int = 7,
) -> Comparison:
    """Frames as lasps.evaluation.comparison.Comparison has them; `shift` moves phase2_best's log loss up."""
    rng = np.random.default_rng(seed)
    log_loss = {m: LOG_LOSS[m] + (shift if m == "phase2_best" else 0.0) for m in models}
    days = [d for d in (dt.date(2025, 1, 2) + dt.timedelta(i) for i in range(3 * n_days)) if d.weekday() < 5][:n_days]
    frames: dict[str, list[dict[str, Any]]] = {name: [] for name in SCHEMAS}
    for split in splits:
        for m, loss in log_loss.items():
            accuracy, ic = 1.03 - 0.5 * loss, 3.4 * (1.04 - loss)
            ranked = dated and m != "prior"
            frames["models"].append(
                {
                    "split": split,
                    "model": m,
                    "kind": kind(m),
                    "n": 8078,
                    "n_days": n_days if dated else None,
                    "n_seeds": 1,
                    "accuracy": accuracy,
                    "accuracy_low": accuracy - 0.01 if dated else None,
                    "accuracy_high": accuracy + 0.01 if dated else None,
                    "majority_accuracy": 0.5031,
                    "log_loss": loss,
                    "log_loss_low": loss - 0.01 if dated else None,
                    "log_loss_high": loss + 0.01 if dated else None,
                    "prior_log_loss": 1.0399,
                    "raw_log_loss": loss + 0.01,
                    "focal_loss": loss / 2.4,
                    "macro_f1": accuracy - 0.1,
                    "balanced_accuracy": accuracy - 0.08,
                    "rank_ic": ic if ranked else None,
                    "rank_ic_low": ic - 0.02 if ranked else None,
                    "rank_ic_high": ic + 0.02 if ranked else None,
                    "rank_ic_days": n_days if ranked else None,
                    "icir": 8 * ic if ranked else None,
                    "rank_ic_skip1": ic * 0.8 if ranked else None,
                    "rank_ic_skip1_low": None,
                    "rank_ic_skip1_high": None,
                    "rank_ic_skip1_days": n_days if ranked else None,
                    "icir_skip1": 6 * ic if ranked else None,
                    "expected_calibration_error": rng.uniform(0.01, 0.04),
                    "first_day_excess": rng.uniform(0, 0.02),
                    "leak_flagged": False,
                }
            )
            for s in SECTORS:
                frames["sector_models"].append(
                    {
                        "split": split,
                        "model": m,
                        "sector": s.id,
                        "name": s.english,
                        "n": 200 + 20 * s.id,
                        "n_days": n_days,
                        "accuracy": accuracy + rng.normal(0, 0.02),
                        "majority_accuracy": 0.5,
                        "log_loss": loss,
                        "prior_log_loss": 1.04,
                        "macro_f1": 0.4,
                        "rank_ic": None,
                        "rank_ic_days": None,
                    }
                )
            shares = {"SELL": 0.3 + 0.5 * (1 - loss), "HOLD": 0.8, "BUY": 0.15 + 0.5 * (1 - loss)}
            for true, n in zip(CLASSES, (2246, 4064, 1768), strict=True):
                frames["classes"].append(
                    {
                        "split": split,
                        "model": m,
                        "class": true,
                        "n": n,
                        "predicted": 1.1 * n,
                        "accuracy": shares[true],
                        "low": shares[true] - 0.03 if dated else None,
                        "high": shares[true] + 0.03 if dated else None,
                        "precision": 0.5,
                    }
                )
                for predicted in CLASSES:
                    share = shares[true] if true == predicted else (1 - shares[true]) / 2
                    frames["confusion"].append(
                        {
                            "split": split,
                            "model": m,
                            "true": true,
                            "predicted": predicted,
                            "n": share * n,
                            "share": share,
                        }
                    )
                for k in range(10):
                    p = 0.1 + 0.05 * k
                    frames["calibration"].append(
                        {
                            "split": split,
                            "model": m,
                            "class": true,
                            "bin": k,
                            "probability": p,
                            "share": p + rng.normal(0, 0.02),
                            "n": 808,
                        }
                    )
            gains = (1.0229 - loss) + rng.normal(0, 0.05, n_days)
            for day, gain, total in zip(days if dated else [], gains, np.cumsum(gains) / n_days, strict=False):
                frames["days"].append(
                    {
                        "split": split,
                        "model": m,
                        "date": day,
                        "n": 60,
                        "baseline": "volatility_bins",
                        "log_loss_gain": gain,
                        "cumulated_gain": total,
                        "rank_ic": ic + rng.normal(0, 0.1),
                    }
                )
            for month in sorted({d.replace(day=1) for d in days}) if ranked else []:
                frames["months"].append(
                    {
                        "split": split,
                        "model": m,
                        "month": month,
                        "n_days": 20,
                        "rank_ic": ic + rng.normal(0, 0.03),
                        "log_loss_gain": 0.05,
                    }
                )
            for k in range(10) if ranked else []:
                r = 0.09 * ic * (k - 4.5) / 4.5
                frames["deciles"].append(
                    {
                        "split": split,
                        "model": m,
                        "decile": k + 1,
                        "excess_return": r,
                        "low": r - 0.003,
                        "high": r + 0.003,
                        "n_days": n_days,
                    }
                )
                frames["coverage"].append(
                    {
                        "split": split,
                        "model": m,
                        "coverage": 0.1 * (k + 1),
                        "n": 808 * (k + 1),
                        "accuracy": accuracy + 0.02 * (9 - k),
                    }
                )
            if ranked:
                top = 0.09 * ic
                frames["books"].append(
                    {
                        "split": split,
                        "model": m,
                        "n_days": n_days,
                        "universe_return": 0.001,
                        "top_decile_return": top + 0.001,
                        "top_minus_universe": top,
                        "top_minus_universe_low": top - 0.002,
                        "top_minus_universe_high": top + 0.002,
                        "turnover": 0.5 + ic / 3,
                        "cost_per_holding": 0.003,
                        "net": top - 0.003,
                        "net_low": top - 0.005,
                        "net_high": top - 0.001,
                        "long_short": 2 * top,
                        "long_short_low": 2 * top - 0.003,
                        "long_short_high": 2 * top + 0.003,
                        "long_short_allowed": None,
                        "banned_days": 0,
                    }
                )
        for b in models:
            for a in models:
                if (
                    kind(b) == "model"
                    and a != b
                    and (kind(a) != "model" or list(models).index(a) < list(models).index(b))
                ):
                    d = log_loss[b] - log_loss[a]
                    half = 0.005 + 0.1 * abs(d) if dated else None
                    frames["pairs"].append(pair(a, b, split, "log_loss", d, half, n_days))
                    frames["pairs"].append(pair(a, b, split, "accuracy", -0.5 * d, half, n_days))
        sector_gain = {s.id: rng.normal(-0.03, 0.05) for s in SECTORS}
        for a, b in (("phase3_final", "phase2_best"), ("lightgbm", "phase2_best")):
            for s in SECTORS if a in models and b in models else []:
                d, half = sector_gain[s.id], 0.05
                p = 0.001 if abs(d) > half and split == "test" else 0.5
                frames["sectors"].append(
                    {
                        "split": split,
                        "a": a,
                        "b": b,
                        "sector": s.id,
                        "name": s.english,
                        "n": 200 + 20 * s.id,
                        "n_days": n_days,
                        "difference": d,
                        "low": d - half if dated else None,
                        "high": d + half if dated else None,
                        "p_value": p if dated else None,
                        "adjusted_p": p if dated else None,
                        "better": ("b" if d < 0 else "a") if p < 0.05 and dated else None,
                    }
                )
        for c, share in zip(CLASSES, (0.278, 0.498, 0.224), strict=True):
            frames["prior"].append({"split": split, "class": c, "share": share, "source": "training frequencies"})
    made = {name: pl.DataFrame(rows, schema=SCHEMAS[name]) for name, rows in frames.items()}
    deployed = "phase2_best" if "phase2_best" in models else next(m for m in reversed(models) if kind(m) == "model")
    return MadeUp(
        **made,
        splits=splits,
        deployed=deployed,
        notes=(),
        sector_names=tuple(s.english for s in SECTORS),
        all_metrics={},
    )


@pytest.fixture
def made() -> Callable[..., Comparison]:
    """Make a comparison up: see `made_comparison`."""
    return made_comparison
