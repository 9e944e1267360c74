import csv
from collections import Counter

import pytest

from lasps.config import sectors
from lasps.config.sectors import INDUSTRY_FILE, SECTORS, industry_map, sector_of_industry


def industries() -> list[dict[str, str]]:
    with INDUSTRY_FILE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_there_are_twenty_sectors_numbered_by_their_place() -> None:
    assert [sector.id for sector in SECTORS] == list(range(20))
    assert len({sector.korean for sector in SECTORS}) == len({sector.english for sector in SECTORS}) == 20


def test_every_industry_of_the_file_has_one_sector_and_every_sector_has_industries() -> None:
    counts = Counter(int(row["sector_id"]) for row in industries())
    assert set(counts) == set(range(20))
    assert max(counts.values()) < len(industries()) / 4
    assert all(sector_of_industry(row["industry"]) == int(row["sector_id"]) for row in industries())
    names = [sectors.normalise_industry(row["industry"]) for row in industries()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("industry", "sector"),
    [
        ("반도체 제조업", 8),
        ("통신 및 방송 장비 제조업", 8),
        ("전기 통신업", 15),
        ("선박 및 보트 건조업", 10),
        ("은행 및 저축기관", 16),
        ("소프트웨어 개발 및 공급업", 17),
        ("의료용 기기 제조업", 9),
        ("의약품 제조업", 4),
        ("의약품", 4),
        ("음·식료품 및 담배 도매업", 11),
        ("1차 철강 제조업", 6),
    ],
)
def test_well_known_industries_land_in_their_sector(industry: str, sector: int) -> None:
    assert sector_of_industry(industry) == sector


def test_white_space_and_middle_dots_do_not_matter() -> None:
    for written in ("전기·전자", "전기ㆍ전자", " 전기 ・ 전자 ", "전기\u00a0전자", "전기‧전자"):
        assert sector_of_industry(written) == 8


@pytest.mark.parametrize("unknown", [None, "", "-", "우주 관광업", "nan"])
def test_an_unknown_industry_has_no_sector_and_never_a_default(unknown: str | None) -> None:
    assert sector_of_industry(unknown) is None


def test_the_map_cannot_be_changed_by_its_users() -> None:
    with pytest.raises(TypeError):
        industry_map()["새 업종"] = 3  # type: ignore[index]


def test_an_industry_with_two_sectors_is_refused(tmp_path, monkeypatch) -> None:
    path = tmp_path / "industries.csv"
    path.write_text("industry,sector_id\n전기·전자,8\n전기ㆍ전자,9\n", encoding="utf-8")
    monkeypatch.setattr(sectors, "INDUSTRY_FILE", path)
    with pytest.raises(ValueError, match="line 3.*sectors 8 and 9"):
        industry_map.__wrapped__()
