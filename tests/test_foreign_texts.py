"""Names and values from elsewhere: in messages, in YAML and JSON, with limits on all of them."""

from __future__ import annotations

import csv
import io
import json
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pathlen
from pathlen.errors import DataError, GraphFileError, PathlenError, SettingsError
from pathlen.json_text import read_json
from pathlen.printable import message, printable, shown, spreadsheet_cell
from pathlen.training import build_task, load_recipe, make_recipe
from pathlen.training.keywords import call_with_settings
from pathlen.training.study import load_study, make_study
from pathlen.training.yaml_text import read_yaml_text
from tests.training_runs import TINY, changed

ODD = {
    "a terminal's escape": "\x1b]0;owned\x07\x1b[2J",
    "direction": "abc\u202egpj.exe\u2066",
    "half a pair": "a\ud800b",
    "line ends": "a\nb\r\nc\u2028d\x85e",
    "no width": "a\u200b\ufeffb",
    "null": "a\0b",
    "long": "n" * 10_000,
    "long and odd": "\x1b\u202e" * 5_000,
}


# --- texts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ODD)
def test_odd_names_become_one_line_that_can_be_printed(name):
    for text in (printable(ODD[name]), shown(ODD[name]), str(PathlenError(f"no {ODD[name]!s} "))):
        assert text.replace("\n", "").isprintable()
        assert len(text) <= 1000
        text.encode("utf-8")
    assert "\n" not in printable(ODD[name])


@given(st.text(max_size=300))
def test_texts_that_can_be_printed_stay(text):
    assert printable(text).isprintable() or "\u3000" in text
    assert len(printable(text)) <= 200
    if text.isprintable() and len(text) <= 200:
        assert printable(text) == text
    assert printable(printable(text)) == printable(text)


def test_escapes_say_what_there_was():
    assert printable("a\x1b[31mb\u202ec\ud800d\U000e0001") == r"a\x1b[31mb\u202ec\ud800d\U000e0001"
    assert printable("größe 層 ½") == "größe 層 ½"
    assert printable("x" * 300) == "x" * 99 + "..." + "x" * 98
    assert message("one\ntwo\x07\n" + "y" * 3000).split("\n")[1] == r"two\x07"


def test_values_are_cut_before_they_are_written_out():
    begun = time.process_time()
    for value in (10**100_000, "x" * 10**7, [[[["y"] * 1000] * 1000] * 1000] * 1000, b"z" * 10**7):
        assert len(shown(value)) <= 200
    assert time.process_time() - begun < 5  # of the processor: [[[[...]]]] has 10^12 values
    assert shown(10**5000) == "a number of about 4983 digits"
    assert shown({"b": 1, "a": [2, 3]}) == "{'b': 1, 'a': [2, 3]}"


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(1)", "'@SUM(1)"),
        ("\t=1", r"\t=1"),
        ("\r=1", r"\r=1"),
        ("\n=1", r"\n=1"),
        (" =1", "' =1"),
        ("\uff1d1+1", "'\uff1d1+1"),
        ("-1.5", "-1.5"),
        ("+1e-3", "+1e-3"),
        (-1.5, -1.5),
        (-3, -3),
        (None, None),
        ("layer.0", "layer.0"),
        ("", ""),
        (" ", " "),
        ('a"b,c', 'a"b,c'),
    ],
)
def test_cells_are_no_formulas(value, cell):
    assert spreadsheet_cell(value) == cell


# --- messages --------------------------------------------------------------------------------

HUGE = "\x1b\u202e" + "h" * 100_000


BAD_VALUES = {
    "text": HUGE,
    "list": [HUGE] * 1000,
    "mapping": {HUGE: HUGE},
    "digits": 10**4000,
    "negative": -1e300,
    "nested": [[[[[]]]]],
}
KEYS = [
    *("seed", "batch_size", "task", "model", "optimizer", "schedule", "linearize", "machine"),
    *("linearize__prior", "linearize__prior__target_units", "weights", "clip_norm", "train"),
    *("weights__rename", "optimizer__name", "linearize__baseline", "task__classes"),
]


@pytest.mark.parametrize("bad", BAD_VALUES)
@pytest.mark.parametrize("key", [*KEYS, "a key that is long"])
def test_messages_on_settings_are_short(key, bad):
    key = key if key in KEYS else HUGE

    def make():
        build_task(make_recipe(changed(TINY, **{key: BAD_VALUES[bad]})).task)

    if (bad, key) in (("text", "weights"), ("mapping", "model")):
        return  # any text is a path, and any mapping settings of a model
    with pytest.raises(SettingsError) as caught:
        make()
    assert len(str(caught.value)) < 5000
    assert str(caught.value).replace("\n", "").isprintable()


