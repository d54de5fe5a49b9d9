"""Tables in comma-separated text files: columns by name, values exactly as they stand or not at all."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from benchsuite.core.errors import DataError

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_DIGITS = re.compile(r"-?[0-9]{1,18}")


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes
    ----------
    path
        The file.
    line
        Number of its (last) line, counted from 1.
    cells
        Text of every column by its name, without surrounding blanks.
    """

    path: Path
    line: int
    cells: dict[str, str]

    def wrong(self, problem: str) -> DataError:
        """Return the error that says what is wrong with this row."""
        return DataError(f"{self.path}: line {self.line}: {problem}")

    def whole(self, column: str) -> int:
        """Return a whole number, also one written as 3.0 or 3e2.

        Raises
        ------
        DataError
            If the cell holds anything else, or more than 18 digits.
        """
        text = self.cells[column]
        if _DIGITS.fullmatch(text):
            return int(text)
        value = Decimal(text) if _NUMBER.fullmatch(text) and len(text) < 60 else None
        if value is None or value.adjusted() > 17 or value != value.to_integral_value():
            raise self.wrong(f"{column} is {_shown(text)}, needs a whole number{_comma(text)}")
        return int(value)

    def number(self, column: str) -> float:
        """Return a finite number, written with a decimal point.

        Raises
        ------
        DataError
            If the cell holds anything else.
        """
        text = self.cells[column]
        value = float(text) if _NUMBER.fullmatch(text) else math.nan
        if not math.isfinite(value):
            raise self.wrong(f"{column} is {_shown(text)}, needs a finite number{_comma(text)}")
        return value


def read_rows(path: Path, columns: Sequence[str], *, others: bool = False, what: str = "") -> Iterator[Row]:
    """Yield the rows of a comma-separated UTF-8 table whose first line names its columns, in any order.

    A byte-order mark, any line ends, quoted cells, blanks around a cell and empty lines change nothing. With ``others``
    there may be further columns. ``what`` begins the messages about files that are no such table.

    Raises
    ------
    DataError
        One line that names the file, and the line where there is one: text that is not UTF-8, a broken quotation, a
        column that is missing, doubled or unknown, a row with another number of cells, no row at all.
    """
    what = what or f"not a table of {','.join(columns)}"
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: {what}: is no UTF-8 text - save it as CSV in UTF-8") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    rows = 0
    try:
        for values in reader:
            cells = [value.strip() for value in values]
            if not any(cells) and len(cells) < 2:
                continue
            if header is None:
                header = _checked_header(path, what, cells, columns, others)
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{path}: line {reader.line_num}: has {len(cells)} cells, needs {len(header)} as the first line"
                )
            rows += 1
            yield Row(path, reader.line_num, dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise DataError(f"{path}: {what}: line {reader.line_num}: {error}") from None
    if header is None:
        raise DataError(f"{path}: {what}: is empty")
    if not rows:
        raise DataError(f"{path}: {what}: has 0 rows below its header")


def _checked_header(path: Path, what: str, header: list[str], columns: Sequence[str], others: bool) -> list[str]:
    missing = [name for name in columns if name not in header]
    if missing:
        separator = next((mark for mark in ";\t" if len(header) == 1 and mark in header[0]), "")
        if separator:
            raise DataError(f"{path}: {what}: its cells are separated by {separator!r} - separate them by commas")
        some = "columns" if len(missing) > 1 else "column"
        shown = _shown(",".join(header))
        raise DataError(f"{path}: {what}: the first line lacks the {some} {', '.join(missing)}; it is {shown}")
    doubled = next((name for name in (columns if others else header) if header.count(name) > 1), None)
    if doubled is not None:
        raise DataError(f"{path}: {what}: names the column {_shown(doubled)} twice - remove one")
    unknown = [name for name in header if name not in columns]
    if unknown and not others:
        raise DataError(f"{path}: {what}: has the unknown column {_shown(unknown[0])} - remove it")
    return header


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "...") if text else "empty"


def _comma(text: str) -> str:
    return " with a decimal point" if "," in text else ""
