"""The decoder: queries attend to each other and to the tokens of both sensors (section 5.5)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Attention", "Decoder"]


class Attention(nn.Module):
    """Multi-head attention with a joint matrix for queries, keys and values."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.in_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_bias = nn.Parameter(torch.zeros(3 * width))
        self.out = nn.Linear(width, width)
        for weight in (self.in_weight, self.out.weight):
            nn.init.xavier_uniform_(weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, blocked: Tensor | None = None) -> Tensor:
        """Return (B, queries, width).

        Parameters
        ----------
        query, key, value
            (B, queries, width) and twice (B, keys, width).
        blocked
            bool (queries, keys): True where a query must not look.
        """
        parts = zip((query, key, value), self.in_weight.chunk(3), self.in_bias.chunk(3), strict=True)
        q, k, v = (F.linear(x, w, b).unflatten(-1, (self.heads, -1)).transpose(1, 2) for x, w, b in parts)
        found = F.scaled_dot_product_attention(
            q, k, v, None if blocked is None else ~blocked, self.dropout if self.training else 0.0
        )
        return self.out(found.transpose(1, 2).flatten(2))


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention and feed-forward layer, each followed by its norm.

    Values carry no position. Dropout: of self-attention on weights and output, of cross-attention on the output.
    """

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = Attention(width, heads, dropout)
        self.cross_attention = Attention(width, heads, 0.0)
        self.feed_forward = nn.Sequential(nn.Linear(width, feed_forward), nn.ReLU(), nn.Linear(feed_forward, width))
        for place in (0, 2):
            nn.init.xavier_uniform_(self.feed_forward[place].weight)
            nn.init.zeros_(self.feed_forward[place].bias)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, content: Tensor, position: Tensor, keys: Tensor, tokens: Tensor, blocked: Tensor | None
    ) -> Tensor:
        """Return the new content (B, queries, width)."""
        placed = content + position
        content = self.norms[0](content + self.dropout(self.self_attention(placed, placed, content, blocked)))
        content = self.norms[1](content + self.dropout(self.cross_attention(content + position, keys, tokens)))
        return self.norms[2](content + self.feed_forward(content))


class Decoder(nn.Module):
    """Layers over the same tokens; one norm, shared, on what each of them returns."""

    def __init__(self, width: int, heads: int, feed_forward: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(width, heads, feed_forward, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, position: Tensor, tokens: Tensor, places: Tensor, blocked: Tensor | None = None) -> Tensor:
        """Return (layers, B, queries, width); content starts at zero.

        Parameters
        ----------
        position
            Embeddings of the queries (B, queries, width).
        tokens, places
            Tokens (B, tokens, width) and their embeddings (B or 1, tokens, width).
        blocked
            See `Attention.forward`; for self-attention.
        """
        content, keys, found = torch.zeros_like(position), tokens + places, []
        for layer in self.layers:
            content = layer(content, position, keys, tokens, blocked)
            found.append(self.norm(content))
        return torch.stack(found)
