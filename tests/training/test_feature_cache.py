"""Shared features: read once in a fixed order, kept, verified, computed again where anything differs."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset, TensorDataset

from lasps.training.heads import shared_features as feature_cache
from lasps.training.heads.sample_sources import sources_of
from lasps.training.heads.shared_features import shared_samples
from lasps.training.phase2 import train_phase2
from tests.training.market import SIZES, Market, loaders, make_trainer


def test_sectors_of_one_dataset_are_read_front_to_back_in_one_source():
    (source,) = sources_of(loaders(Market()))
    assert np.array_equal(source.indices, np.arange(sum(SIZES)))
    assert np.array_equal(source.expected, Market().tensors[2].numpy())


def test_the_order_of_a_subsets_indices_does_not_matter():
    market = Market()
    backwards = Subset(market, list(range(len(market)))[::-1])
    (source,) = sources_of({-1: DataLoader(backwards, batch_size=4)})
    assert np.array_equal(source.indices, np.arange(len(market)))


def test_features_are_the_models_in_eval_mode_and_samples_in_dataset_order():
    trainer, market = make_trainer(), Market()
    trainer.model.train()
    samples = shared_samples(trainer.model, loaders(market))
    with torch.no_grad():
        expected = trainer.model.eval()(*market.tensors[:3])["shared_features"]
    assert torch.allclose(samples.features, expected, atol=1e-5)
    assert torch.equal(samples.labels, market.tensors[3])
    assert torch.equal(samples.sector_ids, market.tensors[2])


def test_a_second_call_reads_no_data_and_another_backbone_reads_it_again(tmp_path):
    trainer = make_trainer()
    first = shared_samples(trainer.model, loaders(Market()), cache_dir=tmp_path)
    again = Market()
    second = shared_samples(trainer.model, loaders(again), cache_dir=tmp_path)
    assert again.reads <= feature_cache.CHECKED_SAMPLES
    assert torch.equal(first.features, second.features) and first.fingerprint == second.fingerprint
    with torch.no_grad():
        trainer.model.cnn.output.bias.add_(0.5)
    changed = shared_samples(trainer.model, loaders(again), cache_dir=tmp_path)
    assert again.reads >= sum(SIZES) and changed.fingerprint != first.fingerprint
    assert not torch.equal(first.features, changed.features)


def test_a_whole_dataset_and_its_sectors_loaders_share_one_pass(tmp_path):
    trainer, market = make_trainer(), Market()
    first = shared_samples(trainer.model, loaders(market), cache_dir=tmp_path)
    reads = market.reads
    second = shared_samples(trainer.model, market, cache_dir=tmp_path)
    assert market.reads - reads <= feature_cache.CHECKED_SAMPLES
    assert torch.equal(first.features, second.features)


def test_kept_samples_of_another_sector_than_their_loaders_are_an_error_too(tmp_path):
    trainer, market = make_trainer(), Market()
    rows = np.append(market.of_sector(0).indices, market.of_sector(1).indices[-1])
    assert np.sort(rows).tolist().index(rows[-1]) > feature_cache.CHECKED_SAMPLES
    own = Subset(market, rows.tolist())
    shared_samples(trainer.model, own, cache_dir=tmp_path)
    with pytest.raises(ValueError, match="only samples of sector 0.*got one of sector 1"):
        shared_samples(trainer.model, {0: DataLoader(own, batch_size=8)}, cache_dir=tmp_path)


def test_heads_are_no_part_of_the_key(tmp_path):
    trainer, market = make_trainer(), Market()
    first = train_phase2(trainer, loaders(market), 1, cache=tmp_path)
    reads = market.reads
    second = train_phase2(trainer, loaders(market), 1, cache=tmp_path)
    assert market.reads - reads <= feature_cache.CHECKED_SAMPLES
    assert first[0]["losses"] != second[0]["losses"]  # the heads go on from where they were


def test_data_without_a_fingerprint_is_known_by_its_content(tmp_path, lines):
    trainer = make_trainer()
    series, charts, sectors, labels = Market().tensors
    for _ in range(2):
        shared_samples(trainer.model, TensorDataset(series, charts, sectors, labels), cache_dir=tmp_path)
    assert sum("samples cached by an earlier pass" in line for line in lines) == 1
    series = series.clone()
    series[20, 3, 1] += 1e-3
    shared_samples(trainer.model, TensorDataset(series, charts, sectors, labels), cache_dir=tmp_path)
    assert sum("samples cached by an earlier pass" in line for line in lines) == 1, "computed again"


@pytest.mark.parametrize("damage", ["one byte", "truncated", "no description"])
def test_damaged_features_are_computed_again(tmp_path, damage, lines):
    trainer = make_trainer()
    first = shared_samples(trainer.model, loaders(Market()), cache_dir=tmp_path)
    (entry,) = tmp_path.iterdir()
    file = entry / ("meta.json" if damage == "no description" else "features.npy")
    content = bytearray(file.read_bytes())
    if damage == "one byte":
        content[-5] ^= 1
    file.write_bytes(content[:-40] if damage == "truncated" else content)
    if damage == "no description":
        file.unlink()
    second = shared_samples(trainer.model, loaders(Market()), cache_dir=tmp_path)
    assert torch.equal(first.features, second.features)
    assert any("damaged" in line for line in lines)


def test_features_of_older_code_are_computed_again(tmp_path, monkeypatch, lines):
    trainer = make_trainer()
    first = shared_samples(trainer.model, loaders(Market()), cache_dir=tmp_path)
    original = type(trainer.model).encode
    monkeypatch.setattr(type(trainer.model), "encode", lambda self, *batch: original(self, *batch) * 1.5)
    second = shared_samples(trainer.model, loaders(Market()), cache_dir=tmp_path)
    assert torch.allclose(second.features, 1.5 * first.features)
    assert any("do not match this code" in line for line in lines)


def test_a_killed_pass_leaves_nothing_that_is_used_and_is_swept_up(tmp_path):
    left = tmp_path / f".writing-{2**22 + 1}-aa"  # above the largest process id
    left.mkdir()
    (left / "features.npy").write_bytes(b"half")
    shared_samples(make_trainer().model, loaders(Market()), cache_dir=tmp_path)
    assert not left.exists()


def test_a_pass_that_finds_no_room_leaves_no_folder(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lasps.training.heads.shared_features.write_synced", full)
    with pytest.raises(OSError, match="No space"):
        shared_samples(make_trainer().model, loaders(Market()), cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_features_that_are_not_finite_name_the_sample():
    trainer = make_trainer()
    trainer.model.encode = lambda series, charts: torch.full((len(series), 128), float("nan"))
    with pytest.raises(ValueError, match="finite shared features.*first 0"):
        shared_samples(trainer.model, loaders(Market()))
