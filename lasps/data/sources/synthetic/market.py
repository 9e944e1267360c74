"""make_market: parameters and a seed in, panel, listing, state, oracle and split borders out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl

from lasps.config.dataset_config import HORIZON
from lasps.data.sources.synthetic import ohlcv
from lasps.data.sources.synthetic.latent import Latent, Stocks, draw_stocks, random_stream, regime_paths, simulate
from lasps.data.sources.synthetic.oracle import OracleForecast, RowStates, class_probabilities
from lasps.data.sources.synthetic.parameters import (
    EFFECTS,
    INDUSTRIES,
    SIGNALS,
    Parameters,
    sector_coefficients,
    sector_sizes,
)

FIRST_DATE = date(2021, 1, 4)
# Holidays with a fixed date, and the exchange's own last day of the year; the lunar ones are left out.
FIXED_HOLIDAYS = frozenset({(1, 1), (3, 1), (5, 1), (5, 5), (6, 6), (8, 15), (10, 3), (10, 9), (12, 25), (12, 31)})
TEST_SHARE, VAL_SHARE = 0.155, 0.12


@dataclass(frozen=True)
class SyntheticMarket:
    """One market and its truth.

    panel: code, date, open, high, low, close, volume; one row per traded day, sorted by (code, date).
    listing: code, name, market, industry.
    state: row-aligned with panel: code, date, latent log_price, log_volatility, market_log_volatility, one column
        per signal. Nothing in a row depends on later days.
    borders: train_start, train_end, val_start, val_end, test_start, test_end.
    coefficients: (S, K) effect of each signal per sector.
    """

    seed: int
    effect: str
    panel: pl.DataFrame
    listing: pl.DataFrame
    state: pl.DataFrame
    borders: dict[str, date]
    coefficients: np.ndarray
    parameters: Parameters
    stocks: Stocks = field(repr=False)
    calendar: list[date] = field(repr=False)
    regime_day: int

    def oracle(
        self,
        codes: Sequence[str] | np.ndarray | pl.Series,
        dates: Sequence[date] | np.ndarray | pl.Series,
        n_paths: int = 2_000,
    ) -> OracleForecast:
        """Probabilities of SELL, HOLD, BUY over the next 5 days, given the state at the close of (code, date).

        Raises:
            ValueError: a (code, date) that is not a row of the panel.
        """
        rows = self.row_states(self._row_index(codes, dates))
        return class_probabilities(rows, n_paths, self.seed, self.parameters)

    def row_states(self, index: np.ndarray) -> RowStates:
        """What the next five days depend on, of panel rows by position."""
        state = self.state[index]
        stock = self._stock_of(state)
        day = np.searchsorted(np.array(self.calendar, dtype="datetime64[D]"), state["date"].to_numpy())
        ahead = day[:, None] + np.arange(1, HORIZON + 1)
        volatility, drift = regime_paths(ahead, self.regime_day, self.parameters)
        return RowStates(
            close=self.panel["close"].to_numpy()[index],
            log_price=state["log_price"].to_numpy(),
            signals=state.select(SIGNALS).to_numpy(),
            beta=self.coefficients[self.stocks.sector[stock]],
            log_volatility=state["log_volatility"].to_numpy(),
            market_log_volatility=state["market_log_volatility"].to_numpy(),
            base_volatility=self.stocks.base_volatility[stock],
            market_beta=self.stocks.market_beta[stock],
            future_volatility=volatility,
            future_drift=drift,
        )

    def describe(self) -> dict[str, Any]:
        """Plain numbers and texts for dataset.json: what was made, from which seed."""
        p = self.parameters
        return {
            "name": "synthetic",
            "seed": self.seed,
            "effect": self.effect,
            "stocks": len(self.stocks.sector),
            "days": len(self.calendar),
            "rows": self.panel.height,
            "first_date": self.calendar[0].isoformat(),
            "last_date": self.calendar[-1].isoformat(),
            "regime_change": self.calendar[self.regime_day].isoformat(),
            "signals": list(SIGNALS),
            "effect_size": p.effect_size,
            "coefficients": self.coefficients.round(6).tolist(),
            "sector_sizes": np.bincount(self.stocks.sector, minlength=len(INDUSTRIES)).tolist(),
        }

    def _stock_of(self, state: pl.DataFrame) -> np.ndarray:
        return np.searchsorted(self.listing["code"].to_numpy().astype(str), state["code"].to_numpy().astype(str))

    def _row_index(self, codes: object, dates: object) -> np.ndarray:
        asked = pl.DataFrame({"code": codes, "date": dates}, schema_overrides={"code": pl.String, "date": pl.Date})
        known = self.panel.select("code", "date").with_row_index("row")
        found = asked.join(known, on=["code", "date"], how="left", maintain_order="left")
        missing = found.filter(pl.col("row").is_null())
        if missing.height:
            code, day = missing["code"][0], missing["date"][0]
            raise ValueError(
                f"oracle: expected traded (code, date) pairs of this market, {missing.height} of {asked.height} are "
                f"not, the first is ({code}, {day}); was the dataset built from another seed or size?"
            )
        return found["row"].to_numpy()


def make_market(
    seed: int = 7,
    effect: str = "sector",
    n_stocks: int = 360,
    n_days: int = 900,
    regime_day: int | None = None,
    parameters: Parameters | None = None,
) -> SyntheticMarket:
    """A market of n_stocks over n_days trading days from 2021-01-04 on; one seed, one market, byte for byte.

    Args:
        effect: "sector": the signals' influence on the next days differs by sector; "none": it is the same for all.
        regime_day: calendar index of the first day of the second regime; default: val's first day.

    Raises:
        ValueError: an unknown effect, too few stocks or days.
    """
    if effect not in EFFECTS:
        raise ValueError(f"effect: expected one of {', '.join(EFFECTS)}, got {effect!r}")
    if n_days < 100:
        raise ValueError(f"n_days: expected at least 100, so that train, val and test have windows, got {n_days}")
    p = parameters or Parameters()
    sizes = sector_sizes(n_stocks)
    beta = sector_coefficients(sizes, effect, random_stream(seed, "coefficients"))
    stocks = draw_stocks(seed, sizes, p)
    calendar = trading_calendar(n_days)
    borders = _borders(calendar)
    change = calendar.index(borders["val_start"]) if regime_day is None else regime_day
    latent = simulate(seed, stocks, beta, n_days, change, p)
    listing = _listing(stocks)
    panel, state = _frames(listing["code"].to_numpy(), calendar, latent, ohlcv.make_bars(seed, stocks, latent, p))
    return SyntheticMarket(seed, effect, panel, listing, state, borders, beta, p, stocks, calendar, change)


def trading_calendar(n_days: int, first: date = FIRST_DATE) -> list[date]:
    """The first n_days weekdays from `first` on that are no holiday of fixed date."""
    days: list[date] = []
    day = first
    while len(days) < n_days:
        if day.weekday() < 5 and (day.month, day.day) not in FIXED_HOLIDAYS:
            days.append(day)
        day += timedelta(days=1)
    return days


def _borders(calendar: list[date]) -> dict[str, date]:
    test = len(calendar) - round(TEST_SHARE * len(calendar))
    val = test - round(VAL_SHARE * len(calendar))
    return {
        "train_start": calendar[0],
        "train_end": calendar[val - 1],
        "val_start": calendar[val],
        "val_end": calendar[test - 1],
        "test_start": calendar[test],
        "test_end": calendar[-1],
    }


def _listing(stocks: Stocks) -> pl.DataFrame:
    """Synthetic companies; the codes end in 0 as common shares' codes do."""
    count = np.zeros(len(INDUSTRIES), dtype=np.int64)
    names, industries = [], []
    for sector in stocks.sector.tolist():
        _, industry, short, _ = INDUSTRIES[sector]
        count[sector] += 1
        names.append(f"가상{short} {count[sector]:03d}")
        industries.append(industry)
    numbers = range(len(names))
    return pl.DataFrame(
        {
            "code": [f"{80001 + i}0" for i in numbers],
            "name": names,
            "market": ["KOSPI" if i % 3 == 0 else "KOSDAQ" for i in numbers],
            "industry": industries,
        }
    )


def _frames(
    codes: np.ndarray, calendar: list[date], latent: Latent, bars: dict[str, np.ndarray]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Panel and state in (code, date) order from (T, N) arrays."""
    traded = latent.traded.T
    stock, day = np.nonzero(traded)
    keys = {
        "code": pl.Series(codes.astype(str)).gather(stock),
        "date": pl.Series(calendar, dtype=pl.Date).gather(day),
    }
    panel = {name: values.T[traded] for name, values in bars.items()}
    state = {
        "log_price": latent.log_price.T[traded],
        "log_volatility": latent.log_volatility.T[traded],
        "market_log_volatility": latent.market_log_volatility[day],
    }
    signals = {name: z.T[traded] for name, z in zip(SIGNALS, latent.signals, strict=True)}
    return pl.DataFrame({**keys, **panel}), pl.DataFrame({**keys, **state, **signals})
