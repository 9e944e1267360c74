"""The original specification's commands on a dataset of just its four arrays, as somebody else would have made it."""

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments import build_dataset, predict, train, train_phase2, tune_phase2, validate_model
from experiments._cli import run_script
from lasps.models.sector_aware_model import SectorAwareFusionModel
from lasps.training.checkpoints import load_checkpoint, save_checkpoint

FEATURES, SIZES = 7, {"train": 150, "val": 60}


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    """time_series, chart_images (float, 32 x 32), sector_ids and labels per split, and nothing else."""
    rng = np.random.default_rng(0)
    for split, n in SIZES.items():
        folder = tmp_path / "theirs" / split
        folder.mkdir(parents=True)
        np.save(folder / "time_series.npy", rng.normal(size=(n, 60, FEATURES)).astype(np.float32))
        np.save(folder / "chart_images.npy", rng.random((n, 3, 32, 32)).astype(np.float32))
        sectors = np.where(np.arange(n) % 5 == 0, 7, 4)
        np.save(folder / "sector_ids.npy", sectors.astype(np.int64))
        np.save(folder / "labels.npy", rng.integers(0, 3, n))
    return tmp_path / "theirs"


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A bare state_dict without a .json."""
    torch.manual_seed(0)
    path = tmp_path / "phase3_final.pt"
    torch.save(SectorAwareFusionModel(num_sectors=20, ts_input_dim=FEATURES).state_dict(), path)
    return path


def call(main: Callable[[], None], *arguments: object) -> int:
    """Run a script's main as the shell would; its exit code."""
    sys.argv = ["script", *(str(a) for a in arguments)]
    with pytest.raises(SystemExit) as stop:
        run_script(main)
    return stop.value.code


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_collate_function_is_where_the_plan_imports_it_from() -> None:
    from experiments.train import stock_collate_fn
    from lasps.data.datasets.stock_dataset import StockDataset
    from lasps.data.datasets.stock_dataset import stock_collate_fn as original

    assert stock_collate_fn is original and StockDataset


def test_train_phase2_on_foreign_arrays_prints_the_plans_lines(arrays: Path, bare: Path, tmp_path: Path, capfd) -> None:
    code = call(
        train_phase2.main,
        "--checkpoint",
        bare,
        "--data-dir",
        arrays,
        "--output-dir",
        tmp_path / "out",
        "--device",
        "cpu",
        "--epochs",
        2,
        "--no-track",
    )
    lines = capfd.readouterr().err
    assert code == 0, lines
    assert f"Loaded checkpoint: {bare}" in lines
    assert "Phase 2: Building sector-specific DataLoaders" in lines
    assert "Sector 7: 30 samples (skipping)" in lines and "Sector 4: 120 samples" in lines
    assert "Phase 2: Sector Heads (backbone frozen)" in lines
    assert re.search(r"Phase2 Sector 4 \[1/2\] loss=\d\.\d+\n", lines)
    assert re.search(r"Phase2 Sector 4 \[2/2\] loss=\d\.\d+\n", lines)
    assert f"Saved: {tmp_path / 'out' / 'phase2_best.pt'}" in lines and "Phase 2 complete" in lines
    order = [lines.index(text) for text in ("Building sector", "Sector Heads (b", "Phase2 Sector 4 [1", "Saved:")]
    assert order == sorted(order)


def test_validate_prints_the_plans_block_verbatim(arrays: Path, bare: Path, tmp_path: Path, capfd) -> None:
    code = call(
        validate_model.main,
        "--checkpoint",
        bare,
        "--data-dir",
        arrays,
        "--device",
        "cpu",
        "--no-track",
        "--json",
        tmp_path / "m.json",
    )
    out = capfd.readouterr().out
    assert code == 0
    m = json.loads((tmp_path / "m.json").read_text())
    recall, count = m["class_accuracy"], m["class_counts"]
    block = "\n".join(
        [
            "",
            "=" * 50,
            "VALIDATION RESULTS",
            "=" * 50,
            f"Checkpoint: {bare}",
            f"Val Loss:   {m['loss']:.4f}",
            f"Accuracy:   {m['accuracy'] * 100:.2f}%",
            "",
            "Class-wise Accuracy:",
        ]
        + [f"  {c}: {recall[c] * 100:.2f}% ({count[c]} samples)" for c in ("SELL", "HOLD", "BUY")]
        + ["=" * 50, ""]
    )
    assert out.startswith(block)
    assert m["n"] == SIZES["val"] and m["split"] == "val" and m["checkpoint"] == str(bare)


