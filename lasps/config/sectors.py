"""The 20 sectors and the map from the exchange's industry names to them.

The sectors are the classic KRX sector indices plus software and entertainment. `industries.csv` beside this file is
our own reading of the industry names that KRX listings carry: the detailed KSIC names ("의약품 제조업") of companies
listed today and the short sector names ("제약") of delisted ones. Where a name says little, it went where most of its
companies belong: holding companies and REITs to finance, contract research to pharmaceuticals, "other products"
(phone cases, magnets, filters) to electronics. A name that is not in the file has no sector; there is no default.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

INDUSTRY_FILE = Path(__file__).with_name("industries.csv")

_MIDDLE_DOTS_AND_SPACE = re.compile(r"[\s·ㆍᆞ・･‧•∙⋅]+")


class Sector(NamedTuple):
    """One sector: its id (0..19, the head's number), its Korean and its English name."""

    id: int
    korean: str
    english: str


SECTORS: tuple[Sector, ...] = (
    Sector(0, "음식료품", "Food & beverage"),
    Sector(1, "섬유의복", "Textiles & apparel"),
    Sector(2, "종이목재", "Paper & wood"),
    Sector(3, "화학", "Chemicals"),
    Sector(4, "의약품", "Pharmaceuticals"),
    Sector(5, "비금속광물", "Non-metallic minerals"),
    Sector(6, "철강금속", "Steel & metals"),
    Sector(7, "기계", "Machinery"),
    Sector(8, "전기전자", "Electrical & electronics"),
    Sector(9, "의료정밀", "Medical & precision"),
    Sector(10, "운수장비", "Transport equipment"),
    Sector(11, "유통업", "Distribution"),
    Sector(12, "전기가스", "Electricity & gas"),
    Sector(13, "건설업", "Construction"),
    Sector(14, "운수창고", "Transport & storage"),
    Sector(15, "통신업", "Telecom"),
    Sector(16, "금융업", "Finance"),
    Sector(17, "소프트웨어", "Software & IT"),
    Sector(18, "서비스업", "Services"),
    Sector(19, "오락문화", "Entertainment & culture"),
)
NUM_SECTORS = len(SECTORS)


def normalise_industry(name: str) -> str:
    """The name without white space and middle dots, Unicode-normalised: listings write all three in several ways."""
    return unicodedata.normalize("NFKC", _MIDDLE_DOTS_AND_SPACE.sub("", unicodedata.normalize("NFC", name)))


def sector_of_industry(name: str | None) -> int | None:
    """The sector 0..19 of an industry name, or of a sector's own Korean name; None for anything unknown."""
    return None if name is None else industry_map().get(normalise_industry(name))


@lru_cache(maxsize=1)
def industry_map() -> Mapping[str, int]:
    """Normalised industry name -> sector id, read from `industries.csv` once.

    Raises:
        ValueError: a sector id outside 0..19, or one industry with two sectors.
    """
    sectors = {normalise_industry(sector.korean): sector.id for sector in SECTORS}
    with INDUSTRY_FILE.open(encoding="utf-8", newline="") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            key, sector = normalise_industry(row["industry"]), int(row["sector_id"])
            if sector not in range(NUM_SECTORS):
                raise ValueError(f"{INDUSTRY_FILE.name} line {line}: sector {sector} is not in 0..{NUM_SECTORS - 1}")
            if sectors.setdefault(key, sector) != sector:
                raise ValueError(
                    f"{INDUSTRY_FILE.name} line {line}: {row['industry']!r} has sectors {sectors[key]} and {sector}"
                )
    return MappingProxyType(sectors)
