"""Tasks whose items are pairs of lines: tokens, loss and BLEU."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Module, functional

from pathlen.errors import DataError, SettingsError
from pathlen.training.decoding import beam_search, greedy_search
from pathlen.training.distillation import soft_cross_entropy
from pathlen.training.libraries import library
from pathlen.training.subwords import BEGIN, END, PADDING, Subwords
from pathlen.training.task import Batch, Task
from pathlen.training.tasks.pair_set import PairSet, encode_pairs, pad_pairs

Lines = Sequence[tuple[str, str]]
"""Pairs of a source and its target."""


@dataclass(frozen=True, slots=True)
class TextSettings:
    """How lines become tokens, and how translations are made and judged.

    Attributes:
        vocabulary_size: Largest number of subwords; see :meth:`Subwords.train`.
        vocabulary: A file to read subwords from instead of training them.
        max_tokens: Longest source and longest target, in tokens with the special ones.
        beam: Width of the beam; 1 is greedy.
        length_penalty: See :func:`beam_search`.
        decode_batch: Lines translated at once.
        bleu_tokenizer: How sacrebleu tells words apart: "13a", "char", "zh", ...
    """

    vocabulary_size: int
    vocabulary: str | None
    max_tokens: int
    beam: int
    length_penalty: float
    decode_batch: int = 250
    bleu_tokenizer: str = "13a"


def translation_task(
    name: str, train: Lines, test: Lines, settings: TextSettings, notes: tuple[str, ...] = ()
) -> Task:
    """Make the task of translating lines.

    The vocabulary is trained on the lines to train on. Longer pairs than `max_tokens` are left out
    of these and of those held out, which notes say.

    Args:
        name: What it is called.
        train: Pairs to train on.
        test: Pairs held out.
        settings: See :class:`TextSettings`.
        notes: See :class:`Task`; notes on pairs left out are added.

    Raises:
        SettingsError: A setting is out of range, or a library is not installed.
        DataError: There is no pair that is short enough.
    """
    if settings.beam < 1 or settings.max_tokens < 2:
        raise SettingsError(
            f"{name}: beam must be at least 1 and max_tokens at least 2, not {settings.beam} and "
            f"{settings.max_tokens}"
        )
    library("sacrebleu", "sacrebleu")
    if not train or not test:
        raise DataError(f"{name}: there is no pair of lines to {'test' if train else 'train'} on")
    if settings.vocabulary is None:
        lines = (line for pair in train for line in pair)
        subwords = Subwords.train(lines, settings.vocabulary_size)
    else:
        subwords = Subwords.load(Path(settings.vocabulary))
    train_pairs, train_notes = _short_enough(name, subwords, train, settings, "to train on")
    test_pairs, test_notes = _short_enough(name, subwords, test, settings, "held out")
    return Task(
        name=name,
        train=train_pairs,
        test=test_pairs,
        example=(torch.tensor([[BEGIN, END]]), torch.tensor([[BEGIN, END]])),
        inputs=source_and_beginning,
        loss=token_cross_entropy,
        distill=distill_tokens,
        counts=count_tokens,
        metric="bleu",
        model_arguments={
            "vocabulary_size": len(subwords),
            "padding": PADDING,
            "max_length": settings.max_tokens,
        },
        collate=pad_pairs,
        decode=functools.partial(translate_and_score, subwords, settings),
        artifacts={"tokenizer.json": subwords.to_json()},
        notes=(*notes, *train_notes, *test_notes),
    )


def _short_enough(
    name: str, subwords: Subwords, lines: Lines, settings: TextSettings, use: str
) -> tuple[PairSet, list[str]]:
    """Encode the pairs that have at most `max_tokens`; a note where others are left out."""
    pairs = encode_pairs(subwords, lines)
    kept = (pairs.steps <= settings.max_tokens).nonzero()[:, 0]
    if not len(kept):
        raise DataError(
            f"{name}: all {len(pairs)} pairs {use} have more than max_tokens = "
            f"{settings.max_tokens} tokens, the longest {pairs.steps.max()}; set max_tokens higher"
        )
    left_out = len(pairs) - len(kept)
    if not left_out:
        return pairs, []
    what = f"{left_out} of {len(pairs)} pairs {use} are longer than {settings.max_tokens} tokens"
    return pairs.chosen(kept), [f"{what}; they were left out"]


def source_and_beginning(batch: Batch) -> tuple[Tensor, ...]:
    """Give a model the source and the target without its last token: it tells each next one."""
    source, target = batch
    return source, target[:, :-1]


def token_cross_entropy(output: Tensor, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of logits [n, t - 1, vocabulary] over the tokens after the first.

    Padding does not count.
    """
    return functional.cross_entropy(
        output.flatten(0, 1),
        batch[1][:, 1:].flatten(),
        ignore_index=PADDING,
        label_smoothing=label_smoothing,
    )


def distill_tokens(output: Tensor, teacher: Tensor, batch: Batch, temperature: float) -> Tensor:
    """Mean divergence from a teacher over the tokens that are no padding."""
    counted = batch[1][:, 1:] != PADDING
    return soft_cross_entropy(output[counted], teacher[counted], temperature)


def count_tokens(output: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """How many tokens are the likeliest of the logits, given those before; and of how many."""
    expected = batch[1][:, 1:]
    counted = expected != PADDING
    return ((output.argmax(2) == expected) & counted).sum(), counted.sum()


def translate(settings: TextSettings, model: Module, source: Tensor) -> Tensor:
    """Translate sources [n, s] to tokens [n, t]; see :mod:`pathlen.training.decoding`."""
    ends = {"begin": BEGIN, "end": END, "padding": PADDING, "max_length": settings.max_tokens}
    if settings.beam == 1:
        return greedy_search(model, source, **ends)
    width, exponent = settings.beam, settings.length_penalty
    return beam_search(model, source, **ends, width=width, length_penalty=exponent)


def translate_and_score(
    subwords: Subwords,
    settings: TextSettings,
    model: Module,
    data: PairSet,
    device: torch.device,
) -> dict[str, float]:
    """Translate the sources of a data set and compare with its targets.

    Args:
        subwords: The vocabulary.
        settings: See :class:`TextSettings`.
        model: From (source, target so far) to logits; evaluated in eval mode.
        data: The pairs.
        device: Where the model is.

    Returns:
        "bleu", from 0 to 100, by sacrebleu, and "exact", the share of lines that are right in
        every character.
    """
    # Lines of like length are translated together, so that little is padding.
    order = data.sources.lengths.argsort(stable=True)
    guesses, references = [], []
    with evaluating(model):
        for chosen in order.split(settings.decode_batch):
            source, target = data.get_batch(chosen, device)
            guesses += subwords.decode(translate(settings, model, source).tolist())
            references += subwords.decode(target.tolist())
    sacrebleu = library("sacrebleu", "sacrebleu")
    score = sacrebleu.corpus_bleu(guesses, [references], tokenize=settings.bleu_tokenizer)
    right = sum(guess == line for guess, line in zip(guesses, references, strict=True))
    return {"bleu": float(score.score), "exact": right / len(references)}


@contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Put a model in eval mode for a while; each module returns to the mode that it had."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
