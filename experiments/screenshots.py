#!/usr/bin/env python
"""A picture of the comparison page's first screen for README.md, taken by the system's Chromium without a network.

python experiments/screenshots.py --page reports/comparison.html --out docs/comparison_page.png
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from experiments._cli import positive_int, run_script
from lasps.config.settings import settings

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
COLORS = 128
"""Of the picture's palette, chosen to cover: few red points keep their red; the file is a third."""
SECONDS = 120


def parse_args() -> argparse.Namespace:
    """The flags of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, default=settings.REPORT_DIR / "comparison.html")
    parser.add_argument("--out", type=Path, default=settings.ROOT / "docs" / "comparison_page.png")
    parser.add_argument("--width", type=positive_int, default=1400)
    parser.add_argument("--height", type=positive_int, default=900)
    return parser.parse_args()


def find_browser() -> str:
    """The system's Chromium. Raises ValueError where there is none."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        raise ValueError(
            f"no picture taken: expected one of {', '.join(BROWSERS)} on PATH, found none. Install it "
            "(Debian: apt-get install chromium) and say make screenshots again."
        )
    return found


def take(page: Path, out: Path, width: int, height: int) -> None:
    """Write a PNG of the page's first screen.

    Raises:
        ValueError: no browser, no such page, or a browser that failed.
    """
    browser = find_browser()
    if not page.is_file():
        raise ValueError(f"{page} does not exist: make it with 'make compare', or name another one with --page")
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.png"
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses to run as root inside one
        done = subprocess.run(
            [
                browser,
                "--headless=new",
                *sandbox,
                "--hide-scrollbars",
                "--disable-gpu",
                "--virtual-time-budget=10000",
                f"--user-data-dir={folder}/profile",
                f"--window-size={width},{height}",
                f"--screenshot={raw}",
                page.resolve().as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        if not raw.is_file():
            raise ValueError(f"{browser} took no picture (exit code {done.returncode}): {done.stderr.strip()[-300:]}")
        save_small(raw, out, (width, height))


def save_small(raw: Path, out: Path, size: tuple[int, int]) -> None:
    """The picture with a small palette, in one step."""
    from PIL import Image

    from lasps.files import write_atomically

    shown = Image.open(raw).convert("RGB").crop((0, 0, *size))
    picture = shown.quantize(COLORS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    write_atomically(out, lambda file: picture.save(file, format="png", optimize=True))


def main() -> None:
    """Take the picture."""
    args = parse_args()
    from lasps.terminal import show_end

    take(args.page, args.out, args.width, args.height)
    show_end([str(args.out)], [("git diff --stat", "README.md shows it")])


if __name__ == "__main__":
    run_script(main)
