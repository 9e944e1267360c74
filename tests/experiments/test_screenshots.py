"""`make screenshots`: a picture by the system's browser, or a sentence that says what is missing."""

import shutil

import pytest
from PIL import Image

from experiments import screenshots
from experiments._cli import run_script
from lasps.pages import render

PAGE = render(
    "integrity.html.j2", "t", headline="A headline", counts="c", waived=(), findings=[], clean=[], figures=[], charts=[]
)


def run(monkeypatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["screenshots.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        run_script(screenshots.main)
    return int(end.value.code or 0)


def test_without_a_browser_it_says_so_and_writes_nothing(tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.setattr(screenshots.shutil, "which", lambda name: None)
    (tmp_path / "p.html").write_text(PAGE)
    assert run(monkeypatch, "--page", tmp_path / "p.html", "--out", tmp_path / "p.png") == 2
    assert "apt-get install chromium" in capfd.readouterr().err and not (tmp_path / "p.png").exists()


@pytest.mark.skipif(not any(map(shutil.which, screenshots.BROWSERS)), reason="no Chromium on PATH (Debian: chromium)")
def test_the_picture_is_the_first_screen_in_few_bytes(tmp_path, monkeypatch, capfd) -> None:
    assert run(monkeypatch, "--page", tmp_path / "none.html", "--out", tmp_path / "p.png") == 2
    assert "make compare" in capfd.readouterr().err
    (tmp_path / "p.html").write_text(PAGE)
    size = ("--width", 600, "--height", 300)
    assert run(monkeypatch, "--page", tmp_path / "p.html", "--out", tmp_path / "p.png", *size) == 0
    picture = Image.open(tmp_path / "p.png")
    assert picture.size == (600, 300) and len(picture.getcolors()) > 2 and (tmp_path / "p.png").stat().st_size < 50_000
