"""Convert one file between MIDI and drumroll text: ``python -m benchsuite_drums.convert IN OUT``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchsuite.core.errors import DataError, UserError
from benchsuite.tasks.drum_generation.contract import BARS, lines_of_text, read_midi, text_of, write_midi

_MIDI = (".mid", ".midi")


def convert(source: Path, target: Path) -> str:
    """Write the text of a MIDI file, or the MIDI file of a text; return what was done, in one line.

    Raises
    ------
    UserError
        One line: no such file, other endings, a broken file, a line that is not six of ``o`` and ``-``.
    """
    kinds = (source.suffix.lower(), target.suffix.lower())
    if not source.is_file():
        raise UserError(f"{source}: there is no such file")
    if kinds[0] in _MIDI and kinds[1] == ".txt":
        roll = read_midi(source.read_bytes(), str(source))
        target.write_text(text_of(roll.lines), encoding="ascii", newline="\n")
        left = "".join(f", {count} {reason}" for reason, count in sorted(roll.left_out.items()))
        return f"{len(roll.lines)} lines of {BARS} bars, {roll.hits} notes taken{left and '; left out' + left[1:]}"
    if kinds[0] == ".txt" and kinds[1] in _MIDI:
        try:
            text = source.read_text(encoding="ascii")
        except UnicodeDecodeError:
            raise DataError(f"{source}: is no drumroll text, it holds characters beyond ASCII") from None
        lines = lines_of_text(text, str(source))
        beats, rest = divmod(len(lines), 4 * BARS)
        content = write_midi(lines, beats if beats and not rest else 4)
        target.write_bytes(content)
        return f"{len(lines)} lines, {''.join(lines).count('o')} notes"
    raise UserError(f"{source} to {target}: one must end in .mid, the other in .txt")


def main(arguments: Sequence[str]) -> int:
    """Convert; errors are one line and exit code 2."""
    if len(arguments) != 2:
        print("usage: python -m benchsuite_drums.convert IN OUT (.mid to .txt or .txt to .mid)", file=sys.stderr)
        return 2
    try:
        print(convert(Path(arguments[0]), Path(arguments[1])))
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
