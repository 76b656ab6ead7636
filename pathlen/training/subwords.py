"""Subword vocabularies: byte-pair encoding by the `tokenizers` library.

Source: Rico Sennrich, Barry Haddow, Alexandra Birch, "Neural Machine Translation of Rare Words with
Subword Units", ACL 2016, arXiv:1508.07909.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathlen.errors import DataError, SettingsError
from pathlen.training.libraries import library

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = ("<pad>", "<begin>", "<end>")
PADDING, BEGIN, END = range(len(SPECIAL))
"""Tokens that stand for no text: they fill up a batch, begin and end a line."""

SMALLEST = len(SPECIAL) + 256
"""A vocabulary holds every byte, so that any text can be written in it."""


class Subwords:
    """A vocabulary of pieces of words, the same for source and target.

    Pieces are byte strings that the training lines have often; every single byte is one, so that
    `decode(encode(line)) == line` for any line without the special tokens in it.

    Args:
        tokenizer: Made by :meth:`train` or :meth:`from_json`.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    @classmethod
    def train(cls, lines: Iterable[str], vocabulary_size: int) -> Subwords:
        """Make the vocabulary of lines of text. The same lines give the same vocabulary.

        Args:
            lines: Texts to train on, in any order.
            vocabulary_size: Largest number of tokens, the special ones and the 256 bytes included;
                short texts give fewer.

        Raises:
            SettingsError: The vocabulary is too small for the bytes.
        """
        if vocabulary_size < SMALLEST:
            raise SettingsError(
                f"vocabulary_size must be at least {SMALLEST} (256 bytes and {len(SPECIAL)} "
                f"special tokens), not {vocabulary_size}"
            )
        tokenizers = library("tokenizers", "tokenizers")
        pre_tokenizers = library("tokenizers.pre_tokenizers", "tokenizers")
        decoders = library("tokenizers.decoders", "tokenizers")
        trainers = library("tokenizers.trainers", "tokenizers")
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary_size,
            min_frequency=2,
            special_tokens=list(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(lines, trainer)
        return cls(tokenizer)

    @classmethod
    def from_json(cls, text: str) -> Subwords:
        """Read what :meth:`to_json` wrote.

        Raises:
            DataError: The text is something else.
        """
        tokenizers = library("tokenizers", "tokenizers")
        try:
            tokenizer = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises Exception itself
            raise DataError(f"this is no vocabulary of subwords: {error}") from error
        if [tokenizer.token_to_id(name) for name in SPECIAL] != list(range(len(SPECIAL))):
            raise DataError(
                f"a vocabulary of subwords must begin with {', '.join(SPECIAL)}: this one was not "
                "made by pathlen"
            )
        return cls(tokenizer)

    @classmethod
    def load(cls, path: Path) -> Subwords:
        """Read a file that holds what :meth:`to_json` gave.

        Raises:
            DataError: There is no such file, or it holds something else.
        """
        if not path.is_file():
            raise DataError(
                f"there is no vocabulary {str(path)!r} (a run keeps its tokenizer.json)"
            )
        return cls.from_json(path.read_text(encoding="utf-8"))

    def to_json(self) -> str:
        """Write the vocabulary as JSON."""
        return self._tokenizer.to_str(pretty=True)

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size()

    def encode(self, lines: Sequence[str]) -> list[list[int]]:
        """Give the tokens of lines of text, without special ones."""
        encoded: list[Any] = self._tokenizer.encode_batch(list(lines), add_special_tokens=False)
        return [one.ids for one in encoded]

    def decode(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """Give the texts of sequences of tokens; special ones are left out."""
        return self._tokenizer.decode_batch([list(one) for one in tokens])
