"""What the synthetic market is made of: every constant of it, and the names of its sectors.

Units: log prices, one trading day. Where no source is named, a number was tuned so that the class shares stand near
26 / 53 / 21 (the Korean market of 2023-2025) and the oracle 6-8 points of accuracy above one model for all sectors.
"""

from dataclasses import dataclass

import numpy as np

SIGNALS = ("volume", "wick_width", "wick_asymmetry", "overnight")
EFFECTS = ("sector", "none")

# (sector as lasps.config.sectors numbers it, the exchange's industry name, part of company names, share of the stocks)
INDUSTRIES: tuple[tuple[int, str, str, int], ...] = (
    (0, "기타 식품 제조업", "식품", 17),
    (1, "봉제의복 제조업", "의류", 12),
    (2, "펄프, 종이 및 판지 제조업", "제지", 12),
    (3, "기타 화학제품 제조업", "화학", 24),
    (4, "의약품 제조업", "제약", 26),
    (5, "시멘트, 석회, 플라스터 및 그 제품 제조업", "시멘트", 11),
    (6, "1차 철강 제조업", "철강", 19),
    (7, "특수 목적용 기계 제조업", "기계", 28),
    (8, "전자부품 제조업", "전자", 32),
    (9, "의료용 기기 제조업", "의료", 17),
    (10, "자동차 신품 부품 제조업", "자동차", 21),
    (11, "상품 종합 도매업", "상사", 18),
    (12, "전기업", "전력", 10),
    (13, "건물 건설업", "건설", 14),
    (14, "해상 운송업", "해운", 12),
    (15, "전기 통신업", "통신", 10),
    (16, "기타 금융업", "금융", 20),
    (17, "소프트웨어 개발 및 공급업", "소프트", 27),
    (18, "기타 사업지원 서비스업", "서비스", 16),
    (19, "영화, 비디오물, 방송프로그램 제작 및 배급업", "영화", 14),
)
NUM_SECTORS = len(INDUSTRIES)


@dataclass(frozen=True)
class Regime:
    """The state of the whole market between two dates."""

    market_volatility: float  # standard deviation of the market factor at its mean log-volatility
    drift: float  # of every stock, in units of its base volatility


@dataclass(frozen=True)
class Parameters:
    """Constants of the latent market. A stock's own numbers (scales) are drawn alike in every sector."""

    # Returns
    base_volatility: float = 0.0104  # median over stocks of the idiosyncratic daily volatility
    base_volatility_spread: float = 0.33  # its log standard deviation over stocks
    market_beta_spread: float = 0.25  # market betas are uniform in 1 +- this
    sector_factor: float = 0.55  # sector factor's volatility in units of the market's
    degrees_of_freedom: float = 6.0  # of the shocks: Student t as a Gaussian scale mixture
    log_volatility_persistence: float = 0.97  # guess from the stochastic-volatility literature (Taylor 1986)
    log_volatility_spread: float = 0.28  # stationary standard deviation of a stock's log-volatility
    market_persistence: float = 0.98
    market_spread: float = 0.25
    before: Regime = Regime(market_volatility=0.0056, drift=-0.07)
    after: Regime = Regime(market_volatility=0.0065, drift=-0.055)
    # The planted effect
    effect_size: float = 0.80  # daily drift per unit of beta . z, in units of base volatility
    signal_persistence: tuple[float, ...] = (0.76, 0.78, 0.80, 0.80)  # AR(1): half-lives of about 3 days
    # How bars show the signals (log scale except the overnight one, which is in base volatilities)
    signal_in_volume: float = 0.55
    noise_in_volume: float = 0.10
    signal_in_width: float = 0.55
    noise_in_width: float = 0.10
    signal_in_asymmetry: float = 1.3
    noise_in_asymmetry: float = 0.25
    signal_overnight: float = 0.70
    noise_overnight: float = 0.18
    overnight_share_of_return: float = 0.3
    # The exchange
    halt_probability: float = 0.0004  # a day on which a halt of 1..halt_days_max days begins; guess, not tuned
    halt_days_max: int = 8
    late_listing_share: float = 0.12
    late_listing_last_day: int = 300
    start_price_median: float = 22_000.0
    start_price_spread: float = 0.9


def sector_sizes(n_stocks: int) -> np.ndarray:
    """Stocks per sector (S,), proportional to INDUSTRIES' shares, at least one each, summing to n_stocks.

    Raises:
        ValueError: fewer stocks than sectors.
    """
    if n_stocks < NUM_SECTORS:
        raise ValueError(f"n_stocks: expected at least {NUM_SECTORS}, one per sector, got {n_stocks}")
    shares = np.array([share for *_, share in INDUSTRIES], dtype=np.float64)
    ideal = 1 + (n_stocks - NUM_SECTORS) * shares / shares.sum()
    sizes = np.floor(ideal).astype(np.int64)
    largest_remainders = np.argsort(sizes - ideal, kind="stable")[: n_stocks - sizes.sum()]
    sizes[largest_remainders] += 1
    return sizes


def sector_coefficients(sizes: np.ndarray, effect: str, rng: np.random.Generator) -> np.ndarray:
    """Unit coefficient vectors (S, K) of the signals' effect, one per sector.

    With effect "sector" they are spread over the sphere so that, weighted by sector size, their mean is close to 0
    and their second moment close to that of a uniform direction: a model that ignores the sector finds no mean
    effect. With effect "none" all rows are the same vector.
    """
    n_signals = len(SIGNALS)
    drawn = rng.standard_normal((len(sizes), n_signals))
    if effect == "none":
        drawn = np.repeat(drawn[:1], len(sizes), axis=0)
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    weights = sizes / sizes.sum()
    for _ in range(200):
        drawn = drawn - weights @ drawn
        moment = (drawn * weights[:, None]).T @ drawn
        drawn = drawn @ np.linalg.inv(np.linalg.cholesky(moment)).T
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn
