"""How an architecture of transformers is listed: its class, a small configuration, its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

Inputs = Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Entry:
    """One architecture.

    Attributes:
        model: name of its class in transformers.
        settings: what its configuration says other than the default.
        inputs: makes the keyword arguments of a forward pass.
    """

    model: str
    settings: Mapping[str, Any]
    inputs: Inputs


def token_ids(length: int = 12) -> torch.Tensor:
    """Random tokens, none of them a special one."""
    return torch.randint(3, 50, (1, length))


def image(size: int = 32) -> torch.Tensor:
    """A random image with three channels."""
    return torch.randn(1, 3, size, size)


def tokens(length: int = 12) -> Inputs:
    """One sentence for an encoder."""
    return lambda: {"input_ids": token_ids(length)}


def tokens_without_cache(length: int = 12) -> Inputs:
    """One sentence for a decoder, which is not to return keys and values for a next call."""
    return lambda: {"input_ids": token_ids(length), "use_cache": False}


def two_texts() -> dict[str, Any]:
    """What an encoder-decoder reads and what it has written so far."""
    return {"input_ids": token_ids(), "decoder_input_ids": token_ids(7), "use_cache": False}


def pixels(size: int = 32) -> Inputs:
    """One image."""
    return lambda: {"pixel_values": image(size)}


def text_and_image() -> dict[str, Any]:
    """One sentence and one image."""
    return {"input_ids": token_ids(), "pixel_values": image()}


def alike(names: str, **settings: Any) -> dict[str, dict[str, Any]]:
    """The same settings for several architectures, whose names are separated by blanks."""
    return dict.fromkeys(names.split(), settings)
