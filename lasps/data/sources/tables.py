"""A file as a table: parquet as it is, text with every column as text, whatever its encoding, packing and header."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zipfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
from loguru import logger

from lasps.data.errors import explained
from lasps.data.sources.names import BAR_NAMES, plain

TEXT_KINDS = (".csv", ".txt", ".tsv")
KINDS = (*TEXT_KINDS, ".parquet")
PACKED = (".gz", ".zip")
ENCODINGS = ("utf-8-sig", "cp949")
SEPARATORS = ",\t;|"
OTHER_KINDS = {
    b"PK\x03\x04": "an Excel workbook or a zip archive; save it as CSV, or name it .zip",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; save it as CSV",
    b"PAR1": "a parquet file; name it .parquet",
    b"\x1f\x8b": "gzip-packed; name it .gz",
    b"SQLite format 3": "a SQLite database; export the table as CSV",
    b"<": "a page of HTML or XML (some portals call it .xls); save it as CSV",
}
"""How files of another kind begin, and what they are; such a file under the name of a text file is refused."""
_PAIR = re.compile(r"^\('(.*)', '(.*)'\)$")
_PRICE_NAMES = {alias for name in ("open", "high", "low", "close", "volume") for alias in BAR_NAMES[name]}
_KNOWN_NAMES = _PRICE_NAMES | {"adjclose", "dividends", "stocksplits", "capitalgains", "repaired?"}


@dataclass(frozen=True)
class Table:
    """A file's rows, and what is needed to speak about them.

    frame: text columns of a text file, typed columns of a parquet file.
    first_row: the file's line (of parquet the row, from 1) of the frame's first row.
    separator: of a text file.
    ticker: named in a header line of its own, as yfinance writes it.
    """

    frame: pl.DataFrame
    first_row: int
    separator: str = ""
    ticker: str | None = None

    def rows(self) -> pl.Series:
        """The file's line of every row."""
        return pl.int_range(self.first_row, self.first_row + self.frame.height, eager=True).alias("row")


def split_name(file: Path) -> tuple[str, str, str]:
    """Stem, kind and packing of a file's name: "005930.KS.csv.gz" -> ("005930.KS", ".csv", ".gz"); kind "" if none."""
    name, packing = file.name, ""
    for suffix in PACKED:
        if name.lower().endswith(suffix):
            name, packing = name[: -len(suffix)], suffix
    kind = next((kind for kind in (TEXT_KINDS if packing else KINDS) if name.lower().endswith(kind)), "")
    return (name[: -len(kind)] if kind else name), kind, packing


