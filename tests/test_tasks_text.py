"""Tasks of translation: subwords, number words, files of lines, decoding and BLEU."""

from __future__ import annotations

import importlib
import itertools
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pathlen.errors import DataError, SettingsError
from pathlen.training.decoding import beam_search, greedy_search, next_scores, penalty
from pathlen.training.subwords import BEGIN, END, PADDING, SMALLEST, SPECIAL, Subwords
from pathlen.training.tasks import TASKS, build_task
from pathlen.training.tasks.number_words import apart, in_words, is_held_out, split_numbers

LINES = [in_words(number)[side] for number in range(300) for side in (0, 1)]

# --- subwords --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def subwords():
    return Subwords.train(LINES, 350)


def test_vocabularies_are_the_same_for_the_same_lines(subwords):
    text = subwords.to_json()
    assert Subwords.train(list(reversed(LINES)), 350).to_json() == text
    assert Subwords.from_json(text).to_json() == text
    assert len(subwords) == 350


def test_frequent_words_are_one_token(subwords):
    (tokens,) = subwords.encode(["zwei hundert"])
    assert len(tokens) == 2
    assert subwords.decode([[BEGIN, *tokens, END, PADDING]]) == ["zwei hundert"]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(TEXTS.filter(lambda text: not any(name in text for name in SPECIAL)))
def test_any_text_is_kept(text):
    assert ANY.decode(ANY.encode([text])) == [text]


ANY = Subwords.train(LINES[:50], 280)


def test_vocabularies_are_read_from_a_run(tmp_path, subwords):
    path = tmp_path / "tokenizer.json"
    path.write_text(subwords.to_json(), encoding="utf-8")
    assert Subwords.load(path).encode(LINES) == subwords.encode(LINES)
    with pytest.raises(DataError, match="there is no vocabulary"):
        Subwords.load(tmp_path / "other.json")


@pytest.mark.parametrize("text", ["", "{}", '{"version": "1.0"}'])
def test_other_files_are_no_vocabulary(text):
    with pytest.raises(DataError, match="no vocabulary of subwords"):
        Subwords.from_json(text)


def test_vocabularies_of_others_are_refused(subwords):
    with pytest.raises(DataError, match="must begin with <pad>, <begin>, <end>"):
        Subwords.from_json(subwords.to_json().replace("<pad>", "<unk>"))


def test_small_vocabularies_are_refused():
    with pytest.raises(SettingsError, match=f"at least {SMALLEST}.*not 100"):
        Subwords.train(LINES, 100)


# --- number words ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "english", "german"),
    [
        (0, "zero", "null"),
        (16, "sixteen", "sechzehn"),
        (21, "twenty-one", "ein und zwanzig"),
        (101, "one hundred and one", "ein hundert eins"),
        (217, "two hundred and seventeen", "zwei hundert siebzehn"),
        (66_030, "sixty-six thousand and thirty", "sechs und sechzig tausend dreißig"),
        (1_000_000, "one million", "eine Million"),
    ],
)
def test_numbers_in_words(number, english, german):
    assert in_words(number) == (english, german)


@given(st.integers(0, 10**9))
def test_parts_are_those_of_the_word(number):
    _, compound = in_words(number, compounds=True)
    words = apart(compound)
    assert words.replace(" ", "") == compound.replace(" ", "")
    shortest = {"ein", "elf", "und"}  # no part hides in another word
    assert all(len(word) > 3 or word in shortest for word in words.split())
    assert all(len(word) <= len("Milliarden") for word in words.split())


def test_numbers_held_out_are_never_trained_on():
    small = split_numbers(0, 5000, 100, 50, seed=1)
    large = split_numbers(0, 5000, 3000, 500, seed=1)
    for train, test in (small, large):
        assert not any(is_held_out(number, 1) for number in train)
        assert all(is_held_out(number, 1) for number in test)
        assert len(set(train)) == len(train)
        assert len(set(test)) == len(test)
    assert not set(large[0]) & set(small[1])
    assert small == split_numbers(0, 5000, 100, 50, seed=1)
    assert small != split_numbers(0, 5000, 100, 50, seed=2)


def test_long_ranges_are_not_written_out():
    train, test = split_numbers(10**12, 10**15, 200, 40, seed=0)
    assert len({*train, *test}) == 240
    assert min(train + test) >= 10**12


