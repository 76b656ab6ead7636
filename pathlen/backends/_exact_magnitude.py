"""Exact path counts with every path weighted by the product of the weights of its edges.

Weights are floats, so every number here is an integer over a power of two. The power belongs to the
number: products of any number of weights of any size are held without loss.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from pathlen.backends._exact_classes import Classes


@dataclass(frozen=True, slots=True)
class Dyadic:
    """A pair of numbers over one power of two: (paths, lengths) / 2**shift.

    Attributes:
        paths: The sum of the weights of some paths.
        lengths: The sum of their weights times their lengths.
        shift: Any integer.
    """

    paths: int
    lengths: int
    shift: int

    def ratio(self, *factors: "Dyadic") -> Fraction:
        """The product of the factors' weights over this weight."""
        product = math.prod(factor.paths for factor in factors)
        shift = sum(factor.shift for factor in factors) - self.shift
        top, bottom = (
            (product << -shift, self.paths) if shift < 0 else (product, self.paths << shift)
        )
        return Fraction(top, bottom)

    @property
    def log10(self) -> float:
        """Decimal logarithm of the weight, as a float."""
        bits = self.paths.bit_length()
        # int / int is rounded once however large they are, and no digits cancel near 1.
        return math.log10(self.paths / (1 << bits)) + (bits - self.shift) * math.log10(2.0)


def weighted_sum(terms: Iterable[tuple[Dyadic, int]], bits: int = 0) -> Dyadic:
    """The sum of number * times / 2**bits, with trailing zeros moved into the shift."""
    listed = list(terms)
    shift = max(number.shift for number, _ in listed)
    paths = sum((times * number.paths) << (shift - number.shift) for number, times in listed)
    lengths = sum((times * number.lengths) << (shift - number.shift) for number, times in listed)
    both = paths | lengths
    zeros = (both & -both).bit_length() - 1
    return Dyadic(paths >> zeros, lengths >> zeros, shift + bits - zeros)


def weighted_counts(classes: Classes) -> list[Dyadic]:
    """For each class, the weight of the paths to it and that weight times length.

    M(v) = 1 at a terminal, else the sum of weight * M over what v reads
    S(v) = activity(v) M(v) + the sum of weight * S over what v reads, in units of the activities
    """
    counts: list[Dyadic] = []
    for (activity, *_), reads in zip(classes.labels, classes.reads, strict=True):
        found = Dyadic(1, 0, 0)
        if reads:
            found = weighted_sum(((counts[other], times) for other, times in reads), classes.bits)
        counts.append(Dyadic(found.paths, found.lengths + activity * found.paths, found.shift))
    return counts
