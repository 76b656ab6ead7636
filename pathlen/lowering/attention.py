"""Scaled dot product attention: what its two contractions give when written out."""

from __future__ import annotations

import torch

from pathlen.lowering.context import Lowering
from pathlen.lowering.contraction import Operand, contraction_labels
from pathlen.lowering.elementwise import merge_columns
from pathlen.lowering.labels import by_runs, compact, constant_labels
from pathlen.lowering.rules import rule
from pathlen.lowering.values import Call, Value


@rule("contraction", "aten.scaled_dot_product_attention")
def attention(call: Call, lowering: Lowering) -> Value | None:
    """Scores from queries and keys, then weighted values.

    Where one of the three has no path, scores or results are linear maps: learned queries are the
    features of a layer that reads the keys. Then the call is written out in products of matrices.
    """
    if not all(call[name].is_path for name in ("query", "key", "value")):
        return None
    query, key, value = (call[name].labels for name in ("query", "key", "value"))
    heads = query.shape[-3] if query.ndim > 2 else 1
    if call["enable_gqa"]:
        key = _repeat_heads(key, heads)
        value = _repeat_heads(value, heads)
    batch, mask = query.ndim - 2, call["attn_mask"]
    biased = mask is not None and mask.is_path
    run_of_query = torch.arange(query.shape[-2])
    if not biased:  # a few runs of equal tokens (class token, patches): scores of runs are enough
        (query,), run_of_query = by_runs([query], -2)
        (key, value), _ = by_runs([key, value], -2)
    if lowering.policy.attention == "value":
        scores = constant_labels([*query.shape[:-1], key.shape[-2]])
    else:
        scores = contraction_labels(
            call, Operand(query, batch, 1), Operand(key, batch, 1), lowering, "attention_scores"
        )
        scale = query.shape[-1] ** -0.5 if call["scale"] is None else abs(call["scale"])
        scores = lowering.scaled(scores, torch.tensor(scale, dtype=torch.float64))
        if biased:
            scores = merge_columns(call, [scores, mask.labels.expand(scores.shape)], lowering)
        scores = lowering.counted("softmax", call, scores)
    values = Operand(value.transpose(-1, -2), batch, 1)
    labels = contraction_labels(call, Operand(scores, batch, 1), values, lowering)
    if labels.shape[-2] > 1:
        labels = labels.index_select(-2, run_of_query)
    return lowering.result(call, labels.expand(call.shape))


def _repeat_heads(labels: torch.Tensor, heads: int) -> torch.Tensor:
    small = compact(labels, [a for a in range(labels.ndim) if a != labels.ndim - 3])
    repeated = small.repeat_interleave(heads // labels.shape[-3], dim=-3)
    return repeated.expand([*labels.shape[:-3], heads, *labels.shape[-2:]])
