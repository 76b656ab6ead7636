"""The loss by which a teacher teaches, against torch's formula and finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pathlen.training.distillation import soft_cross_entropy
from pathlen.training.subwords import PADDING
from pathlen.training.tasks.translation import distill_tokens


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_against_the_formula(temperature):
    torch.manual_seed(0)
    logits, teacher = torch.randn(7, 5, dtype=torch.float64), torch.randn(7, 5).double()
    found = soft_cross_entropy(logits, teacher, temperature)
    p = torch.softmax(teacher / temperature, 1)
    q = torch.softmax(logits / temperature, 1)
    by_hand = temperature**2 * (p * (p.log() - q.log())).sum(1).mean()
    module = nn.KLDivLoss(reduction="batchmean")(q.log(), p) * temperature**2
    torch.testing.assert_close(found, by_hand, rtol=1e-12, atol=0)
    torch.testing.assert_close(found, module, rtol=1e-12, atol=0)
    assert soft_cross_entropy(teacher + 3, teacher, temperature).abs() < 1e-12


def test_its_gradient():
    torch.manual_seed(1)
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: soft_cross_entropy(x, teacher, 2.0), logits)


def test_hot_softmax_compares_logits():
    """For a large temperature the gradient is that of half the squared distance of centred logits
    over the number of classes (section 2.1 of Hinton et al.)."""
    torch.manual_seed(2)
    logits, teacher = torch.randn(2, 6, 4, dtype=torch.float64)
    centred = (logits - logits.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    expected = 0.5 * centred.square().sum(1).mean() / 4
    torch.testing.assert_close(
        soft_cross_entropy(logits, teacher, 1e4), expected, rtol=1e-3, atol=0
    )


def test_padding_does_not_count():
    torch.manual_seed(3)
    target = torch.tensor([[1, 5, 6, 2, PADDING, PADDING], [1, 7, 2, PADDING, PADDING, PADDING]])
    output, teacher = torch.randn(2, 2, 5, 9)
    found = distill_tokens(output, teacher, (target, target), 2.0)
    kept = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    rows = [torch.stack([part[place] for place in kept]) for part in (output, teacher)]
    torch.testing.assert_close(found, soft_cross_entropy(rows[0], rows[1], 2.0))
    noise = torch.where((target[:, 1:] == PADDING)[..., None], 100.0, 0.0)
    torch.testing.assert_close(
        distill_tokens(output + noise * torch.randn(9), teacher, (target, target), 2.0), found
    )
