"""Lossy codes of float vectors, cut into chunks that are coded independently.

On the wire every chunk is a header of 32 bytes followed by its codes, padded to a multiple of 32 bytes,
so that all parts stay aligned for float32 views.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

HEADER_BYTES = 32
_ALIGNMENT = 32
_EPS = 1e-7
_LEVELS = 255.0


def aligned(size: int) -> int:
    """Return ``size`` rounded up to a multiple of 32."""
    return -(-size // _ALIGNMENT) * _ALIGNMENT


class Compressor(Protocol):
    """A code for chunks of float32."""

    def chunk_bytes(self, elements: int) -> int:
        """Return the bytes on the wire of one chunk of so many elements."""

    def compress(self, chunks: Tensor) -> Tensor:
        """Return codes, uint8 (c, chunk_bytes(m)), of float chunks (c, m)."""

    def decompress(self, codes: Tensor, elements: int) -> Tensor:
        """Return float32 chunks (c, elements) from their codes."""


class MinMaxUInt8:
    """Eight bits an element between the minimum and the maximum of its chunk.

    The header holds the minimum (byte 0) and the maximum (byte 4) as float32. The zero point is a whole
    number of steps from zero, so zero decodes to zero. Codes are clamped on both sides: rounding the upper
    bound up would else push the minimum to code -1, which wraps around to the maximum.

    Source: ``tests/internal/compressor.py`` and ``bagua_kernels.cu`` of BaguaSys/bagua.
    """

    def chunk_bytes(self, elements: int) -> int:
        """Return 32 + the number of elements rounded up to a multiple of 32."""
        return HEADER_BYTES + aligned(elements)

    def compress(self, chunks: Tensor) -> Tensor:
        """Return codes, uint8 (c, 32 + align32(m)), of float16 or float32 chunks (c, m)."""
        chunks = chunks.float()
        low, high = chunks.amin(dim=1), chunks.amax(dim=1)
        scale, upper, lower = self._grid(low, high)
        levels = torch.round(chunks * scale).minimum(upper) - lower
        codes = torch.zeros(len(chunks), self.chunk_bytes(chunks.shape[1]), dtype=torch.uint8, device=chunks.device)
        codes[:, :8].view(torch.float32).copy_(torch.stack([low, high], dim=1))
        codes[:, HEADER_BYTES : HEADER_BYTES + chunks.shape[1]] = levels.clamp_(0.0, _LEVELS).to(torch.uint8)
        return codes

    def decompress(self, codes: Tensor, elements: int) -> Tensor:
        """Return float32 (c, elements) from the codes."""
        low, high = codes[:, :8].contiguous().view(torch.float32).unbind(dim=1)
        scale, _, lower = self._grid(low, high)
        return (codes[:, HEADER_BYTES : HEADER_BYTES + elements].float() + lower) / scale

    @staticmethod
    def _grid(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return steps per unit, and the level numbers of the upper and lower end, each (c, 1)."""
        width = (high - low + _EPS)[:, None]
        scale = torch.full_like(width, _LEVELS) / width
        upper = torch.round(high[:, None] * scale)
        return scale, upper, upper - _LEVELS


class OneBit:
    """The sign of every element, and the mean magnitude of its chunk (byte 0 of the header, float32).

    Biased: use it with error feedback. Source: 1-bit Adam, arXiv 2102.02888.
    """

    def chunk_bytes(self, elements: int) -> int:
        """Return 32 + one bit an element, rounded up to a multiple of 32 bytes."""
        return HEADER_BYTES + aligned(-(-elements // 8))

    def compress(self, chunks: Tensor) -> Tensor:
        """Return codes, uint8 (c, 32 + align32(m / 8)), of float chunks (c, m); zero counts as positive."""
        chunks = chunks.float()
        count, elements = chunks.shape
        codes = torch.zeros(count, self.chunk_bytes(elements), dtype=torch.uint8, device=chunks.device)
        codes[:, :4].view(torch.float32).copy_(chunks.abs().mean(dim=1, keepdim=True))
        body = codes[:, HEADER_BYTES:]
        bits = torch.zeros(count, body.shape[1] * 8, dtype=torch.uint8, device=chunks.device)
        bits[:, :elements] = chunks >= 0
        body.copy_((bits.view(count, -1, 8) << _bit_places(chunks.device)).sum(dim=2, dtype=torch.uint8))
        return codes

    def decompress(self, codes: Tensor, elements: int) -> Tensor:
        """Return float32 (c, elements): plus or minus the chunk's mean magnitude."""
        scale = codes[:, :4].contiguous().view(torch.float32)
        bits = (codes[:, HEADER_BYTES:, None] >> _bit_places(codes.device)) & 1
        signs = bits.view(len(codes), -1)[:, :elements].float() * 2 - 1
        return signs * scale


def _bit_places(device: torch.device) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=device)


def make_compressor(name: str) -> Compressor:
    """Return the compressor called ``minmax-uint8`` or ``one-bit``."""
    compressors: dict[str, type[Compressor]] = {"minmax-uint8": MinMaxUInt8, "one-bit": OneBit}
    return compressors[name]()
