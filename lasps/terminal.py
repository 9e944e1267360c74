"""What people read in a terminal: tables, short blocks, what was made and what to do next.

In a terminal at most 100 columns with colour; through a pipe plain text, without colour, markup or wrapping. Lines of
the original specification are printed as they are, not through here.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH = 100
PIPE_WIDTH = 1_000
"""Columns where nobody looks: wide enough that no line of a table is cut or wrapped."""
Next = tuple[str, str]
"""A command and what it does."""


def console(file: Any = None) -> Console:
    """A console on `file` (default: stdout as it is now) that knows whether a person is looking."""
    stream = sys.stdout if file is None else file
    common: dict[str, Any] = {"file": stream, "markup": False, "highlight": False, "emoji": False}
    if stream.isatty():
        return Console(width=min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns), **common)
    return Console(
        width=PIPE_WIDTH, force_terminal=False, force_jupyter=False, no_color=True, color_system=None, **common
    )


def in_words(counts: Mapping[str, Any]) -> str:
    """'halted rows 1,234, empty rows 3': what is not zero; 'none' where all is."""
    known = [f"{name.replace('_', ' ')} {n:,}" for name, n in counts.items() if n]
    return ", ".join(known) or "none"


def show_table(header: Sequence[str], rows: Sequence[Sequence[str | Text]], title: str = "", left: int = 1) -> None:
    """Print a table: the first `left` columns to the left, the others to the right."""
    screen = console()
    look, gap = (box.SIMPLE_HEAD, 1) if screen.is_terminal else (None, 2)  # two blanks between columns either way
    table = Table(box=look, show_edge=False, pad_edge=False, header_style="bold", padding=(0, gap, 0, 0))
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i < left else "right", no_wrap=not screen.is_terminal)
    for row in rows:
        table.add_row(*row)
    if title:
        _print(screen, Text(title, style="bold"))
    _print(screen, table)


def show_block(title: str, rows: Sequence[Sequence[str]]) -> None:
    """Print a title and, indented, its lines in columns: words to the left, numbers to the right."""
    screen = console()
    grid = Table.grid(padding=(0, 2))
    grid.add_column(width=0)
    for i in range(max(len(row) for row in rows)):
        numbers = i > 0 and all(len(row) <= i or row[i][:1].isdigit() for row in rows)
        grid.add_column(justify="right" if numbers else "left", no_wrap=not screen.is_terminal)
    for row in rows:
        grid.add_row("", *row)
    _print(screen, Text(title, style="bold"))
    _print(screen, grid)


def show_lines(lines: Sequence[str], style: str = "") -> None:
    """Print sentences, wrapped in a terminal."""
    screen = console()
    for line in lines:
        _print(screen, Text(line, style=style))


def show_end(made: Sequence[str], todo: Sequence[Next]) -> None:
    """The last lines of a step: what was made, and what to do next."""
    rows = [("Made" if i == 0 else "", item, "") for i, item in enumerate(made)]
    rows += [("Next" if i == 0 else "", command, what) for i, (command, what) in enumerate(todo)]
    screen = console()
    grid = Table.grid(padding=(0, 2))
    for _ in range(3):
        grid.add_column(no_wrap=not screen.is_terminal)
    for row in rows:
        grid.add_row(Text(row[0], style="bold"), row[1], row[2])
    print()
    _print(screen, grid)


def _print(screen: Console, what: Any) -> None:
    """Print without the spaces that pad the last column."""
    with screen.capture() as captured:
        screen.print(what)
    screen.file.write("\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n")
    screen.file.flush()
