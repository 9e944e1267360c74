"""Known answers at the level of Phase 2's heads: features made directly, heads trained by the code of Phase 2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from experiments.verification.known_answers import EDGE, N_SIGNALS, Finding
from experiments.verification.simulation import SimulatedMarket, simulate_market
from lasps.evaluation import verdict
from lasps.evaluation.focal_calibration import calibrated_probabilities
from lasps.evaluation.forecast import Forecast
from lasps.evaluation.significance import Difference, day_difference
from lasps.training.heads.acceptance import logits_of
from lasps.training.heads.data import HeadData, HeadSamples, as_samples
from lasps.training.heads.independent import train_heads
from lasps.training.heads.nested import train_nested
from lasps.training.heads.settings import HeadSettings

Array = NDArray[np.float64]
SECTORS, STOCKS, WIDTH, HIDDEN = 20, 200, 16, 64
TRAIN_DAYS, VAL_DAYS, TEST_DAYS = 250, 60, 150
SECTOR_EDGE = 0.12  # standard deviation over sectors of a signal's coefficient, in volatilities a day
COMMON = {"epochs": 4, "lr": 2e-3, "batch_size": 256, "min_samples": 1, "l2_sp": 0.0, "weight_decay": 0.0}
CLASSES = 3


@dataclass(frozen=True)
class Split:
    """One simulated split as the heads see it."""

    market: SimulatedMarket
    features: NDArray[np.float32]

    @property
    def labels(self) -> NDArray[np.int64]:
        return self.market.labels.ravel()

    @property
    def sectors(self) -> NDArray[np.int64]:
        return np.tile(self.market.sectors, len(self.market.labels))

    def samples(self, sectors: NDArray[np.int64] | None = None) -> HeadSamples:
        n_days, n_stocks = self.market.labels.shape
        days = np.repeat(np.arange(n_days), n_stocks)
        return as_samples(self.features, self.labels, self.sectors if sectors is None else sectors, days)


def make_splits(rng: np.random.Generator, coefficients: Array) -> tuple[Split, Split, Split]:
    """Train, val and test: the market's features standardised by train, beside others that mean nothing."""
    markets = [simulate_market(rng, n, STOCKS, coefficients) for n in (TRAIN_DAYS, VAL_DAYS, TEST_DAYS)]
    raw = [m.features() for m in markets]
    mean, spread = raw[0].mean(axis=0), raw[0].std(axis=0)
    made = []
    for market, x in zip(markets, raw, strict=True):
        idle = rng.standard_normal((len(x), WIDTH - x.shape[1]))
        made.append(Split(market, np.c_[(x - mean) / spread, idle].astype(np.float32)))
    return made[0], made[1], made[2]


def new_head(seed: int, width: int) -> dict[str, Tensor]:
    """A fresh head (1, ...), initialised as nn.Linear is."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(shape: tuple[int, ...], inputs: int) -> Tensor:
        return (torch.rand(1, *shape, generator=generator) * 2 - 1) / inputs**0.5

    return {
        "fc1.weight": uniform((HIDDEN, width), width),
        "fc1.bias": uniform((HIDDEN,), width),
        "fc2.weight": uniform((CLASSES, HIDDEN), HIDDEN),
        "fc2.bias": uniform((CLASSES,), HIDDEN),
    }


def common_head(train: HeadSamples, val: HeadSamples | None, seed: int) -> tuple[dict[str, Tensor], float]:
    """(the head of Phase 1 on fixed features: one for all sectors, its focal gamma)."""
    settings = HeadSettings(**COMMON, seed=seed)  # type: ignore[arg-type]
    start = new_head(seed, train.features.shape[1])
    result = train_heads(HeadData(train, start, val), settings)
    return result.best_heads[0], settings.gamma


def sector_heads(train: Split, val: Split, common: dict[str, Tensor], seed: int) -> dict[int, dict[str, Tensor]]:
    """Phase 2 from the common head, with its own settings: sectors of which val accepts nothing stay with it."""
    start = {name: value.unsqueeze(0).repeat(SECTORS, *[1] * value.ndim) for name, value in common.items()}
    data = HeadData(train.samples(), start, val.samples())
    return dict.fromkeys(range(SECTORS), common) | train_nested(data, HeadSettings(seed=seed)).heads


@torch.no_grad()
def forecast(split: Split, heads: dict[int, dict[str, Tensor]], gamma: float) -> Forecast:
    """Calibrated probabilities of each sample by its sector's head."""
    logits = np.empty((len(split.features), CLASSES))
    for sector, head in heads.items():
        rows = split.sectors == sector
        logits[rows] = logits_of(head, torch.from_numpy(split.features[rows])).numpy()
    return split.market.forecast(calibrated_probabilities(logits, gamma))


def phase2_against_phase1(seed: int, coefficients: Array) -> Difference:
    """Test log loss of Phase 2's heads minus the common head's, on one market."""
    train, val, test = make_splits(np.random.default_rng(seed), coefficients)
    one = np.zeros_like(train.labels), np.zeros_like(val.labels)
    common, gamma = common_head(train.samples(one[0]), val.samples(one[1]), seed)
    before = forecast(test, dict.fromkeys(range(SECTORS), common), gamma)
    after = forecast(test, sector_heads(train, val, common, seed), gamma)
    return day_difference(before, after, verdict.PRIMARY)


def _claims(seeds: int, coefficients: Callable[[np.random.Generator], Array], what: str) -> tuple[int, float]:
    """(times Phase 2 is reported as better, mean difference in log loss)."""
    found = [
        phase2_against_phase1(seed, coefficients(np.random.default_rng(10_000 + seed)))
        for seed in tqdm(range(seeds), desc=what, disable=None, leave=False)
    ]
    better = sum(d.better == "b" for d in found)
    return better, float(np.mean([d.difference for d in found]))


def check_planted_effect(seeds: int = 20) -> list[Finding]:
    """Sectors that differ: Phase 2's heads are better than the common head in at least 19 of 20 markets."""
    better, mean = _claims(seeds, lambda rng: SECTOR_EDGE * rng.standard_normal((SECTORS, N_SIGNALS)), "planted effect")
    return [
        Finding(
            f"sector effect planted, {seeds} markets: Phase 2 against Phase 1",
            f"reported as better in at least {seeds - seeds // 20}",
            f"{better} of {seeds} (mean {mean:+.4f})",
            better >= seeds - seeds // 20,
        )
    ]


def check_no_effect(seeds: int = 20) -> list[Finding]:
    """Sectors that do not differ: Phase 2 is hardly ever better."""
    better, mean = _claims(seeds, lambda rng: np.full((SECTORS, N_SIGNALS), EDGE), "no effect")
    return [
        Finding(
            f"no sector effect, {seeds} markets: Phase 2 against Phase 1",
            f"reported as better in at most {max(1, seeds // 10)}",
            f"{better} of {seeds} (mean {mean:+.4f})",
            better <= max(1, seeds // 10),
        )
    ]


def fit_common_head(x: Array, y: NDArray[np.int64]) -> Callable[[Array], Array]:
    """Phase 1's head as a `known_answers.Fit`: standardised features, all epochs, calibrated probabilities."""
    mean, spread = x.mean(axis=0), x.std(axis=0)
    samples = as_samples(((x - mean) / spread).astype(np.float32), y, np.zeros_like(y))
    head, gamma = common_head(samples, None, seed=0)

    @torch.no_grad()
    def probabilities(z: Array) -> Array:
        scaled = torch.from_numpy(((z - mean) / spread).astype(np.float32))
        return calibrated_probabilities(logits_of(head, scaled).numpy(), gamma)

    return probabilities
