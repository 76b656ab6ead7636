"""Primes below 2**31, products modulo them, and whole numbers from their residues.

Residues are multiplied as P. Montgomery does ("Modular multiplication without trial division",
Mathematics of Computation 44, 1985): with R = 2**32, `montgomery` gives a b / R mod p, so one
factor is kept as b R mod p. It has no division, and compilers make vector instructions of it.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pathlen.backends._compiled import compiled

Residues = npt.NDArray[np.uint32]

LANES = 32  # primes at once: a row of residues is two cache lines
BITS_OF_PRIME = 30.97  # every prime used is larger than 2**31 - 2**25, which is 2**30.977
LEAST_PRIME = 2**31 - 2**25
_BLOCK = 1 << 20  # numbers sieved at once

_LOW = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)


class Batch(NamedTuple):
    """Some primes and what `montgomery` needs of them; tuples are what compiled code takes.

    Attributes:
        primes: uint32[lanes].
        negated: uint32[lanes], -1 / p mod 2**32.
    """

    primes: Residues
    negated: Residues


def primes_for(bits: int) -> int:
    """How many primes have a product of more than 2**bits."""
    return int(bits / BITS_OF_PRIME) + 1


@functools.lru_cache(maxsize=1)
def _sieved(blocks: int) -> Residues:
    """The primes of the last `blocks` * 2**20 numbers below 2**31, largest first."""
    small = np.arange(2, 46341)  # up to the square root of 2**31
    for factor in range(2, 216):
        small = small[(small == factor) | (small % factor != 0)]
    found = []
    for block in range(blocks):
        low = 2**31 - (block + 1) * _BLOCK
        is_prime = np.ones(_BLOCK, dtype=np.bool_)
        for factor in small.tolist():
            is_prime[-low % factor :: factor] = False
        found.append(low + np.flatnonzero(is_prime)[::-1])
    return np.concatenate(found).astype(np.uint32)


def largest_primes(count: int) -> Residues:
    """The largest primes below 2**31, descending: uint32[count]."""
    blocks = count // 40_000 + 1  # a block has about 48 800
    return _sieved(blocks)[:count]


def batches_of(primes: Residues, lanes: int) -> list[Batch]:
    """Primes in batches; the first ones fill up the last batch."""
    padded = np.resize(primes, -(-len(primes) // lanes) * lanes).reshape(-1, lanes)
    batches = []
    for row in padded:
        odd = row.astype(np.uint64)
        inverse = odd.copy()  # right in 3 bits; each step doubles them
        for _ in range(4):
            inverse *= 2 - odd * inverse
        batches.append(Batch(row.copy(), ((0 - inverse) & _LOW).astype(np.uint32)))
    return batches


@compiled(inline="always")
def montgomery(one, other, prime, negated):  # type: ignore[no-untyped-def]
    """One * other / 2**32 modulo a prime, below it; both factors are below it too."""
    product = np.uint64(one) * np.uint64(other)
    quotient = ((product & _LOW) * np.uint64(negated)) & _LOW
    reduced = np.uint32((product + quotient * np.uint64(prime)) >> _WORD)
    return min(reduced, np.uint32(reduced - prime))


@compiled(inline="always")
def added(one, other, prime):  # type: ignore[no-untyped-def]
    """One + other modulo a prime below 2**31: below 0 wraps round to what is larger."""
    total = np.uint32(one + other)
    return min(total, np.uint32(total - prime))


@compiled()
def power(base, exponent, prime):  # type: ignore[no-untyped-def]
    """Base**exponent modulo a prime, all uint64."""
    result, square = np.uint64(1), base % prime
    while exponent:
        if exponent & np.uint64(1):
            result = result * square % prime
        square = square * square % prime
        exponent >>= np.uint64(1)
    return result


@compiled()
def _powers_of(bases, exponents, primes):  # type: ignore[no-untyped-def]
    result = np.empty((len(bases), len(primes)), np.uint32)
    for row in range(len(bases)):
        for lane in range(len(primes)):
            prime = np.uint64(primes[lane])
            # by Fermat, exponents count modulo p - 1; that makes negative ones positive
            times = np.uint64(exponents[row] % (np.int64(primes[lane]) - 1))
            result[row, lane] = power(np.uint64(bases[row]), times, prime)
    return result


def powers_of(
    bases: npt.NDArray[np.int64], exponents: npt.NDArray[np.int64], primes: Residues
) -> Residues:
    """Base**exponent modulo each prime, for exponents of any sign: uint32[bases, primes]."""
    found: Residues = _powers_of(bases, exponents, primes)
    return found


def in_montgomery_form(residues: Residues, primes: Residues) -> Residues:
    """Each residue times 2**32: what `montgomery` takes as its second factor."""
    form: Residues = ((residues.astype(np.uint64) << _WORD) % primes).astype(np.uint32)
    return form


class Remainders:
    """The whole numbers that have given residues (Chinese remainder theorem).

    With M the product of the primes, x = sum of c(p) M / p modulo M, c(p) = x / (M / p) mod p
    (Knuth, TAOCP 2, 4.3.2). The sum is taken in pairs up a tree of products, so that large numbers
    are multiplied by numbers of their own size. c(p) takes a product over all other primes:
    count**2 machine operations once.

    Attributes:
        primes: uint32[count].
    """

    def __init__(self, primes: Residues) -> None:
        self.primes = primes
        self._factors = _cofactor_inverses(primes)
        self._primes = primes.astype(np.uint64)
        self._products: list[list[int]] = [primes.tolist()]
        while len(self._products[-1]) > 1:
            self._products.append(_in_pairs(self._products[-1]))

    def number(self, residues: Residues) -> int:
        """The number below the product of all primes with these residues: one a prime."""
        return self.numbers(residues[None])[0]

    def numbers(self, residues: Residues) -> list[int]:
        """The same for several rows: uint32[rows, primes]."""
        sums = residues.astype(np.uint64) * self._factors % self._primes
        if len(self._products) > 1:  # pairs of primes still fit 64 bits
            even, odd = sums[:, : len(self._primes) - 1 : 2], sums[:, 1::2]
            count = odd.shape[1]
            first, second = self._primes[: 2 * count : 2], self._primes[1::2]
            pairs = even * second + odd * first
            sums = np.concatenate([pairs, sums[:, 2 * count :]], axis=1)
        return [self._together(row) for row in sums.tolist()]

    def _together(self, sums: list[int]) -> int:
        """The number from sums over pairs of primes."""
        for products in self._products[1:-1]:
            sums = [
                sums[at] * products[at + 1] + sums[at + 1] * products[at]
                if at + 1 < len(sums)
                else sums[at]
                for at in range(0, len(sums), 2)
            ]
        return int(sums[0] % self._products[-1][0])


def _in_pairs(values: Sequence[int]) -> list[int]:
    """Products of neighbours; a last one alone stays."""
    pairs = [one * other for one, other in zip(values[::2], values[1::2], strict=False)]
    return pairs + list(values[len(pairs) * 2 :])


@compiled()
def _cofactor_inverses(primes):  # type: ignore[no-untyped-def]
    """One over the product of all other primes, modulo each: uint64[count]."""
    result = np.empty(len(primes), np.uint64)
    for at in range(len(primes)):
        prime, product = np.uint64(primes[at]), np.uint64(1)
        for other in range(len(primes)):
            if other != at:
                product = product * np.uint64(primes[other]) % prime
        result[at] = power(product, prime - np.uint64(2), prime)
    return result
