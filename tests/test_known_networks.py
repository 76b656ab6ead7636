"""Networks that are well known and written by hand, each against numbers that are reasoned out.

NAPL is the mean length of a random walk backward. A sum halves it between its summands, a layer and
an attention pass it on, an activation adds 1.
"""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

import pathlen
from tests.constructs import answer
from tests.known_clip import CLIP, ModifiedResNet, VisionTransformer
from tests.known_networks import (
    DOPRI5,
    RK4,
    DormandPrince,
    FourierOperator,
    Generator,
    KANLinear,
    RungeKutta4,
    SentenceClassifier,
    SpectralConv2d,
    Table,
    Translator,
)

IMAGES, TEXTS = torch.randn(2, 3, 8, 8), torch.randint(0, 20, (2, 7))


def depth(model: nn.Module, *args: object, status: str = "exact") -> Fraction:
    """NAPL."""
    return answer(model.eval(), *args, status=status)[2]


# --- CLIP -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 3])
def test_clip_with_a_vision_transformer(layers):
    """A block has a GELU in one of its two sums; a logit is a product of an image and a text."""
    image, text = Fraction(layers, 2), Fraction(2, 2)
    model = CLIP(VisionTransformer(8, layers, 6), 8, 2, 6)
    assert depth(model, IMAGES, TEXTS) == (image + text) / 2


def test_clip_with_a_residual_network():
    """Three activations of the stem, and 1 + 2/2 a block: one behind the sum, two in its branch."""
    image, text = Fraction(3 + 3 * 2), Fraction(1, 2)
    model = CLIP(ModifiedResNet(4, 6), 8, 1, 6)
    assert depth(model, torch.randn(2, 3, 16, 16), TEXTS) == (image + text) / 2


def test_clip_reads_its_texts_at_the_end_token_in_any_spelling():
    """Where the token stands has no path: found by argmax, or told."""

    class Told(CLIP):
        def encode_text(self, text: Tensor) -> Tensor:
            x = self.token_embedding(text) + self.positional_embedding
            x = self.ln_final(self.transformer(x.permute(1, 0, 2)).permute(1, 0, 2))
            return x[:, -1] @ self.text_projection

    found, told = (kind(VisionTransformer(8, 1, 6), 8, 1, 6) for kind in (CLIP, Told))
    assert answer(found.eval(), IMAGES, TEXTS) == answer(told.eval(), IMAGES, TEXTS)


# --- splines, spectra -----------------------------------------------------------------------------


def test_kolmogorov_arnold_networks():
    """Each input has a SiLU and 5 + 3 splines, all active, to each output: 9 ways an edge."""
    model = nn.Sequential(KANLinear(2, 3), KANLinear(3, 1))
    report = pathlen.measure(model, torch.randn(4, 2), exact=True)
    assert (report.status, report.num_active) == ("exact", 9 * 2 + 9 * 3)
    assert report.path_count == (2 * 9) * (3 * 9)
    assert report.average_path_length == report.normalized_average_path_length == 2


class Concatenated(SpectralConv2d):
    """The same with real weights, put together instead of written into zeros."""

    def __init__(self, width: int, modes: int):
        super().__init__(width, modes)
        self.pairs = nn.Parameter(torch.randn(2, width, width, modes, modes, 2))

    def forward(self, x: Tensor) -> Tensor:
        modes, found = self.modes, torch.fft.rfft2(x)
        low, high = (
            (part[:, :, None] * torch.view_as_complex(pair)[None]).sum(1)
            for part, pair in zip(
                (found[:, :, :modes, :modes], found[:, :, -modes:, :modes]), self.pairs, strict=True
            )
        )
        rows = found.shape[2] - 2 * modes
        out = torch.cat([low, low.new_zeros(*low.shape[:2], rows, modes), high], dim=2)
        zeros = out.new_zeros(*out.shape[:3], found.shape[3] - modes)
        return torch.fft.irfft2(torch.cat([out, zeros], dim=3), s=x.shape[-2:])


def test_fourier_neural_operators():
    """A block's output reads each channel twice by the spectrum, once by the convolution."""
    field = torch.randn(2, 8, 8, 2)
    written = answer(FourierOperator(2, 3, 2, SpectralConv2d).eval(), field)
    assert written == (2 * 3 * (3 * 3) ** 2 * 5, 2, 2)
    assert answer(FourierOperator(2, 3, 2, Concatenated).eval(), field) == written


