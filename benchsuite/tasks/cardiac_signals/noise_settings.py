"""What the protocols of both cardiac tasks say of added noise, and the check that they share."""

from __future__ import annotations

import dataclasses
from typing import Any

NOISE_FIELDS = ("noise", "snr_db", "snr_rule", "noise_timing")


def check_noise(protocol: Any) -> None:
    """Refuse settings of noise where none is added, and ratios beyond +-60 dB.

    Raises
    ------
    ValueError
        One line that names the field.
    """
    if not -60 <= protocol.snr_db <= 60:
        raise ValueError(f"snr_db {protocol.snr_db:g} is outside -60 .. 60 dB")
    if protocol.noise != "none":
        return
    for field in dataclasses.fields(protocol):
        if field.name in NOISE_FIELDS and getattr(protocol, field.name) != field.default:
            raise ValueError(f"{field.name} does nothing without noise: choose it too (--set noise=...)")
