"""Terminal and pipe: 100 columns for people, plain whole lines for programs."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

from lasps import terminal

SHOW = """
from lasps import terminal
rows = [["phase2_best", "-0.0436 [-0.0532, -0.0340]", "[1/10] [bold]x[/bold]"], ["삼성전자우" * 9, "1", "y" * 60]]
terminal.show_lines(["a sentence " * 20, "Phase2 Sector 0 [1/10] loss=0.85 :smile:"], style="bold")
terminal.show_table(["model", "log loss", "what"], rows, title="A title")
terminal.show_block("A block", [("train", "16,970"), ("a" * 130, "7")])
terminal.show_end(["reports/comparison.html"], [("make ui", "the runs " * 20)])
"""
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def piped(**environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SHOW], capture_output=True, text=True, check=True, env=os.environ | environment
    )
    return done.stdout.splitlines()


def seen_in_a_terminal(columns: int) -> str:
    controller, worker = pty.openpty()
    environment = os.environ | {"COLUMNS": str(columns), "TERM": "xterm-256color"}
    process = subprocess.Popen([sys.executable, "-c", SHOW], stdout=worker, stderr=worker, env=environment)
    os.close(worker)
    read = b""
    try:
        while chunk := os.read(controller, 1 << 16):
            read += chunk
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(controller)
    assert process.wait() == 0
    return read.decode()


@pytest.mark.parametrize("environment", [{}, {"FORCE_COLOR": "1", "COLUMNS": "40", "TERM": "xterm-256color"}])
def test_through_a_pipe_there_is_no_colour_no_markup_and_no_wrapping(environment: dict[str, str]) -> None:
    lines = piped(**environment)
    assert not any("\x1b" in line for line in lines)
    assert ("a sentence " * 20).rstrip() in lines and "Phase2 Sector 0 [1/10] loss=0.85 :smile:" in lines
    assert sum("[1/10] [bold]x[/bold]" in line for line in lines) == 1  # brackets are text, not markup
    assert any("a" * 130 in line for line in lines) and any("the runs " * 19 in line for line in lines)
    assert [line for line in lines if line != line.rstrip()] == []


@pytest.mark.parametrize("columns", [80, 100, 180])
def test_in_a_terminal_no_line_is_wider_than_a_hundred_columns(columns: int) -> None:
    from rich.cells import cell_len

    text = seen_in_a_terminal(columns)
    assert "\x1b[1m" in text
    widths = [cell_len(ESCAPE.sub("", line.rstrip("\r"))) for line in text.split("\n")]
    assert max(widths) <= min(columns, terminal.WIDTH)


def test_counts_in_words_leave_out_what_is_zero() -> None:
    assert terminal.in_words({"halted_rows": 1234, "empty_rows": 0, "files": 3}) == "halted rows 1,234, files 3"
    assert terminal.in_words({"x": 0}) == terminal.in_words({}) == "none"
