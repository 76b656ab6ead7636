"""An encoder-decoder Transformer for translation.

Source: Ashish Vaswani et al., "Attention Is All You Need", NeurIPS 2017, arXiv:1706.03762; norms
before the layers as of Ruibin Xiong et al., "On Layer Normalization in the Transformer
Architecture", ICML 2020, arXiv:2002.04745.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Norm = Literal["pre", "post"]
Activation = Literal["relu", "gelu"]


class Transformer(nn.Module):
    """From a source and the target so far to the logits of each next token.

    Args:
        vocabulary_size: Tokens of source and target.
        padding: Token that fills up sources; nothing attends to it.
        max_length: Longest source and longest target so far.
        width: Features of a token (d_model), even.
        heads: Attention heads, which divide the width.
        layers: Layers of the encoder, and of the decoder.
        hidden: Units of each feed-forward network; four times the width by default.
        dropout: Chance of a feature to be dropped, after embeddings and after each sublayer.
        norm: "post", after each sum, as published first; "pre", before each sublayer, and once
            more at the end of the encoder and of the decoder.
        activation: "relu" or "gelu".
        positions: "sinusoidal" or "learned".
        tied: Which of the three matrices of token vectors are one: "none"; "output", that of the
            target and the output; or "all", the source too.

    Raises:
        ValueError: The width is odd or no multiple of the heads, or there is no layer.
    """

    def __init__(
        self,
        *,
        vocabulary_size: int,
        padding: int,
        max_length: int,
        width: int = 128,
        heads: int = 4,
        layers: int = 2,
        hidden: int | None = None,
        dropout: float = 0.1,
        norm: Norm = "pre",
        activation: Activation = "relu",
        positions: Literal["sinusoidal", "learned"] = "sinusoidal",
        tied: Literal["none", "output", "all"] = "all",
    ) -> None:
        super().__init__()
        if width % heads or width % 2:
            raise ValueError(f"width must be even and a multiple of heads {heads}, not {width}")
        if layers < 1:
            raise ValueError(f"layers must be at least 1, not {layers}")
        self.padding, self.max_length, self.scale = padding, max_length, math.sqrt(width)
        self.source_embedding = nn.Embedding(vocabulary_size, width)
        self.target_embedding = nn.Embedding(vocabulary_size, width)
        self.output = nn.Linear(width, vocabulary_size, bias=False)
        if tied in ("output", "all"):
            self.target_embedding.weight = self.output.weight
        if tied == "all":
            self.source_embedding.weight = self.output.weight
        if positions == "learned":
            self.positions: Tensor = nn.Parameter(torch.empty(max_length, width))
            nn.init.normal_(self.positions, std=1.0)
        else:
            self.register_buffer("positions", sinusoids(max_length, width), persistent=False)
        self.dropout = nn.Dropout(dropout)
        size = 4 * width if hidden is None else hidden
        parts = (width, heads, size, dropout, norm, activation)
        self.encoder = nn.ModuleList(EncoderLayer(*parts) for _ in range(layers))
        self.decoder = nn.ModuleList(DecoderLayer(*parts) for _ in range(layers))
        # With norms before the sublayers nothing has normalized the last sums.
        last = nn.LayerNorm if norm == "pre" else nn.Identity
        self.encoder_norm, self.decoder_norm = last(width), last(width)
        self._initialize()

    def _initialize(self) -> None:
        """Draw matrices as Glorot and Bengio 2010 do, and token vectors of about unit length."""
        for module in self.modules():
            if isinstance(module, nn.Linear) and module is not self.output:
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for table in (self.source_embedding, self.target_embedding, self.output):
            nn.init.normal_(table.weight, std=1 / self.scale)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Map tokens to logits.

        Args:
            source: int64 [batch, s], filled up with padding at the end.
            target: int64 [batch, t]: the target so far. Padding at its end needs no mask, since no
                token attends to later ones.

        Returns:
            Logits of the token after each of the target, [batch, t, vocabulary].
        """
        seen = (source != self.padding)[:, None, None, :]  # [batch, 1, 1, s]
        memory = self._embed(self.source_embedding, source)
        for layer in self.encoder:
            memory = layer(memory, seen)
        memory = self.encoder_norm(memory)
        x = self._embed(self.target_embedding, target)
        for layer in self.decoder:
            x = layer(x, memory, seen)
        logits: Tensor = self.output(self.decoder_norm(x))
        return logits

    def _embed(self, table: nn.Module, tokens: Tensor) -> Tensor:
        """Give vectors of tokens with their positions, [batch, length, width]."""
        if tokens.shape[1] > self.max_length:
            raise ValueError(
                f"{tokens.shape[1]} tokens are more than max_length {self.max_length} of this model"
            )
        positions = self.positions[: tokens.shape[1]]
        embedded: Tensor = self.dropout(table(tokens) * self.scale + positions)
        return embedded


