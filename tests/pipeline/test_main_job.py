"""The whole job once, tiny: data -> phases 1, 3, 2 -> validation -> summary -> forecast."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from lasps.data.datasets.dataset import Dataset
from lasps.data.labels import make_labels
from lasps.data.splits import Borders
from lasps.evaluation.rank_ic import MIN_DAYS
from lasps.pages.comparison_text import show_comparison
from lasps.pipeline.datasets import BuildOptions, build_from_bars
from lasps.pipeline.forecast import forecast
from lasps.pipeline.phase_options import PhaseOptions
from lasps.pipeline.phases import run_phases
from lasps.pipeline.summary import baseline_split, baseline_tables, compare_all, summarize, validate_all
from lasps.pipeline.validation import unflagged, validate_checkpoint
from lasps.training.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from tests.pipeline.conftest import Job

CHECKPOINTS = ("phase1_best", "phase3_final", "phase2_best")


def test_each_phase_leaves_a_bare_state_dict_with_its_origin_beside_it(job: Job) -> None:
    for name in CHECKPOINTS:
        state = torch.load(job.output_dir / f"{name}.pt", weights_only=True)
        assert all(isinstance(value, torch.Tensor) for value in state.values())
        meta = job.meta(name)
        assert meta["name"] == name and len(meta["sha256"]) == 64
        assert meta["data"]["features"] and meta["data"]["scaler"] and meta["data"]["chart_size"] == [96, 180]
        assert meta["calibration"]["focal_gamma"] == 2.0
        of_the_weights = "val_log_loss_before_acceptance" if name == "phase2_best" else "best_val_log_loss"
        losses = [meta["metrics"].get(of_the_weights), *meta["history"]["val_log_loss"]]
        assert losses[0] is not None and losses[0] <= min(losses) + 1e-12  # what MLflow shows on the checkpoint's page


def test_phase_2_leaves_everything_but_the_sector_heads_bitwise_as_it_was(job: Job) -> None:
    before, _ = load_checkpoint(job.output_dir / "phase3_final.pt")
    after, _ = load_checkpoint(job.output_dir / "phase2_best.pt")
    rest = [name for name in before if not name.startswith("sector_heads.")]
    assert len(rest) > 20
    assert all(torch.equal(before[name], after[name]) for name in rest)


def test_phase_1_leaves_every_sector_head_a_copy_of_the_common_head(job: Job) -> None:
    state, _ = load_checkpoint(job.output_dir / "phase1_best.pt")
    assert torch.equal(state["sector_heads.7.fc1.weight"], state["common_head.fc1.weight"])
    assert torch.equal(state["sector_heads.19.fc2.bias"], state["common_head.fc2.bias"])


def test_the_summary_holds_what_the_contract_names(job: Job, capsys: pytest.CaptureFixture) -> None:
    validations, baselines = (
        validate_all(Dataset.open(job.data_dir), job.output_dir, "cpu", None),
        baseline_tables(Dataset.open(job.data_dir)),
    )
    comparison = compare_all(validations, baselines)
    content = summarize(validations, baselines, comparison)
    for name in (*CHECKPOINTS, "oracle", "volatility_bins", "majority", "prior"):
        for split in ("val", "test"):
            m = content[name][split]
            assert {
                "n",
                "accuracy",
                "majority_accuracy",
                "log_loss",
                "prior_log_loss",
                "macro_f1",
                "class_accuracy",
                "class_counts",
            } <= set(m)
            assert sum(m["class_counts"].values()) == m["n"]
    assert content["oracle"]["test"]["log_loss"] < content["prior"]["test"]["log_loss"]
    pairs = {(row["a"], row["b"], row["split"], row["metric"]) for row in content["differences"]}
    assert ("phase3_final", "phase2_best", "test", "log_loss") in pairs
    assert ("phase1_best", "phase2_best", "test", "accuracy") in pairs
    for row in content["differences"]:
        exact = content[row["b"]][row["split"]][row["metric"]] - content[row["a"]][row["split"]][row["metric"]]
        assert row["difference"] == pytest.approx(exact, abs=1e-12)
        low, high = row["interval"]  # both None on too few days, or where no day differs
        assert row["difference"] == 0 or row["n_days"] < MIN_DAYS or low <= row["difference"] <= high
    show_comparison(comparison)
    printed = capsys.readouterr().out
    assert "oracle" in printed and content["verdict"][0].split(" (")[0] in printed


def test_the_last_known_label_is_the_one_of_five_traded_rows_ago(job: Job) -> None:
    split = baseline_split(Dataset.open(job.data_dir), "test")
    panel = (
        job.market.panel.sort("code", "date")
        .with_columns(past=(pl.col("close") / pl.col("close").shift(5) - 1).over("code"))
        .with_columns(pl.col("date").cast(pl.Date))
    )
    known = split.samples.join(panel, on=["code", "date"], how="left", maintain_order="left")
    np.testing.assert_allclose(split.past_return, known["past"], rtol=1e-6)
    labels = make_labels(panel).select("label", "label_cut_short", day="label_end").with_columns(code=panel["code"])
    own = split.samples.with_columns(known=split.known_labels).join(
        labels.filter(~pl.col("label_cut_short")), left_on=["code", "date"], right_on=["code", "day"], suffix="_then"
    )
    assert len(own) > 300 and (own["known"] == own["label_then"]).all()


def test_a_forecast_equals_the_validation_of_the_same_day(job: Job) -> None:
    checkpoint = Checkpoint.open(job.output_dir / "phase2_best.pt")
    table = validate_checkpoint(checkpoint, Dataset.open(job.data_dir), "test").forecast.table
    day = table["date"].value_counts().sort("count", "date")["date"][-1]
    validated = table.filter(pl.col("date") == day)
    made, _ = forecast(checkpoint, job.market.panel, job.market.listing, day.isoformat())
    both = validated.join(made, on=["code", "date"], how="left", suffix="_forecast")
    assert len(both) == len(validated) >= 5 and both["p_buy_forecast"].null_count() == 0
    for name in ("p_sell", "p_hold", "p_buy"):
        np.testing.assert_allclose(both[f"{name}_forecast"], both[name], atol=1e-5)
    order = (made["p_buy"] - made["p_sell"]).to_numpy()
    assert (np.diff(order) <= 0).all()


def test_heads_of_another_loss_are_corrected_sector_by_sector(job: Job, tmp_path) -> None:
    overrides = job.options.overrides | {
        "focal_gamma": 0.0,
        "l2_sp": 0.0,
        "weight_decay": 0.1,
        "batch_size": 8,
        "rank": 0,
    }
    run_phases(
        (2,),
        replace(job.options, output_dir=tmp_path, checkpoint=job.output_dir / "phase3_final.pt", overrides=overrides),
    )
    meta = json.loads((tmp_path / "phase2_best.json").read_text())
    assert {name: meta["phase"][name] for name in ("focal_gamma", "l2_sp", "weight_decay", "batch_size")} == {
        "focal_gamma": 0.0,
        "l2_sp": 0.0,
        "weight_decay": 0.1,
        "batch_size": 8,
    }
    sectors = meta["history"]["sectors"]
    new = [int(sector) for sector, entry in sectors.items() if not entry["kept_start"]]
    found = np.broadcast_to(meta["calibration"]["focal_gamma"], 20)
    assert [s for s in range(20) if found[s] == 0.0] == new and len(new) < 20

    gammas = [0.0 if sector % 2 else 2.0 for sector in range(20)]
    meta["calibration"]["focal_gamma"] = gammas
    save_checkpoint(tmp_path / "phase2_best.pt", load_checkpoint(tmp_path / "phase2_best.pt")[0], meta)
    checkpoint = Checkpoint.open(tmp_path / "phase2_best.pt")
    table = validate_checkpoint(checkpoint, Dataset.open(job.data_dir), "test").forecast.table
    same = (table["p_buy"] - table["raw_p_buy"]).abs().to_numpy() < 1e-9
    np.testing.assert_array_equal(same, table["sector"].to_numpy() % 2 == 1)
    day = table["date"].max()
    made, _ = forecast(checkpoint, job.market.panel, job.market.listing, day.isoformat())
    both = table.filter(date=day).join(made, on=["code", "date"], suffix="_forecast")
    assert len(both) > 0
    np.testing.assert_allclose(both["p_buy_forecast"], both["p_buy"], atol=1e-5)


def test_a_forecast_does_not_change_when_later_bars_arrive(job: Job) -> None:
    checkpoint = Checkpoint.open(job.output_dir / "phase2_best.pt")
    days = job.market.panel["date"].unique().sort()
    day = days[-20]
    early, _ = forecast(checkpoint, job.market.panel.filter(pl.col("date") <= day), job.market.listing, "latest")
    late, _ = forecast(checkpoint, job.market.panel, job.market.listing, day.isoformat())
    assert early.equals(late)


def test_a_day_without_trading_and_a_bare_checkpoint_are_refused(job: Job, tmp_path) -> None:
    checkpoint = Checkpoint.open(job.output_dir / "phase2_best.pt")
    with pytest.raises(ValueError, match="trading day of the source"):
        forecast(checkpoint, job.market.panel, job.market.listing, "1999-01-02")
    (tmp_path / "bare.pt").write_bytes((job.output_dir / "phase2_best.pt").read_bytes())
    with pytest.raises(ValueError, match="forecasts need features"):
        forecast(Checkpoint.open(tmp_path / "bare.pt"), job.market.panel, job.market.listing)


def test_resuming_a_finished_job_keeps_its_files_and_another_seed_does_not(job: Job) -> None:
    stamps = {name: (job.output_dir / f"{name}.pt").stat().st_mtime_ns for name in CHECKPOINTS}
    again = PhaseOptions(**{**job.options.__dict__, "resume": True})
    run_phases((1, 3, 2), again)
    assert stamps == {name: (job.output_dir / f"{name}.pt").stat().st_mtime_ns for name in CHECKPOINTS}


def test_a_phase_without_its_input_names_the_command_that_makes_it(job: Job, tmp_path) -> None:
    options = PhaseOptions(job.data_dir, tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="train.py --phase 1"):
        run_phases((3,), options)
    with pytest.raises(FileNotFoundError, match="train.py --phase 3"):
        run_phases((2,), options)


def test_a_small_sector_is_named_and_keeps_its_head(job: Job) -> None:
    before, _ = load_checkpoint(job.output_dir / "phase3_final.pt")
    after, _ = load_checkpoint(job.output_dir / "phase2_best.pt")
    labels = np.load(job.data_dir / "train" / "sector_ids.npy")
    small = [s for s in range(20) if (labels == s).sum() < 40]
    assert small
    for sector in small:
        assert torch.equal(before[f"sector_heads.{sector}.fc1.weight"], after[f"sector_heads.{sector}.fc1.weight"])


def test_results_can_be_shown_without_labels_that_are_doubted_later(job: Job) -> None:
    forecast = validate_checkpoint(
        Checkpoint.open(job.output_dir / "phase2_best.pt"), Dataset.open(job.data_dir), "test"
    ).forecast
    samples = pl.read_parquet(job.data_dir / "test" / "samples.parquet")
    doubted = np.arange(len(samples)) % 7 == 3
    part = unflagged(forecast, samples.with_columns(label_spans_halt=doubted))
    assert part.n == forecast.n - doubted.sum()
    assert part.keys.join(samples.filter(doubted), on=["code", "date"], how="semi").is_empty()
    with pytest.raises(ValueError, match="bare arrays"):
        unflagged(forecast, None)


def test_new_days_extend_a_dataset_and_leave_its_borders_scaler_and_old_samples_alone(job: Job, tmp_path) -> None:
    borders = Borders.from_dict(job.market.borders)
    cut = job.market.panel["date"].unique().sort()[-12]
    early = job.market.panel.filter(pl.col("date") <= cut)
    first = build_from_bars(
        early,
        job.market.listing,
        replace(borders, test_end=cut),
        {"name": "synthetic"},
        BuildOptions(tmp_path / "data"),
    )
    old = pl.read_parquet(tmp_path / "data" / "test" / "samples.parquet")
    later = build_from_bars(
        job.market.panel, job.market.listing, None, {"name": "synthetic"}, BuildOptions(tmp_path / "data", extend=True)
    )
    new = pl.read_parquet(tmp_path / "data" / "test" / "samples.parquet")
    assert later["scaler"] == first["scaler"]
    assert {k: v for k, v in later["borders"].items() if k != "test_end"} == {
        k: v for k, v in first["borders"].items() if k != "test_end"
    }
    assert len(new) > len(old)
    known_then = [name for name in old.columns if name != "forward_return_skip1"]  # the last one needs a day more
    again = new.join(old, on=["code", "date"], how="semi", maintain_order="left")
    assert again.select(known_then).equals(old.select(known_then))
