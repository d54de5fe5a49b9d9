"""The English that the tiny GPT-2 reads first: Python's documentation topics, as shipped in ``english/``."""

from __future__ import annotations

import hashlib
from importlib import resources

from benchsuite.core.errors import DataError

# Part of the identity of every result: the text of the standard library differs between patch versions.
SHA256 = "2a95af4ac93f5b719944030ce3769070ddf827d847cba42192afa8da989e5dc4"


def english_text() -> str:
    """Return the text, without the 575 characters beyond ASCII.

    Raises
    ------
    DataError
        If the shipped file is not the one that it was.
    """
    content = resources.files("benchsuite_drums").joinpath("english/topics.txt").read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise DataError("benchsuite_drums/english/topics.txt was changed: install the plugin again")
    return "".join(character for character in content.decode("utf-8") if ord(character) < 128)