def test_ranges_that_are_too_short_are_refused():
    with pytest.raises(SettingsError, match=r"between 3 and 9 there are \d numbers to train on"):
        split_numbers(3, 9, 100, 1, seed=0)
    with pytest.raises(SettingsError, match="0 <= first <= last, not 9 and 3"):
        build_task({"name": "number_words", "first": 9, "last": 3})
    with pytest.raises(SettingsError, match="must be positive"):
        build_task({"name": "number_words", "test_size": 0})


SMALL = {"name": "number_words", "last": 999, "train_size": 60, "test_size": 20}


@pytest.fixture(scope="module")
def task():
    return build_task({**SMALL, "vocabulary_size": 300})


def test_number_words(task):
    again = build_task({**SMALL, "vocabulary_size": 300})
    assert (task.train_size, task.test_size, task.metric) == (60, 20, "bleu")
    assert task.artifacts == again.artifacts
    subwords = Subwords.from_json(task.artifacts["tokenizer.json"])
    assert task.model_arguments == {"vocabulary_size": 300, "padding": 0, "max_length": 64}
    source, target = task.train[3]
    assert torch.equal(again.train[3][1], target)
    assert (source[-1], target[0], target[-1]) == (END, BEGIN, END)
    pairs = {in_words(number) for number in range(1000)}
    assert tuple(subwords.decode([source.tolist(), target.tolist()])) in pairs


def test_batches_are_padded_and_padding_does_not_count(task):
    items = [task.train[index] for index in range(8)]
    source, target = batch = task.train.get_batch(torch.arange(8), torch.device("cpu"))
    assert source.shape == (8, max(len(item[0]) for item in items))
    inputs = task.inputs(batch)
    assert torch.equal(inputs[1], target[:, :-1])
    logits = torch.randn(*inputs[1].shape, 300)
    total = right = loss = 0
    for row, (_, tokens) in enumerate(items):  # one by one, without padding
        each = nn.functional.cross_entropy(
            logits[row, : len(tokens) - 1], tokens[1:], reduction="sum", label_smoothing=0.1
        )
        loss += each.item()
        total += len(tokens) - 1
        right += (logits[row, : len(tokens) - 1].argmax(1) == tokens[1:]).sum().item()
    assert task.loss(logits, batch, 0.1).item() == pytest.approx(loss / total, rel=1e-5)
    assert [int(number) for number in task.counts(logits, batch)] == [right, total]


class Oracle(nn.Module):
    """A model that knows the translations of some numbers."""

    def __init__(self, pairs, vocabulary):
        super().__init__()
        self.dropout = nn.Dropout(0.9)
        self.known = {tuple(source.tolist()): target.tolist() for source, target in pairs}
        self.vocabulary = vocabulary

    def forward(self, source, target):
        assert not self.training
        logits = torch.zeros(*target.shape, self.vocabulary)
        for row, (tokens, so_far) in enumerate(zip(source.tolist(), target.tolist(), strict=True)):
            answer = self.known[tuple(token for token in tokens if token != PADDING)]
            if so_far == answer[: len(so_far)] and len(so_far) < len(answer):
                logits[row, -1, answer[len(so_far)]] = 9.0
        return logits


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("compounds", [False, True])
def test_perfect_translations_have_bleu_100(beam, compounds):
    task = build_task({**SMALL, "beam": beam, "compounds": compounds, "max_tokens": 48})
    model = Oracle(task.test, task.model_arguments["vocabulary_size"]).train()
    scores = task.decode(model, task.test, torch.device("cpu"))
    assert scores == {"bleu": pytest.approx(100), "exact": 1}
    assert model.training
    assert model.dropout.training


def test_bleu_is_that_of_the_words(task):
    sacrebleu = pytest.importorskip("sacrebleu")
    subwords = Subwords.from_json(task.artifacts["tokenizer.json"])
    wrong = [(task.test[k][0], task.test[(k + 1) % 20][1]) for k in range(20)]
    scores = task.decode(Oracle(wrong, 300), task.test, torch.device("cpu"))
    references = subwords.decode([target.tolist() for _, target in task.test])
    guesses = references[1:] + references[:1]
    expected = sacrebleu.corpus_bleu(guesses, [references]).score
    assert scores == {"bleu": pytest.approx(expected), "exact": 0}
    assert 0 < expected < 50


# --- files of lines --------------------------------------------------------------------------


