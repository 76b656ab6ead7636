"""Networks to train and measure.

So far this holds the residual networks for CIFAR (:mod:`pathlen.training.resnet`), which
``pathlen demo`` and the tests measure. Linearizable activations, the sparsity prior and the
training loop are not written yet.
"""

from pathlen.training.resnet import CifarResNet

__all__ = ["CifarResNet"]
