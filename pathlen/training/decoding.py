"""Greedy and beam search for the outputs of a model that translates.

A model is a function of (source [n, s], target so far [n, t]) to logits [n, t, vocabulary] and
nothing more is asked of it: each step runs it on the whole prefix. That costs a factor of the
length over keeping keys and values, and works for every model, whatever was done to its forward.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Model = Callable[[Tensor, Tensor], Tensor]


@torch.no_grad()
def greedy_search(
    model: Model, source: Tensor, *, begin: int, end: int, padding: int, max_length: int
) -> Tensor:
    """Take the likeliest next token at each step.

    Args:
        model: From (source, target so far) to logits of the next tokens.
        source: Tokens, int64 [n, s].
        begin: Token that each target begins with.
        end: Token that ends a target.
        padding: Token behind the end.
        max_length: Largest number of tokens after `begin`.

    Returns:
        Tokens after `begin`, int64 [n, t] with t at most `max_length`; after the first `end` of a
        row there is padding. A row that did not end has `max_length` tokens.
    """
    target = torch.full((len(source), 1), begin, device=source.device)
    ended = torch.zeros(len(source), dtype=torch.bool, device=source.device)
    for _ in range(max_length):
        scores = next_scores(model, source, target, begin, padding)  # [n, vocabulary]
        token = scores.argmax(1).masked_fill(ended, padding)
        target = torch.cat([target, token[:, None]], 1)
        ended = ended | (token == end)
        if ended.all():
            break
    return target[:, 1:]


@torch.no_grad()
def beam_search(
    model: Model,
    source: Tensor,
    *,
    begin: int,
    end: int,
    padding: int,
    max_length: int,
    width: int = 4,
    length_penalty: float = 0.6,
) -> Tensor:
    """Keep the best `width` beginnings of each target at each step.

    A target's score is log p / ((5 + tokens) / 6)^length_penalty (Wu et al. 2016,
    arXiv:1609.08144, equation 14), `end` counted among its tokens. Targets that ended stay in the
    beam and are compared by score with those that go on. Where a row's beam holds no end after
    `max_length` tokens, the best target without an end is given. With a beam as wide as there are
    beginnings this is the best of all targets.

    Args:
        model: From (source, target so far) to logits of the next tokens.
        source: Tokens, int64 [n, s].
        begin: Token that each target begins with.
        end: Token that ends a target.
        padding: Token behind the end.
        max_length: Largest number of tokens after `begin`.
        width: Targets kept for each row.
        length_penalty: 0 for log p alone; larger values favour longer targets.

    Returns:
        As of :func:`greedy_search`, which this is for width 1.
    """
    rows, device = len(source), source.device
    sources = source.repeat_interleave(width, 0)  # [n width, s]
    target = torch.full((rows, width, 1), begin, device=device)
    # At first all targets of a beam are the same: one is alive.
    log_p = torch.full((rows, width), -torch.inf, device=device)
    log_p[:, 0] = 0
    ended = torch.zeros(rows, width, dtype=torch.bool, device=device)
    lengths = torch.zeros(rows, width, device=device)
    for _ in range(max_length):
        step = next_scores(model, sources, target.flatten(0, 1), begin, padding)
        step = step.unflatten(0, (rows, width))  # [n, width, vocabulary]
        # A target that ended goes on with padding alone, at no cost.
        step = step.masked_fill(ended[..., None], -torch.inf)
        step[..., padding] = step[..., padding].masked_fill(ended, 0)
        going = log_p[..., None] + step
        longer = lengths + (~ended)
        ranks = (going / penalty(longer, length_penalty)[..., None]).flatten(1)
        chosen = ranks.topk(width, dim=1).indices  # [n, width]
        parent, token = chosen // step.shape[2], chosen % step.shape[2]
        target = torch.cat([_take(target, parent), token[..., None]], 2)
        log_p, lengths = going.flatten(1).gather(1, chosen), longer.gather(1, parent)
        ended = ended.gather(1, parent) | (token == end)
        if ended.all():
            break
    # The beam is in order of score after every step, and nothing came after the last one.
    found = torch.where(ended.any(1), ended.int().argmax(1), 0)
    return target[torch.arange(rows, device=device), found, 1:]


def next_scores(model: Model, source: Tensor, target: Tensor, begin: int, padding: int) -> Tensor:
    """Log-probabilities of the token after each target, [n, vocabulary].

    Padding and `begin` never come next: -inf.
    """
    logits = model(source, target)[:, -1].float()
    barred = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
    barred[[begin, padding]] = True
    return functional.log_softmax(logits.masked_fill(barred, -torch.inf), dim=1)


def penalty(lengths: Tensor, exponent: float) -> Tensor:
    """What the log-probability of targets of these lengths is divided by."""
    return ((5 + lengths) / 6) ** exponent


def _take(targets: Tensor, parents: Tensor) -> Tensor:
    """Targets [n, width, t] of the beam places [n, width]."""
    return targets.gather(1, parents[..., None].expand(-1, -1, targets.shape[2]))