class Sublayer(nn.Module):
    """The sum of a stream and a function of it, normalized before or after.

    Args:
        width: Features of the stream.
        dropout: Chance of a feature of the function to be dropped.
        norm: "pre": x + f(norm(x)); "post": norm(x + f(x)).
    """

    def __init__(self, width: int, dropout: float, norm: Norm) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.before = norm == "pre"

    def forward(self, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Map [batch, t, width] to the same shape."""
        if self.before:
            summed: Tensor = x + self.dropout(function(self.norm(x)))
        else:
            summed = self.norm(x + self.dropout(function(x)))
        return summed


class EncoderLayer(nn.Module):
    """Attention of the source to itself, then a feed-forward network."""

    def __init__(
        self, width: int, heads: int, hidden: int, dropout: float, norm: Norm, kind: Activation
    ) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.attention_sum = Sublayer(width, dropout, norm)
        self.network = FeedForward(width, hidden, kind)
        self.network_sum = Sublayer(width, dropout, norm)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """Map [batch, s, width] to the same shape; `seen` is as in :class:`Attention`."""
        x = self.attention_sum(x, lambda y: self.attention(y, y, seen))
        result: Tensor = self.network_sum(x, self.network)
        return result


class DecoderLayer(nn.Module):
    """Attention of the target to what is before, attention to the source, a network."""

    def __init__(
        self, width: int, heads: int, hidden: int, dropout: float, norm: Norm, kind: Activation
    ) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.attention_sum = Sublayer(width, dropout, norm)
        self.source_attention = Attention(width, heads)
        self.source_attention_sum = Sublayer(width, dropout, norm)
        self.network = FeedForward(width, hidden, kind)
        self.network_sum = Sublayer(width, dropout, norm)

    def forward(self, x: Tensor, memory: Tensor, seen: Tensor) -> Tensor:
        """Map [batch, t, width] and the encoder's [batch, s, width] to [batch, t, width]."""
        x = self.attention_sum(x, lambda y: self.attention(y, y, None))
        x = self.source_attention_sum(x, lambda y: self.source_attention(y, memory, seen))
        result: Tensor = self.network_sum(x, self.network)
        return result


class Attention(nn.Module):
    """Scaled dot product attention with several heads.

    Args:
        width: Features of the queries, of what is attended to, and of the result.
        heads: How many; they divide the width.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor, seen: Tensor | None) -> Tensor:
        """Attend from [batch, t, width] to [batch, s, width].

        Args:
            x: Where the queries are made.
            memory: Where the keys and values are.
            seen: Which of the memory is attended to, bool [batch, 1, 1, s]; None: what is not
                after the query, where s = t.
        """
        query, key, value = self.query(x), self.key(memory), self.value(memory)
        split = [
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (query, key, value)
        ]
        mixed = functional.scaled_dot_product_attention(
            split[0], split[1], split[2], attn_mask=seen, is_causal=seen is None
        )  # [batch, heads, t, width / heads]
        result: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return result


class FeedForward(nn.Module):
    """A perceptron with one hidden layer, the same for each token.

    Args:
        width: Features in and out.
        hidden: Units of the hidden layer.
        kind: Its activation.
    """

    def __init__(self, width: int, hidden: int, kind: Activation) -> None:
        super().__init__()
        self.first = nn.Linear(width, hidden)
        self.activation = nn.ReLU() if kind == "relu" else nn.GELU()
        self.second = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, t, width] to the same shape."""
        mapped: Tensor = self.second(self.activation(self.first(x)))
        return mapped


def sinusoids(length: int, width: int) -> Tensor:
    """Sines and cosines of geometric wavelengths (Vaswani et al. 2017, 3.5), [length, width]."""
    places = torch.arange(length, dtype=torch.float64)[:, None]
    rates = 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = places * rates
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1).float()