def write_pairs(folder, count=30):
    settings = {"name": "text_pairs", "vocabulary_size": 300, "beam": 1}
    for part, start in (("train", 0), ("test", 1000)):
        pairs = [in_words(number) for number in range(start, start + count)]
        for side, lines in zip(("source", "target"), zip(*pairs, strict=True), strict=True):
            path = folder / f"{part}.{side}"
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
            settings[f"{part}_{side}"] = str(path)
    return settings


def test_text_pairs(tmp_path):
    settings = write_pairs(tmp_path)
    task = build_task(settings)
    assert (task.train_size, task.test_size, task.notes) == (30, 30, ())
    subwords = Subwords.from_json(task.artifacts["tokenizer.json"])
    source, target = task.test[2]
    pair = subwords.decode([source.tolist(), target.tolist()])
    assert pair == ["one thousand and two", "ein tausend zwei"]
    (tmp_path / "tokenizer.json").write_text(task.artifacts["tokenizer.json"], encoding="utf-8")
    again = build_task({**settings, "vocabulary": str(tmp_path / "tokenizer.json")})
    assert again.artifacts == task.artifacts


def test_lines_too_long_to_train_on_are_left_out_and_said(tmp_path):
    settings = write_pairs(tmp_path)
    for side, first in (("source", 0x400), ("target", 0x3000)):
        long = "".join(chr(first + place) for place in range(100))
        with (tmp_path / f"train.{side}").open("a", encoding="utf-8") as file:
            file.write(long + "\n" + "\n")  # and an empty line
    task = build_task({**settings, "max_tokens": 60})
    assert task.train_size == 30
    assert task.notes == (
        "1 of 31 pairs to train on are longer than 60 tokens; they were left out",
    )
    with pytest.raises(
        DataError, match=r"all 30 pairs held out have .* the longest \d+; set max_tok"
    ):
        build_task({**settings, "max_tokens": 2})


def test_lines_held_out_that_are_too_long_are_left_out_and_said(tmp_path):
    settings = write_pairs(tmp_path)
    for side in ("source", "target"):
        with (tmp_path / f"test.{side}").open("a", encoding="utf-8") as file:
            file.write("".join(chr(0x400 + place) for place in range(100)) + "\n")
    task = build_task({**settings, "max_tokens": 60})
    assert (task.train_size, task.test_size) == (30, 30)
    assert task.notes == ("1 of 31 pairs held out are longer than 60 tokens; they were left out",)
    assert build_task({**settings, "max_tokens": 400}).test_size == 31
    for side in ("source", "target"):
        (tmp_path / f"test.{side}").write_text("nine hundred and ninety-nine thousand\n" * 2)
    with pytest.raises(DataError, match=r"all 2 pairs held out have more than max_tokens = 4 "):
        build_task({**settings, "max_tokens": 4})


def test_missing_files_are_named(tmp_path):
    settings = write_pairs(tmp_path)
    (tmp_path / "train.target").unlink()
    (tmp_path / "test.source").unlink()
    with pytest.raises(DataError, match=r"train_target '.*train\.target', test_source") as error:
        build_task(settings)
    assert "four text files are expected" in str(error.value)


def test_files_of_other_lengths_and_encodings_are_refused(tmp_path):
    settings = write_pairs(tmp_path)
    path = tmp_path / "train.source"
    path.write_text(path.read_text(encoding="utf-8") + "one more\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"has 31 lines and .* has 30"):
        build_task(settings)
    path.write_bytes("dreißig\n".encode("latin-1") * 30)
    with pytest.raises(DataError, match=r"train\.source' is not UTF-8"):
        build_task(settings)
    for side in ("source", "target"):
        (tmp_path / f"train.{side}").write_text("")
    with pytest.raises(DataError, match="no pair of lines to train on"):
        build_task(settings)


def test_values_out_of_range_are_refused(tmp_path):
    with pytest.raises(SettingsError, match="beam must be at least 1"):
        build_task({**write_pairs(tmp_path), "beam": 0})


def test_every_task_has_a_function_of_its_name():
    for name, module in TASKS.items():
        assert callable(getattr(importlib.import_module(module), name))


def test_libraries_that_are_not_there_are_named(monkeypatch):
    def fail(module):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module.partition(".")[0])

    monkeypatch.setattr("pathlen.optional.importlib.import_module", fail)
    with pytest.raises(SettingsError, match=re.escape("pip install 'pathlen[train]'")):
        in_words(3)


