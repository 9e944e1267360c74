"""The one template of all pages: self-contained HTML whose tables sort and whose charts tell their values.

Charts are Vega-Lite specifications (lasps.plots), drawn by the bundle in vendor/ (vendor.json: version, licence,
digest), which a page without charts leaves out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lasps.plots.colors import CLASS_COLORS

HERE = Path(__file__).parent
VENDOR = HERE / "vendor"
Spec = dict[str, Any]
"""A Vega-Lite specification."""
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """One cell: its text, what it sorts by (None: its text), CSS class and style, a second line in small."""

    text: str
    sort: float | str | None = None
    css: str = ""
    small: str = ""
    style: str = ""


@dataclass(frozen=True)
class Column:
    """One column: its title and how a row's cell is made; `text`: to the left, sorted A to Z first."""

    title: str
    show: Callable[[Row], Cell]
    text: bool = False
    help: str = ""
    always: bool = False
    """Shown even where all its cells are alike."""


@dataclass(frozen=True)
class TableRow:
    cells: tuple[Cell, ...]
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """What the template shows: made by `make_table`."""

    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    wide: bool = False


@dataclass(frozen=True)
class Figure:
    """A chart and what stands above it."""

    title: str
    spec: Spec
    caption: str = ""


def make_table(
    rows: Sequence[Row], columns: Sequence[Column], *, strong: Callable[[Row], bool] | None = None, wide: bool = False
) -> Table | None:
    """The table, without columns that say nothing: empty in every row, or (unless `always`) alike in several rows.

    Returns:
        None where there is nothing to show: no row, or no column beside the text ones.
    """
    cells = [[column.show(row) for column in columns] for row in rows]
    keep = [i for i, column in enumerate(columns) if _says_something([line[i] for line in cells], column)]
    if not rows or all(columns[i].text for i in keep):
        return None
    lines = (tuple(_placed(line[i], columns[i]) for i in keep) for line in cells)
    marks = [strong(row) if strong else False for row in rows]
    return Table(tuple(columns[i] for i in keep), tuple(map(TableRow, lines, marks)), wide)


def _says_something(cells: Sequence[Cell], column: Column) -> bool:
    texts = {cell.text for cell in cells}
    return texts - {"", "-"} != set() and (column.always or column.text or len(cells) == 1 or len(texts) > 1)


def _placed(cell: Cell, column: Column) -> Cell:
    css = f"text {cell.css}".strip() if column.text else cell.css
    return Cell(cell.text, cell.sort, css, cell.small, cell.style)


def render(template: str, title: str, **context: Any) -> str:
    """A page of this folder's templates as text; undefined names are errors."""
    specs: list[str] = []
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )

    def chart(spec: Spec) -> str:
        specs.append(
            Markup(json.dumps(spec, separators=(",", ":"), allow_nan=False, default=str).replace("<", "\\u003c"))
        )  # nothing in it can end the script element
        return f"spec-{len(specs)}"

    environment.globals["chart"] = chart
    return environment.get_template(template).render(
        title=title,
        class_colors=CLASS_COLORS,
        style=_asset("style.css"),
        script=_asset("page.js"),
        specs=specs,
        vendored=[_asset(f"vendor/{entry['file']}") for entry in vendored()],
        **context,
    )


def vendored() -> list[dict[str, str]]:
    """file, name, version, licence, licence_file, source and sha256 of every file in vendor/ that is not ours."""
    return json.loads((VENDOR / "vendor.json").read_text(encoding="utf-8"))


def _asset(name: str) -> Markup:
    return Markup((HERE / name).read_text(encoding="utf-8"))
