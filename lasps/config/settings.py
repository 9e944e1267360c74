"""Paths, class names and class weights. Default paths hang on the repo root, never on the current folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

CLASS_NAMES = ("SELL", "HOLD", "BUY")
"""Label 0, 1, 2."""


@dataclass(frozen=True)
class Settings:
    """Project-wide settings; `CLASS_WEIGHTS` are the focal loss' alpha_t in label order."""

    CLASS_WEIGHTS: tuple[float, float, float] = (1.0, 1.0, 1.0)
    ROOT: Path = ROOT
    DATA_DIR: Path = ROOT / "data" / "processed"
    RAW_DIR: Path = ROOT / "data" / "raw"
    CHECKPOINT_DIR: Path = ROOT / "checkpoints"
    REPORT_DIR: Path = ROOT / "reports"
    LOCK_FILE: Path = ROOT / "requirements.lock"


settings = Settings()