def test_many_problems_are_counted():
    with pytest.raises(SettingsError, match="and 4980 more problems") as caught:
        make_recipe(TINY | {f"key{number}": 1 for number in range(5000)})
    assert len(str(caught.value)) < 5000

    def function(*, width: int) -> None: ...

    with pytest.raises(SettingsError, match="more problems") as caught:
        call_with_settings(function, {f"key{number}": HUGE for number in range(5000)}, "model 'm'")
    assert len(str(caught.value)) < 5000


@pytest.mark.parametrize("name", [HUGE, "a\0b", "../" * 3000, "x" * 300, ""])
def test_names_of_files_that_can_be_none(name):
    for load in (load_recipe, load_study):
        for whole in (name, f"{name}.yaml"):
            with pytest.raises(SettingsError) as caught:
                load(whole)
            assert len(str(caught.value)) < 2000


def test_no_number_is_infinite():
    for value in (float("inf"), float("nan"), 10**30):
        with pytest.raises(SettingsError, match="classes must be"):
            build_task({"name": "digits", "classes": value})
    for key in ("train__epochs", "batch_size", "linearize__start"):
        with pytest.raises(SettingsError, match="less than"):
            make_recipe(changed(TINY, **{key: 10**30}))


# --- YAML ------------------------------------------------------------------------------------


def nine(of: str, more: str = "{}") -> str:
    """Nine levels of nine aliases each."""
    lines = [f"a: &a {of}"]
    for one, two in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{two}: &{two} " + more.format("[" + ", ".join([f"*{one}"] * 9) + "]"))
    return "\n".join(lines)


BAD_YAML = {
    "aliases": (nine("[x, x, x, x, x, x, x, x, x]"), "more than 20,000 values, aliases written"),
    "merged": (nine("{x: 1}", "{{<<: {}}}"), "more than 20,000 values, aliases written out"),
    "many": ("a: [" + "1," * 30_000 + "]", "more than 20,000 values"),
    "large": ("a: " + "x" * 300_000, "has 300,003 characters"),
    "brackets": ("a: " + "[" * 5000 + "]" * 5000, "nested more than 32 levels deep"),
    "open brackets": ("{a: " * 5000, "nested more than 32 levels deep"),
    "keys": ("? " * 5000, "nested more than 32 levels deep"),
    "levels by an alias": (
        "a: &a " + "[" * 20 + "]" * 20 + "\nb: " + "[" * 20 + "*a" + "]" * 20,
        "nested more than 32 levels deep",
    ),
    "in itself": ("a: &a [1, *a]", "an alias of what it lies in"),
    "merged in itself": ("a: &a {<<: *a}", "an alias of what it lies in"),
    "digits": ("seed: " + "9" * 5000, "a number of 5000 characters"),
    "hexadecimal": ("seed: 0x" + "f" * 5000, "a number of 5002 characters"),
    "to the base 60": ("seed: " + ":".join(["1"] * 999), "a number of 1997 characters"),
    "no int": ("a: !!int x", "no value of the type 'tag:yaml.org,2002:int'"),
    "no digits": ('a: !!int ""', "no value of the type"),
    "no bool": ("a: !!bool x", "no value of the type"),
    "no float": ("a: !!float x", "no value of the type"),
    "bytes": ("a: !!binary aaaa", "could not determine a constructor"),
    "a set": ("a: !!set {b}", "could not determine a constructor"),
    "Python": ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
    "a key that is a number": ("1: a", "the key 1 is no text"),
    "a key that is a list": ("? [a]\n: b", "a key is no text"),
    "a key twice": ("a: 1\na: 2", "the key 'a' is given twice"),
    "a control character": ("a: \x07", "special characters are not allowed"),
    "no letter": ('a: "\\U00110000"', "is not valid YAML: .*range"),
    "no version": ("%YAML 1." + "9" * 5000 + "\n---\na: 1", "is not valid YAML: .*limit"),
    "no mapping": ("a: !!map b", "this is no mapping"),
    "two texts": ("a: 1\n---\nb: 2", "expected a single document"),
}


