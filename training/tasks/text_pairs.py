"""Any two languages: files of text whose lines belong together."""

from __future__ import annotations

from pathlib import Path

from pathlen.errors import DataError
from pathlen.training.task import Task
from pathlen.training.tasks.translation import TextSettings, translation_task


def text_pairs(
    *,
    train_source: str,
    train_target: str,
    test_source: str,
    test_target: str,
    vocabulary_size: int = 8_000,
    vocabulary: str | None = None,
    max_tokens: int = 128,
    beam: int = 4,
    length_penalty: float = 0.6,
    bleu_tokenizer: str = "13a",
) -> Task:
    """Make the task of translating the lines of one file to those of another.

    Pairs with an empty line are left out of those to train on.

    Args:
        train_source: File of lines to train on, UTF-8.
        train_target: Their translations, line by line.
        test_source: File of lines held out.
        test_target: Their translations.
        vocabulary_size: Largest number of subwords, at least 259.
        vocabulary: A file with the vocabulary of another run, to use instead.
        max_tokens: Longest source and target, in subwords.
        beam: Width of the beam search; 1 is greedy.
        length_penalty: Of the beam search.
        bleu_tokenizer: How sacrebleu tells words apart: "13a", "intl", "char", "zh", ...

    Raises:
        DataError: A file is missing, is not UTF-8, or two files have not as many lines.
        SettingsError: A library is not installed or a value is out of range.
    """
    files = {
        "train_source": train_source,
        "train_target": train_target,
        "test_source": test_source,
        "test_target": test_target,
    }
    missing = [f"{key} {name!r}" for key, name in files.items() if not Path(name).is_file()]
    if missing:
        raise DataError(
            f"text_pairs: there is no file {', '.join(missing)}; four text files are expected, the "
            "lines of each target being the translations of the lines of its source"
        )
    settings = TextSettings(
        vocabulary_size,
        vocabulary,
        max_tokens,
        beam,
        length_penalty,
        bleu_tokenizer=bleu_tokenizer,
    )
    train = [pair for pair in read_pairs(train_source, train_target) if all(pair)]
    return translation_task("text_pairs", train, read_pairs(test_source, test_target), settings)


def read_pairs(source: str, target: str) -> list[tuple[str, str]]:
    """Read two files line by line.

    Raises:
        DataError: They have not as many lines, or are not UTF-8.
    """
    left, right = _read_lines(Path(source)), _read_lines(Path(target))
    if len(left) != len(right):
        raise DataError(
            f"{source!r} has {len(left)} lines and {target!r} has {len(right)}: line by line they "
            "must be translations of each other"
        )
    return list(zip(left, right, strict=True))


def _read_lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{str(path)!r} is not UTF-8: {error}") from error
    # Not splitlines(), which also parts lines at rarer signs such as U+2028.
    return [line.strip() for line in text.removesuffix("\n").split("\n")]