def files_of(path: Path, folder: bool = True) -> list[Path]:
    """The file itself, or the data files of a folder and its sub-folders, sorted; others are passed over by name.

    Raises:
        FileNotFoundError: no such path.
        ValueError: a folder where a file is wanted, or one without data files; an unknown kind of file.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if path.is_dir() and not folder:
        raise ValueError(f"{path}: expected a file, got a folder")
    inside = [f for f in sorted(path.rglob("*")) if _is_content(f, path)] if path.is_dir() else [path]
    files = [f for f in inside if split_name(f)[1]]
    if not files:
        wanted = f"{', '.join(KINDS)} (text also as {' or '.join(PACKED)})"
        raise ValueError(f"{path}: expected a file or a folder with files ending in {wanted}, found {_kinds(inside)}")
    if len(files) < len(inside):
        passed = [f for f in inside if f not in set(files)]
        logger.warning("{}: {} passed over, no bars by their names: {}", path, _count(len(passed)), _kinds(passed))
    return files


def _is_content(file: Path, folder: Path) -> bool:
    """Whether a path inside a folder is a file (or a linked folder, which is not entered) that is not hidden."""
    parts = file.relative_to(folder).parts
    hidden = any(part.startswith((".", "~$", "__MACOSX")) for part in parts)
    return not hidden and (file.is_symlink() or not file.is_dir())


def _kinds(files: list[Path]) -> str:
    """'3 .xlsx, 1 .md'; a linked folder by its name."""
    kinds = Counter(f"{f.name}/" if f.is_dir() else f.suffix or f.name for f in files)
    return ", ".join(f"{n} {kind}" for kind, n in kinds.most_common(10)) or "nothing"


def _count(n: int) -> str:
    return f"{n} file" if n == 1 else f"{n} files"


def table_of(file: Path) -> Table:
    """The file's table.

    Raises:
        ValueError: (without the file's name) empty, not readable, no rows, a wide table of several stocks.
    """
    if file.stat().st_size == 0:
        raise ValueError("the file is empty")
    if split_name(file)[1] == ".parquet":
        with explained("not a readable parquet file", "columns and rows", "Write it again"):
            table = _flat(pl.read_parquet(file))
    else:
        table = _text_table(_text(file))
    if table.frame.is_empty():
        raise ValueError("the file has a header but no rows; complete it or take it away")
    return table


def _text(file: Path) -> str:
    """A text file's content, unpacked and decoded, with one kind of line end."""
    packing = split_name(file)[2]
    with explained(f"not a readable {packing or 'text'} file", "a whole file", "Download it again"):
        try:
            content = _unzip(file) if packing == ".zip" else file.read_bytes()
            content = gzip.decompress(content) if packing == ".gz" else content
        except gzip.BadGzipFile as error:
            raise EOFError(str(error)) from error
    _refuse_other_kinds(content)
    text = _decoded(content)
    return text if "\n" in text else text.replace("\r", "\n")


def _refuse_other_kinds(content: bytes) -> None:
    start = content[:200].removeprefix(b"\xef\xbb\xbf").lstrip()
    if what := next((what for mark, what in OTHER_KINDS.items() if start.startswith(mark)), None):
        raise ValueError(f"expected text with one row per line, got {what}")


def _unzip(file: Path) -> bytes:
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX")]
        if len(names) != 1:
            raise ValueError(f"expected one file in the archive, got {len(names)}: {names[:5]}; unpack it")
        return archive.read(names[0])


def _decoded(content: bytes) -> str:
    """UTF-16 by its mark or its zeros (Excel's "Unicode text"), else the first of ENCODINGS that fits."""
    zeros = [content[start:1000:2].count(0) for start in (0, 1)]
    guesses: tuple[str, ...] = ENCODINGS
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        guesses = ("utf-16",)
    elif max(zeros):
        guesses = ("utf-16-le",) if zeros[1] > zeros[0] else ("utf-16-be",)
    for encoding in guesses:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise ValueError("neither utf-8, utf-16 nor cp949; save it as utf-8")


def _text_table(text: str) -> Table:
    if hint := re.match(r"sep=(.)\r?\n", text):  # Excel's line about the separator
        table = _text_table(text[hint.end() :])
        return replace(table, first_row=table.first_row + 1)
    head = text.split("\n", 3)
    separator = max(SEPARATORS, key=head[0].count)
    header, lines, ticker = _header([next(csv.reader([line], delimiter=separator), [""]) for line in head[:3]])
    if lines > 1:
        buffer = io.StringIO()
        csv.writer(buffer, delimiter=separator, lineterminator="\n").writerow(header)
        text = buffer.getvalue() + text.split("\n", lines)[lines]
    with explained("not a readable CSV table", "as many values in every row as in the header", "Complete the file"):
        frame = pl.read_csv(io.BytesIO(text.encode()), separator=separator, infer_schema=False)
    return Table(frame, lines + 1, separator, ticker)


def _header(rows: list[list[str]]) -> tuple[list[str], int, str | None]:
    """The column names, how many lines they took, and the ticker of a line of its own.

    yfinance writes three lines, Price / Ticker / Date (or Ticker / Price / Date), older versions without these words,
    and two where the index was reset: Date, Close, ... / "", 005930.KS, ...
    """
    rows = [[cell.strip() for cell in row] or [""] for row in rows]
    if len(rows) < 3 or len(rows[1]) != len(rows[0]):
        return rows[0], 1, None
    names, tickers = rows[:2]
    third_is_date = plain(rows[2][0]) in ("date", "datetime") and not any(rows[2][1:])
    if third_is_date:
        names, tickers = (tickers, names) if _known(tickers) > _known(names) else (names, tickers)
        return ["Date", *names[1:]], 3, _one_ticker(tickers[1:])
    if _known(names) and tickers[0] == "" and all(cell and not _number(cell) for cell in tickers[1:]):
        return names, 2, _one_ticker(tickers[1:])
    return rows[0], 1, None


def _flat(frame: pl.DataFrame) -> Table:
    """A parquet table whose pandas columns had two levels ("('Close', '005930.KS')") with one."""
    pairs = [_PAIR.match(column) for column in frame.columns]
    levels = [(m[1], m[2]) for m in pairs if m]
    if not levels:
        return Table(frame, 1)
    first = _known([a for a, _ in levels]) >= _known([b for _, b in levels])
    ticker = _one_ticker([b if first else a for a, b in levels if (a if first else b).lower() != "date"])
    names = {m[0]: (m[1] if first else m[2]) or m[1] or m[2] for m in pairs if m}
    return Table(frame.rename(names), 1, "", ticker)


def _one_ticker(tickers: list[str]) -> str | None:
    """The only ticker. Raises ValueError where there are several."""
    several = sorted({ticker for ticker in tickers if ticker})
    if len(several) > 1:
        raise ValueError(
            f"a wide table of {len(several)} tickers ({', '.join(several[:5])}{', ...' if len(several) > 5 else ''}): "
            "expected one row per stock and day; stack it (frame.stack('Ticker') in pandas) or write a file per ticker"
        )
    return several[0] if several else None


def _known(names: list[str]) -> int:
    return sum(plain(name) in _KNOWN_NAMES for name in names)


def _number(cell: str) -> bool:
    return bool(re.fullmatch(r"[-+\d.,eE]+", cell))
