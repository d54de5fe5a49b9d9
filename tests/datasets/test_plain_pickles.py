"""Pickles of protocol 2, in which arrays are texts: read, but nothing else of `_codecs` is."""

from __future__ import annotations

import codecs
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchsuite.core.errors import DataError
from benchsuite.datasets.plain_pickles import read_plain_pickle

MOST = 10**6


def test_arrays_of_protocol_2_are_read(tmp_path: Path) -> None:
    path = tmp_path / "infos.pkl"
    values = {"boxes": np.arange(6.0).reshape(2, 3), "score": np.float32(0.5), "name": b"\xff\x00"}
    path.write_bytes(pickle.dumps(values, protocol=2))
    found = read_plain_pickle(path, "an info file", MOST, arrays=True)
    assert np.array_equal(found["boxes"], values["boxes"])
    assert found["score"] == 0.5
    assert found["name"] == b"\xff\x00"
    with pytest.raises(DataError, match="nothing of it was executed"):
        read_plain_pickle(path, "a list of numbers", MOST)


class Encoded:
    """Pickles as a call of `_codecs.encode` with another encoding."""

    def __init__(self, encoding: str) -> None:
        self.encoding = encoding

    def __reduce__(self) -> tuple[Any, ...]:
        return codecs.encode, ("text", self.encoding)


@pytest.mark.parametrize("encoding", ["rot13", "utf-8", "unknown"])
def test_nothing_else_is_encoded(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "infos.pkl"
    path.write_bytes(pickle.dumps([Encoded(encoding)], protocol=2))
    with pytest.raises(DataError, match="something other than bytes"):
        read_plain_pickle(path, "an info file", MOST, arrays=True)