def test_the_validation_loss_is_the_criterions_sample_mean(arrays: Path, bare: Path, tmp_path: Path) -> None:
    from lasps.data.datasets.stock_dataset import StockDataset
    from lasps.training.loss_functions import FocalLoss

    call(
        validate_model.main,
        "--checkpoint",
        bare,
        "--data-dir",
        arrays,
        "--device",
        "cpu",
        "--no-track",
        "--json",
        tmp_path / "m.json",
        "--batch-size",
        7,
    )
    names = ("time_series", "chart_images", "sector_ids", "labels")
    data = StockDataset(*(str(arrays / "val" / f"{name}.npy") for name in names))
    series, charts, sectors, labels = data.batch(np.arange(len(data)))
    model = SectorAwareFusionModel.from_state_dict(torch.load(bare, weights_only=True)).eval()
    with torch.no_grad():
        loss = FocalLoss(num_classes=3, gamma=2.0)(model(series, charts, sectors)["logits"], labels)
    assert json.loads((tmp_path / "m.json").read_text())["loss"] == pytest.approx(float(loss), abs=1e-5)


def test_phases_1_and_3_train_on_foreign_arrays_too(arrays: Path, tmp_path: Path) -> None:
    for phase in (1, 3):
        assert (
            call(
                train.main,
                "--phase",
                phase,
                "--epochs",
                1,
                "--data-dir",
                arrays,
                "--output-dir",
                tmp_path / "out",
                "--device",
                "cpu",
                "--no-track",
            )
            == 0
        )
    assert (tmp_path / "out" / "phase3_final.pt").is_file()


def test_a_study_evaluates_its_initial_heads_by_the_loss_they_were_trained_with(arrays: Path, bare: Path) -> None:
    save_checkpoint(bare, load_checkpoint(bare)[0], {"calibration": {"focal_gamma": 0.5, "class_weights": [1, 1, 1]}})
    data, unseen = tune_phase2.load_data(argparse.Namespace(checkpoint=bare, data_dir=arrays), "cpu")
    assert data.start_gamma == 0.5 and data.initial_head(4)[1] == 0.5
    assert len(data.val) + len(unseen) <= SIZES["val"] and len(unseen) > 20


def test_a_flag_of_another_phase_is_named_in_a_warning(arrays: Path, bare: Path, tmp_path: Path, capfd) -> None:
    where = ("--data-dir", arrays, "--output-dir", tmp_path / "out", "--device", "cpu", "--no-track")
    assert call(train.main, "--phase", 2, "--checkpoint", bare, "--epochs", 1, "--batch-size", 16, *where) == 0
    assert "no effect with --phase 2; ignored: --batch-size\n" in capfd.readouterr().err
    assert call(train.main, "--phase", 1, "--epochs", 1, "--batch-size", 64, *where) == 0
    assert "ignored" not in capfd.readouterr().err


BAD_ARRAYS = {
    "labels outside 0..2": ("labels", lambda a: np.where(np.arange(len(a)) == 11, 3, a), "11"),
    "a sector id outside 0..S-1": ("sector_ids", lambda a: np.where(np.arange(len(a)) == 3, 20, a), "20"),
    "NaN features": ("time_series", lambda a: with_value(a, (9, 5, 2), np.nan), "9"),
    "infinite features": ("time_series", lambda a: with_value(a, (4, 0, 0), np.inf), "4"),
    "one blank chart": ("chart_images", lambda a: with_value(a, 13, 0.0), "13"),
    "charts outside 0..1": ("chart_images", lambda a: with_value(a, (2, 0, 0, 0), 255.0), "2"),
    "another length": ("labels", lambda a: a[:-1], "149"),
    "an empty split": ("labels", lambda a: a[:0], "0"),
}


def with_value(array: np.ndarray, where: object, value: float) -> np.ndarray:
    changed = array.copy()
    changed[where] = value
    return changed