# --- StyleGAN2 ------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2])
def test_modulated_convolutions(batch):
    """3 styles, a mapping of 2 layers, 4 channels: convolutions are products with their weights.

    A style has 3 * 3 ways of length 2, so a weight has 27. The first convolution reads a constant,
    so that it is a linear map of its weights; the others are products.
    """
    ways = 3 * 3 * 3
    first = 4 * ways
    second = 4 * first + 4 * ways
    rgb = 4 * second + 4 * ways
    length = 4 * (4 * first * (2 + 1 + 1) + 4 * ways * (2 + 1)) + 4 * ways * 2
    walk = (
        1 + (3 + Fraction(2)) / 2 + 2
    ) / 2  # (second + style) / 2; second: 1 + (first + style) / 2
    expected = (3 * rgb, Fraction(length, rgb), walk)
    assert answer(Generator(3, 2, 4).eval(), torch.randn(batch, 3)) == expected


# --- sequences ------------------------------------------------------------------------------------


@pytest.mark.parametrize("force", [False, True])
def test_a_decoder_that_fills_a_buffer(force):
    """A state has 1 + (token + state before) / 2; a token that it chose itself has no path."""
    state = Fraction(0)
    for number in range(3):  # of the encoder; the first state is constant
        state = 1 + (state / 2 if number else state)
    depths = []
    for number in range(3):
        read = force or number == 0
        state = 1 + (state / 2 if read else state)
        depths.append(state)
    source, target = torch.randint(0, 9, (3, 2)), torch.randint(0, 9, (4, 2))
    model = Translator("RNN", nonlinearity="relu").eval()
    report = pathlen.measure(model, (source, target), {"force": force}, exact=True)
    assert report.status == "exact"
    assert report.normalized_average_path_length == sum(depths) / 3


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_a_buffer_is_a_stack(kind, force):
    source, target = torch.randint(0, 9, (3, 2)), torch.randint(0, 9, (4, 2))
    model = Translator(kind).eval()
    reports = [
        pathlen.measure(model, (source, target), {"force": force, "buffer": buffer}, exact=True)
        for buffer in (True, False)
    ]
    first, second = reports
    assert first.path_count == second.path_count
    assert first.average_path_length == second.average_path_length
    assert first.normalized_average_path_length == second.normalized_average_path_length
    assert first.num_active == second.num_active


def test_packed_sentences_depend_on_their_lengths_alone():
    text, lengths = torch.randint(0, 9, (2, 4)), torch.tensor([4, 4])
    packed, plain = (SentenceClassifier(packed=packed).eval() for packed in (True, False))
    assert answer(packed, text, lengths, status="example") == answer(plain, text, lengths)


# --- solvers --------------------------------------------------------------------------------------


def behind_a_step(table: Table, depth: Fraction, first: Fraction | None = None) -> list[Fraction]:
    """Depths of what a step returns and of its last slope; sums are flat.

    Args:
        table: weights of the slopes in each stage; the last stage is the result.
        depth: of the state before the step.
        first: of the first slope, where it is one of the step before.
    """
    slopes, state = [1 + depth if first is None else first], depth
    for weights in table[0]:
        read = [slope for weight, slope in zip(weights, slopes, strict=True) if weight]
        state = (depth + sum(read)) / (1 + len(read))
        slopes.append(1 + state)
    return [state, slopes[-1]]


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("steps", [1, 2])
def test_the_classical_runge_kutta_method(steps, stacked):
    expected = steps * Fraction(49, 40)  # (0 + 1 + 3/2 + 7/4 + 15/8) / 5
    assert steps * behind_a_step(RK4, Fraction(0))[0] == expected
    assert depth(RungeKutta4(steps, stacked=stacked), torch.randn(2, 3)) == expected


def test_an_adaptive_solver_is_as_deep_as_the_steps_of_its_example():
    torch.manual_seed(0)
    model, example = DormandPrince(), torch.randn(2, 3)
    model(example)
    assert model.accepted > 1
    state, slope = Fraction(0), Fraction(1)
    for _ in range(model.accepted):
        state, slope = behind_a_step(DOPRI5, state, slope)
    assert depth(model, example, status="example") == state
