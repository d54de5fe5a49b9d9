"""What a run writes, kept in a file that does not grow without end."""

from __future__ import annotations

import os
import threading
from collections import deque
from pathlib import Path

HEAD_BYTES = 4_000_000  # kept from the beginning, as they come
TAIL_BYTES = 1_000_000  # kept from the end, written when the run is over
_BLOCK = 1 << 16


class CappedLog:
    """Copies a pipe to a file: its first bytes as they come, of the rest the last ones, when the pipe closes.

    A thread reads: fork the run before the object is made.
    """

    def __init__(self, path: Path, reader: int) -> None:
        self._path = path
        self._reader = reader
        self._thread = threading.Thread(target=self._copy, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Wait until the last writer has closed the pipe, and the file is whole."""
        self._thread.join()

    def _copy(self) -> None:
        written = left_out = kept = 0
        tail: deque[bytes] = deque()
        with self._path.open("ab", buffering=0) as log:
            while block := os.read(self._reader, _BLOCK):
                if written < HEAD_BYTES:
                    head, block = block[: HEAD_BYTES - written], block[HEAD_BYTES - written :]
                    log.write(head)
                    written += len(head)
                if block:
                    tail.append(block)
                    kept += len(block)
                while kept - len(tail[0] if tail else b"") > TAIL_BYTES:
                    gone = len(tail.popleft())
                    kept -= gone
                    left_out += gone
            if left_out:
                log.write(b"\nbenchsuite: %d bytes left out here\n" % left_out)
            for block in tail:
                log.write(block)
        os.close(self._reader)
