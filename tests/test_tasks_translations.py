"""Multi30k and Tatoeba: what is read, what is held out, and that it is kept apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathlen.errors import DataError, SettingsError
from pathlen.training.subwords import Subwords
from pathlen.training.tasks import build_task
from pathlen.training.tasks.tatoeba import is_held_out, split, words

SMALL = {"vocabulary_size": 300, "beam": 1}


def texts(task, data):
    """The pairs of a data set, as texts again."""
    subwords = Subwords.from_json(task.artifacts["tokenizer.json"])
    return [tuple(subwords.decode([source.tolist(), target.tolist()])) for source, target in data]


def write_lines(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in files.items():
        path = folder / name.replace("__", ".")
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


# --- Multi30k --------------------------------------------------------------------------------


@pytest.fixture
def captions(tmp_path):
    files = {
        f"{part}__{language}": [f"{part} {language} {index}" for index in range(number)]
        for part, number in (("train", 40), ("val", 6), ("test_2016_flickr", 5))
        for language in ("en", "de", "fr")
    }
    write_lines(tmp_path / "multi30k", **files)
    return tmp_path


def test_multi30k(captions):
    task = build_task({"name": "multi30k", "folder": str(captions), **SMALL})
    assert (task.train_size, task.test_size, task.metric, task.notes) == (40, 5, "bleu", ())
    assert texts(task, task.train)[7] == ("train en 7", "train de 7")
    assert texts(task, task.test)[2] == ("test_2016_flickr en 2", "test_2016_flickr de 2")
    settings = {"source": "fr", "target": "en", "held_out": "val", **SMALL}
    task = build_task({"name": "multi30k", "folder": str(captions / "multi30k"), **settings})
    assert texts(task, task.test)[5] == ("val fr 5", "val en 5")


def test_parts_of_the_pairs_are_nested(captions):
    parts = []
    for size in (5, 20, 40):
        settings = {"train_size": size, "subset_seed": 3, **SMALL}
        task = build_task({"name": "multi30k", "folder": str(captions), **settings})
        parts.append(texts(task, task.train))
        assert (task.train_size, task.test_size) == (size, 5)
    assert set(parts[0]) < set(parts[1]) < set(parts[2])
    assert parts[1] == [pair for pair in parts[2] if pair in parts[1]]  # in the order of the file
    assert parts[0] != parts[2][:5]
    with pytest.raises(SettingsError, match="train_size must be from 1 to 40, not 41"):
        build_task({"name": "multi30k", "folder": str(captions), "train_size": 41})


def test_missing_captions_are_named_with_the_command_that_gets_them(captions):
    with pytest.raises(DataError, match=r"no train\.cs, test_2016_flickr\.cs in") as error:
        build_task({"name": "multi30k", "folder": str(captions), "target": "cs"})
    assert f"`pathlen data get multi30k --folder {captions}`" in str(error.value)
    with pytest.raises(SettingsError, match="source and target are both 'de'"):
        build_task({"name": "multi30k", "folder": str(captions), "source": "de"})


# --- Tatoeba ---------------------------------------------------------------------------------

SENTENCES = st.lists(
    st.tuples(st.sampled_from(["Go!", "go", "GO.", "Hi", "Who?", "I am he", "…", "?"]), st.text())
)


@given(SENTENCES, st.floats(0.1, 0.9), st.integers(0, 5))
def test_a_sentence_held_out_is_held_out_with_all_its_translations(pairs, share, seed):
    train, test = split(pairs, share, seed)
    assert not {words(source) for source, _ in train} & {words(source) for source, _ in test}
    assert len({words(source) for source, _ in test}) == len(test)  # each is translated once
    assert {words(source) for source, _ in [*train, *test]} == {words(pair[0]) for pair in pairs}
    assert [pair for pair in pairs if not is_held_out(pair[0], share, seed)] == train
    for pair in test:  # the first translation
        assert pair == next(other for other in pairs if words(other[0]) == words(pair[0]))


def test_what_is_held_out_depends_on_the_words_alone():
    assert words("Don't  GO, Straße!") == words("don't go strasse") == "don t go strasse"
    assert words("…") == "…"
    sentences = [f"Sentence number {number}." for number in range(4000)]
    held_out = {s for s in sentences if is_held_out(s, 0.1, 0)}
    assert 330 < len(held_out) < 470  # 400, with a deviation of 19
    assert held_out == {s for s in sentences if is_held_out(s.upper()[:-1] + " !", 0.1, 0)}
    assert held_out < {s for s in sentences if is_held_out(s, 0.2, 0)}
    assert held_out != {s for s in sentences if is_held_out(s, 0.1, 1)}


def test_the_split_is_the_same_everywhere():
    # Fixed: other machines and later releases must hold out the same sentences.
    numbers = [number for number in range(400) if is_held_out(f"Sentence {number}", 0.02, 0)]
    assert numbers == [5, 17, 54, 138, 150, 370, 399]


def table(number=200):
    lines = []
    for index in range(number):
        lines += [f"I have {index}.\tIch habe {index}.\tCC-BY 2.0 (France) by x & y"]
        lines += [f"I have {index}!\tIch hab' {index}!"]
    return lines


def test_tatoeba_from_the_table(tmp_path):
    write_lines(tmp_path / "tatoeba", deu__txt=table())
    settings = {"test_share": 0.2, **SMALL}
    task = build_task({"name": "tatoeba", "folder": str(tmp_path), **settings})
    train, test = texts(task, task.train), texts(task, task.test)
    assert len(train) + 2 * len(test) == 400
    assert 20 < len(test) < 60
    assert ("I have 7.", "Ich habe 7.") in train + test
    assert not {words(source) for source, _ in train} & {words(source) for source, _ in test}
    turned = build_task({"name": "tatoeba", "folder": str(tmp_path), "source": "de", **settings})
    assert ("Ich habe 7.", "I have 7.") in texts(turned, turned.train) + texts(turned, turned.test)
    with pytest.raises(SettingsError, match="test_share must be between 0 and 1, not 0"):
        build_task({"name": "tatoeba", "folder": str(tmp_path), "test_share": 0})


def test_tatoeba_from_files_that_are_split(tmp_path):
    english = [line.split("\t")[0] for line in table(20)]
    german = [line.split("\t")[1] for line in table(20)]
    lines = {"train__en": english, "train__de": german}
    write_lines(tmp_path, **lines, test__en=["i have 3", "It is new."], test__de=["A", "B"])
    task = build_task({"name": "tatoeba", "folder": str(tmp_path), **SMALL})
    assert texts(task, task.test) == [("i have 3", "A"), ("It is new.", "B")]
    assert task.train_size == 38
    assert task.notes == (
        "2 of 40 pairs to train on have the words of a source sentence held out; they were left "
        "out",
    )
    with pytest.raises(SettingsError, match="is split already; leave test_share out"):
        build_task({"name": "tatoeba", "folder": str(tmp_path), "test_share": 0.1})


def test_missing_and_broken_tables_are_named(tmp_path):
    with pytest.raises(DataError, match=r"no deu\.txt \(or train\.en, .*data get tatoeba --folder"):
        build_task({"name": "tatoeba", "folder": str(tmp_path)})
    write_lines(tmp_path, deu__txt=["Go.\tGeh.", "Hi. Hallo."])
    with pytest.raises(DataError, match=r"line 2 of .*deu\.txt' has no tab.*not 'Hi\. Hallo\.'"):
        build_task({"name": "tatoeba", "folder": str(tmp_path)})
