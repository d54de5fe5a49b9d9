"""Between texts and tokens: characters, drumroll lines, or the tokenizer of a given model."""

from __future__ import annotations

import itertools
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchsuite.core import ConfigError
from benchsuite.core.errors import InvalidPrediction
from benchsuite.tasks.drum_generation.contract import END, SEPARATOR, WIDTH

BAR_END = f"{SEPARATOR}\n"


class Tokenizer(ABC):
    """A reversible way to write texts as tokens.

    Attributes
    ----------
    size
        Number of different tokens.
    tail
        How many of the last tokens are enough to see ``END`` or the end of a bar.
    """

    size: int
    tail: int

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text."""

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens."""

    def encode_bars(self, text: str) -> tuple[list[int], list[int]]:
        """Return the tokens of a text bar by bar, and where its bars begin; no token reaches over a bar's end."""
        tokens: list[int] = []
        starts = []
        for bar in re.findall(f".*?{BAR_END}|.+\\Z", text, flags=re.DOTALL):
            starts.append(len(tokens))
            tokens += self.encode(bar)
        return tokens, starts


class CharacterTokenizer(Tokenizer):
    """The 128 characters of ASCII."""

    size = 128
    tail = len(BAR_END)

    def encode(self, text: str) -> list[int]:
        """Return the codes; raises `InvalidPrediction` for a text that is not ASCII."""
        try:
            return list(text.encode("ascii"))
        except UnicodeEncodeError as error:
            raise InvalidPrediction(f"a drumroll text holds {text[error.start]!r}, needs ASCII") from None

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text."""
        return bytes(tokens).decode("ascii")


class LineTokenizer(Tokenizer):
    """The 64 lines of drumroll, a separator, and the end: whatever is written is valid line by line."""

    tail = 1

    def __init__(self) -> None:
        lines = ["".join(cells) for cells in itertools.product("-o", repeat=WIDTH)]
        self._symbols = [*(line + "\n" for line in lines), SEPARATOR + "\n", END]
        self._codes = {symbol: code for code, symbol in enumerate(self._symbols)}
        self.size = len(self._symbols)

    def encode(self, text: str) -> list[int]:
        """Return a token a line; raises `InvalidPrediction` for a line that is none."""
        codes = []
        for line in text.splitlines(keepends=True):
            if line not in self._codes:
                raise InvalidPrediction(f"{line!r} is no line of a record")
            codes.append(self._codes[line])
        return codes

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text."""
        return "".join(self._symbols[token] for token in tokens)


class GivenTokenizer(Tokenizer):
    """The tokenizer that belongs to a model in a folder."""

    tail = 2 * len(BAR_END)

    def __init__(self, folder: str) -> None:
        from transformers import AutoTokenizer

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # transformers fails in many ways
            text = " ".join(str(error).split())[:120]
            raise ConfigError(f"model={folder}: holds no tokenizer ({type(error).__name__}: {text})") from None
        self.size = len(self._tokenizer)
        probe = f"o-----\n------\n{SEPARATOR}\n{END}"
        if self.decode(self.encode(probe)) != probe:
            raise ConfigError(f"model={Path(folder)}: its tokenizer does not give drumroll text back as it was")

    def encode(self, text: str) -> list[int]:
        """Return the tokens, without any that the tokenizer would add around them."""
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text as it was, blanks included."""
        return str(self._tokenizer.decode(tokens, clean_up_tokenization_spaces=False))
