"""The loss by which a teacher network teaches another.

Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015, arXiv:1503.02531.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def soft_cross_entropy(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """temperature^2 times the mean over items of KL(teacher || student), in nats.

    The factor keeps gradients of one size whatever the temperature (section 2 there).

    Args:
        logits: [n, classes].
        teacher: [n, classes].
        temperature: Above 0; both are divided by it before the softmax.
    """
    student = functional.log_softmax(logits / temperature, dim=-1)
    softened = functional.log_softmax(teacher / temperature, dim=-1)
    divergence = functional.kl_div(student, softened, reduction="sum", log_target=True)
    return divergence * temperature**2 / max(1, len(logits))