@pytest.mark.parametrize("what", BAD_ARRAYS)
def test_bad_arrays_stop_phase_2_with_where_they_are_and_touch_nothing(
    what: str, arrays: Path, bare: Path, tmp_path: Path, capfd
) -> None:
    name, spoil, place = BAD_ARRAYS[what]
    path = arrays / "train" / f"{name}.npy"
    np.save(path, spoil(np.load(path)))
    before = files_of(tmp_path)
    code = call(
        train_phase2.main,
        "--checkpoint",
        bare,
        "--data-dir",
        arrays,
        "--output-dir",
        tmp_path,
        "--device",
        "cpu",
        "--epochs",
        1,
        "--no-track",
    )
    message = capfd.readouterr().err
    assert code == 2
    assert "expected" in message and place in message and name in message
    assert {k: v for k, v in files_of(tmp_path).items() if k in before} == before
    assert not (tmp_path / "phase2_best.pt").exists()


def test_all_sectors_under_min_samples_is_an_error(arrays: Path, bare: Path, tmp_path: Path, capfd) -> None:
    code = call(
        train_phase2.main,
        "--checkpoint",
        bare,
        "--data-dir",
        arrays,
        "--output-dir",
        tmp_path / "out",
        "--device",
        "cpu",
        "--min-samples",
        1000,
        "--no-track",
    )
    assert code == 2 and "min_samples" in capfd.readouterr().err


def spoiled(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    state = torch.load(path, weights_only=True)
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "4 kB overwritten":
        content[len(content) // 2 : len(content) // 2 + 4096] = b"\x13" * 4096
        path.write_bytes(content)
    elif how == "holding NaN":
        state["common_head.fc1.bias"][0] = float("nan")
        torch.save(state, path)
    elif how == "of other shapes":
        state["shared_fusion.mlp.0.weight"] = torch.zeros(3, 3)
        torch.save(state, path)
    elif how == "holding code":
        torch.save({"weights": _Bomb()}, path)


class _Bomb:
    def __reduce__(self) -> tuple:
        return (open, (str(Path.cwd() / "bomb-went-off"), "w"))


@pytest.mark.parametrize("how", ["truncated", "4 kB overwritten", "holding NaN", "of other shapes", "holding code"])
def test_a_bad_checkpoint_is_refused_and_never_executed(
    how: str, arrays: Path, bare: Path, tmp_path: Path, monkeypatch, capfd
) -> None:
    monkeypatch.chdir(tmp_path)
    spoiled(bare, how)
    code = call(validate_model.main, "--checkpoint", bare, "--data-dir", arrays, "--device", "cpu", "--no-track")
    assert code == 2 and bare.name in capfd.readouterr().err
    assert not (tmp_path / "bomb-went-off").exists()


def test_a_missing_checkpoint_source_or_device_is_an_error_with_advice(
    arrays: Path, bare: Path, tmp_path: Path, capfd
) -> None:
    assert call(validate_model.main, "--checkpoint", tmp_path / "no.pt", "--data-dir", arrays, "--device", "cpu") == 2
    assert "no.pt" in capfd.readouterr().err
    assert call(validate_model.main, "--checkpoint", bare, "--data-dir", arrays, "--device", "cuda:7") == 2
    assert "--device cpu" in capfd.readouterr().err
    assert call(validate_model.main, "--checkpoint", bare, "--data-dir", tmp_path / "nowhere", "--device", "cpu") == 2
    assert "make data" in capfd.readouterr().err
    assert (
        call(
            predict.main,
            "--checkpoint",
            bare,
            "--source",
            tmp_path / "no.parquet",
            "--listing",
            tmp_path / "no.csv",
            "--device",
            "cpu",
        )
        == 2
    )
    assert call(predict.main, "--checkpoint", bare, "--source", tmp_path / "no.parquet", "--device", "cpu") == 2
    assert "--source and --listing belong together" in capfd.readouterr().err
    assert call(build_dataset.main, "--source", tmp_path / "no.parquet", "--data-dir", tmp_path / "d") == 2
    assert not (tmp_path / "d").exists()


def test_where_an_error_was_raised_is_said_to_those_who_ask(tmp_path: Path, monkeypatch, capfd) -> None:
    def broken() -> None:
        raise ValueError("operands could not be broadcast together")

    assert call(broken) == 2 and "Traceback" not in capfd.readouterr().err
    monkeypatch.setenv("LASPS_LOG", "DEBUG")
    assert call(broken) == 2
    shown = capfd.readouterr().err
    assert "Traceback" in shown and "in broken" in shown