# --- decoding --------------------------------------------------------------------------------

VOCABULARY = 5
ENDS = {"begin": BEGIN, "end": END, "padding": PADDING}


class Table(nn.Module):
    """Logits that depend on the source and on the last three tokens, drawn at random."""

    def __init__(self, seed, scale):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.logits = scale * torch.randn([VOCABULARY] * 5, generator=generator)

    def forward(self, source, target):
        padded = nn.functional.pad(target, (2, 0))
        last = padded.unfold(1, 3, 1)  # [n, t, 3]
        first = source[:, :1].expand_as(target)
        return self.logits[first, last[..., 0], last[..., 1], last[..., 2]]


def all_targets(max_length):
    """Every target of at most so many tokens; those without an end are as long as may be."""
    texts = [token for token in range(VOCABULARY) if token not in (BEGIN, END, PADDING)]
    for length in range(max_length + 1):
        for tokens in itertools.product(texts, repeat=length):
            if length < max_length:
                yield (*tokens, END)
            else:
                yield tokens


def score(model, source, tokens, exponent):
    total = 0.0
    for place, token in enumerate(tokens):
        prefix = torch.tensor([[BEGIN, *tokens[:place]]])
        total += next_scores(model, source, prefix, BEGIN, PADDING)[0, token].item()
    return total / penalty(torch.tensor(float(len(tokens))), exponent).item()


def unpadded(row):
    return tuple(token for token in row.tolist() if token != PADDING)


SOURCES = torch.tensor([[0, 1], [3, 1], [4, 4], [2, 0]])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("exponent", [0.0, 0.6, 2.0])
def test_a_wide_beam_finds_the_best_of_all_targets(seed, exponent):
    model, length = Table(seed, 2.0), 5
    found = beam_search(
        model, SOURCES, **ENDS, max_length=length, width=80, length_penalty=exponent
    )
    for row in range(len(SOURCES)):
        source = SOURCES[row : row + 1]
        scores = {one: score(model, source, one, exponent) for one in all_targets(length)}
        ended = {one: value for one, value in scores.items() if END in one}
        assert unpadded(found[row]) == max(ended, key=ended.__getitem__)


@given(st.integers(0, 1000), st.sampled_from([0.5, 2.0, 6.0]), st.sampled_from([0.0, 0.6, 2.0]))
def test_a_beam_of_one_is_greedy(seed, scale, exponent):
    model = Table(seed, scale)
    greedy = greedy_search(model, SOURCES, **ENDS, max_length=7)
    beam = beam_search(model, SOURCES, **ENDS, max_length=7, width=1, length_penalty=exponent)
    assert torch.equal(greedy, beam)


@given(st.integers(0, 1000), st.integers(1, 5))
def test_rows_do_not_depend_on_each_other(seed, width):
    model = Table(seed, 3.0)
    together = beam_search(model, SOURCES, **ENDS, max_length=6, width=width)
    for row in range(len(SOURCES)):
        alone = beam_search(model, SOURCES[row : row + 1], **ENDS, max_length=6, width=width)
        assert unpadded(alone[0]) == unpadded(together[row])


@given(st.integers(0, 1000))
def test_greedy_takes_the_likeliest_token_and_stops_at_the_end(seed):
    model = Table(seed, 1.0)
    for source, row in zip(
        SOURCES, greedy_search(model, SOURCES, **ENDS, max_length=6), strict=True
    ):
        tokens = unpadded(row)
        assert END not in tokens[:-1]
        assert tokens[-1] == END or len(tokens) == 6
        for place, token in enumerate(tokens):
            prefix = torch.tensor([[BEGIN, *tokens[:place]]])
            scores = next_scores(model, source[None], prefix, BEGIN, PADDING)
            assert scores[0].argmax() == token
            assert scores[0, [BEGIN, PADDING]].max() == -torch.inf


def test_a_model_that_never_ends_is_stopped():
    def model(source, target):
        return torch.tensor([0.0, 0, -1e9, 1, 0]).expand(*target.shape, -1)

    assert greedy_search(model, SOURCES, **ENDS, max_length=4).tolist() == [[3] * 4] * 4
    assert beam_search(model, SOURCES, **ENDS, max_length=4, width=2).tolist() == [[3] * 4] * 4
