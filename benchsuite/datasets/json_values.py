"""JSON files of data sets and results: read whole, and their values taken exactly as they are meant, or refused.

What a function here returns is the only thing that is used afterwards. Apart from `read_json` everything raises
`ValueError` with a reason that fits into a line; the caller adds the file and the id.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchsuite.core.errors import DataError

LARGEST_ID = 2**53
"""Beyond it readers that keep numbers in double precision take two ids for one."""

_WHOLE = re.compile(r"0|[1-9][0-9]{0,15}")


def read_json(path: Path, kind: str = "a readable json file") -> tuple[Any, bytes]:
    """Return what a JSON file (UTF-8, -16 or -32, with or without a byte-order mark) holds, and its bytes.

    Raises
    ------
    DataError
        If it cannot be read, is cut short, nests too deeply, or gives a key twice in one object.
    """
    try:
        content = path.read_bytes()
        return json.loads(content, object_pairs_hook=_object), content
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{path}: not {kind} ({reason}): cut short or damaged?") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        whose = f" of id {shown(found['id'])}" if "id" in found else ""
        raise ValueError(f"an object{whose} gives {shown(twice)} twice, keep one")
    return found


def shown(value: Any) -> str:
    """Return a value as it fits into a message."""
    if isinstance(value, int) and abs(value) > LARGEST_ID**2:
        return "an enormous number"
    text = ascii(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def entry(value: Any) -> Mapping[str, Any]:
    """Return an entry of a list, which must be an object."""
    if not isinstance(value, dict):
        raise ValueError(f"{shown(value)} is no object with keys")
    return value


def field(found: Mapping[str, Any], key: str, convert: Callable[[Any], Any]) -> Any:
    """Return the converted value of a key; the reason names the key."""
    if key not in found:
        raise ValueError(f"it has no {key}")
    try:
        return convert(found[key])
    except ValueError as error:
        raise ValueError(f"{key} {error}") from None


def whole(value: Any) -> int:
    """Return an id or a count in 0 .. 2**53: an int, a float without a fraction, or the digits of one as text."""
    if type(value) is str and _WHOLE.fullmatch(value):
        value = int(value)
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 <= value <= LARGEST_ID:
        raise ValueError(f"is {shown(value)}: write a whole number from 0 to 2**53")
    return value


def number(value: Any) -> float:
    """Return a finite number as it stands, int or float; text and truth values are none."""
    if type(value) not in (int, float) or not abs(value) <= LARGEST_ID:
        raise ValueError(f"is {shown(value)}: write a finite number")
    return value


def numbers(values: Any) -> list[float]:
    """Return a list of finite numbers as they stand."""
    if not isinstance(values, list):
        raise ValueError(f"is {shown(values)}: write a list of numbers")
    try:  # a sum tells in one go that nothing is missing
        plain = {*map(type, values)} <= {int, float} and math.isfinite(sum(values))
        if plain and (not values or -LARGEST_ID <= min(values) <= max(values) <= LARGEST_ID):
            return values
    except OverflowError:
        pass
    for value in values:
        number(value)
    raise ValueError("has numbers that are too large")


def text(value: Any) -> str:
    """Return a name: text of at least one character that can be printed on one line."""
    if type(value) is not str or not value.strip() or not value.isprintable():
        raise ValueError(f"is {shown(value)}: write a text of one line")
    return value