@pytest.mark.parametrize("name", BAD_YAML)
def test_hostile_yaml_is_refused_at_once(name, tmp_path):
    text, message = BAD_YAML[name]
    begun = time.process_time()
    with pytest.raises(SettingsError, match=message) as caught:
        read_yaml_text(text, "recipe.yaml")
    assert len(str(caught.value)) < 1000
    (tmp_path / "recipe.yaml").write_text(text)
    for load in (load_recipe, load_study):
        with pytest.raises(SettingsError, match=message):
            load(tmp_path / "recipe.yaml")
    value = text.partition("a: ")[2]
    if name in ("brackets", "digits", "large"):
        with pytest.raises(SettingsError) as caught:
            load_recipe("digits", [f"seed={value or '9' * 5000}"])
        assert len(str(caught.value)) < 1000
    assert time.process_time() - begun < 20  # of the processor; 9^9 values would take hours


def test_usual_yaml_is_read():
    text = "base: &b {x: 1, y: [1, 2]}\nc: {<<: *b, x: 2}\nd: *b\ne: 1e-4\nf: 2024-01-02\ng: 0x10"
    found = read_yaml_text(text, "here")
    assert found == {
        "base": {"x": 1, "y": [1, 2]},
        "c": {"x": 2, "y": [1, 2]},
        "d": {"x": 1, "y": [1, 2]},
        "e": 1e-4,
        "f": "2024-01-02",
        "g": 16,
    }
    found["d"]["y"].append(3)  # aliases are not shared: an override changes one place
    assert found["base"]["y"] == [1, 2]


@pytest.mark.parametrize("override", [".".join("a" * 5000) + "=1", "a" * 10**5, "=" + "1" * 10**5])
def test_overrides_are_bounded(override):
    with pytest.raises(SettingsError) as caught:
        load_recipe("digits", [override])
    assert len(str(caught.value)) < 1000


def test_studies_tell_wrong_values_in_short():
    for key in ("seeds", "grid", "cases", "verdict", "figure", "recipe"):
        with pytest.raises(SettingsError) as caught:
            make_study({"name": "s", "recipe": TINY, key: [HUGE] * 10})
        assert len(str(caught.value)) < 5000


# --- JSON ------------------------------------------------------------------------------------

BAD_JSON = {
    "deep": "[" * 100_000,
    "rather deep": "[" * 100 + "]" * 100,
    "NaN": '{"a": NaN}',
    "infinity": "[-Infinity]",
    "too large": "[1e999]",
    "digits": "[" + "9" * 5000 + "]",
    "cut": '{"a": [1,',
    "empty": "",
    "no UTF-8": b"\xff\xfe\x00",
    "two": "{} {}",
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_hostile_json_is_refused(name):
    with pytest.raises(DataError, match=r"^file\.json") as caught:
        read_json(BAD_JSON[name], "file.json", DataError)
    assert len(str(caught.value)) < 1000
    with pytest.raises(DataError, match=r"is larger than the 10 bytes"):
        read_json(" " * 11, "file.json", DataError, longest=10)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**300), 10**300) | st.text()
        | st.floats(allow_nan=False, allow_infinity=False),
        lambda part: st.lists(part) | st.dictionaries(st.text(), part),
    )
)  # fmt: skip
def test_any_json_comes_back(value):
    assert read_json(json.dumps(value), "here", DataError) == value


@pytest.mark.parametrize("name", BAD_JSON)
def test_hostile_json_in_readers(name, tmp_path):
    text = BAD_JSON[name]
    data = text if isinstance(text, bytes) else text.encode()
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(data + b"\n")
    with pytest.raises(DataError, match=r"metrics\.jsonl"):
        pathlen.figures.plot_training(path)
    pathlen.PathGraph.from_edges([(0, 1)], activity=[0, 0]).save(tmp_path / "graph.npz")
    with np.load(tmp_path / "graph.npz") as stored:
        arrays = dict(stored)
    arrays["tables"] = np.frombuffer(data, dtype=np.uint8)
    np.savez(tmp_path / "graph.npz", **arrays)
    with pytest.raises(GraphFileError, match=r"graph\.npz") as caught:
        pathlen.PathGraph.load(tmp_path / "graph.npz")
    assert len(str(caught.value)) < 1000


def test_csv_comes_back_as_cells():
    """The apostrophe is part of the cell, whatever is in it."""
    file = io.StringIO()
    csv.writer(file).writerow([spreadsheet_cell(text) for text in ('=a"b', "x,y", "-1", -1)])
    assert [*csv.reader(io.StringIO(file.getvalue()))] == [["'=a\"b", "x,y", "-1", "-1"]]


def test_the_limit_of_python_for_digits_is_as_usual():
    assert sys.get_int_max_str_digits() == 4300
