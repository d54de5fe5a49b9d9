"""Tables of comma-separated text: what changes nothing, and what is refused with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchsuite.core.columns import read_rows
from benchsuite.core.errors import DataError

TEXT = "record,value\nr1,3\nr2,4\n"


def values(folder: Path, content: bytes | str) -> list[tuple[str, int, float]]:
    path = folder / "t.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [(row.cells["record"], row.whole("value"), row.number("value")) for row in read_rows(path, COLUMNS)]


COLUMNS = ("record", "value")


@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        TEXT.replace("\n", "\r\n"),
        TEXT.replace("\n", "\r"),
        TEXT.encode("utf-8-sig"),
        TEXT.rstrip(),
        TEXT + "\n \n\r\n",
        TEXT.replace("\nr2", "\n\nr2"),
        'record,value\n"r1","3"\nr2, 4 \n',
        "value,record\n3,r1\n4,r2\n",
        "record,value\nr1,3.0\nr2,4e0\n",
        "record,value\nr1,3.000000000000000000e+00\nr2,+4.\n",
    ],
)
def test_what_changes_nothing(tmp_path: Path, content: Any) -> None:
    assert values(tmp_path, content) == [("r1", 3, 3.0), ("r2", 4, 4.0)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("record,value\n", "has 0 rows below its header"),
        (TEXT.encode("utf-16"), "no UTF-8 text"),
        (b"record,value\nr\xe9,3\n", "no UTF-8 text"),
        ("record\nr1\n", "lacks the column value; it is 'record'"),
        ("r1,3\nr2,4\n", "lacks the columns record, value; it is 'r1,3'"),
        (TEXT.replace(",", ";"), "separated by ';' - separate them by commas"),
        ("record,value,value\nr1,3,4\n", "names the column 'value' twice"),
        (",record,value\n0,r1,3\n", "unknown column empty"),
        ("record,value,score\nr1,3,1\n", "unknown column 'score'"),
        ("record,value\nr1,3\nr2\n", "line 3: has 1 cells, needs 2"),
        ("record,value\nr1,3,\n", "line 2: has 3 cells, needs 2"),
        ('record,value\nr1,"3\n', "line 2: unexpected end of data"),
        ("record,value\nr1,\x003\n", "needs a whole number|contains NUL"),
        ('record,value\n\nr1,"3,0"\n', "line 3: value is '3,0', needs a whole number with a decimal point"),
        ("record,value\nr1,3.5\n", "line 2: value is '3.5', needs a whole number"),
        ("record,value\nr1,nan\n", "needs a whole number"),
        ("record,value\nr1,1_0\n", "needs a whole number"),
        ("record,value\nr1,\u0663\n", "needs a whole number"),
        ("record,value\nr1,\n", "value is empty"),
        ("record,value\nr1,1e400\n", "needs a whole number"),
        ("record,value\nr1,1e-999999999\n", "needs a whole number"),
        (f"record,value\nr1,{'9' * 5000}\n", "needs a whole number"),
    ],
)
def test_what_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        values(tmp_path, content)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "t.csv") in str(caught.value)


@pytest.mark.parametrize("text", ["nan", "inf", "-Infinity", "1e999", "0x1p3", "1,5", "1 5", "", "none", "1_0.5"])
def test_numbers_that_are_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f'record,value\nr,"{text}"\n')
    (row,) = read_rows(path, COLUMNS)
    with pytest.raises(DataError, match=r"line 2: value is .* needs a finite number"):
        row.number("value")


def test_a_folder_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        list(read_rows(tmp_path, COLUMNS))
