"""A fresh local store per test: MLflow's tables are made once and copied, because making them takes seconds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger

from lasps.tracking import MlflowTracker, open_tracker
from lasps.tracking.location import Location, connect, local_location


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("empty-store")
    connect(local_location(root))
    return root / "mlflow.db"


@pytest.fixture
def root(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / "저장소 repo"
    root.mkdir()
    shutil.copy(empty_database, root / "mlflow.db")
    return root


@pytest.fixture
def location(root: Path) -> Location:
    return local_location(root)


@pytest.fixture
def tracker(root: Path) -> MlflowTracker:
    tracker = open_tracker(root=root, system_metrics=False)
    assert isinstance(tracker, MlflowTracker)
    return tracker


@pytest.fixture
def warnings_logged() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lines.append, level="WARNING", format="{message}")
    yield lines
    logger.remove(sink)
