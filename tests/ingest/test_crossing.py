"""Values across a border: random extractions come back as they were, and nothing else comes in."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Literal, NewType, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from ingest.crossing import LONGEST_STRING, Message, NotAsAgreed, pack, receive, send, unpack
from ingest.limits import UPLOADS, MediaLimits
from ingest.sandboxed import Reply
from ingest.track import Extraction, Span, SpeechTurn


def drawn(hint):
    """Values of any annotation that a dataclass of an extraction has, so that a new field is drawn as well."""
    if hint in SPECIAL:
        return SPECIAL[hint]
    if isinstance(hint, NewType):
        return drawn(hint.__supertype__)
    if is_dataclass(hint):
        return st.builds(hint, **fields_of(hint))
    kinds = get_args(hint)
    if get_origin(hint) is np.ndarray:
        shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
        return arrays.arrays(get_args(kinds[1])[0], shapes, elements={"allow_nan": False, "allow_infinity": False}
                             if get_args(kinds[1])[0] is np.float32 else None)  # fmt: skip
    if get_origin(hint) is tuple:
        inner = [drawn(one) for one in kinds if one is not Ellipsis]
        return st.lists(inner[0], max_size=3).map(tuple) if Ellipsis in kinds else st.tuples(*inner)
    return st.one_of(*(drawn(one) for one in kinds))


def fields_of(kind):
    return {name: drawn(hint) for name, hint in get_type_hints(kind).items()}


def extraction_of(faces, turns, speaking, **rest):
    """An extraction in which whoever speaks is there: the one thing that annotations do not say."""
    said = speaking if len(speaking) == len(turns) else ()
    there = tuple(one if one.track is None or one.track < len(faces) else replace(one, track=None) for one in said)
    return Extraction(faces=faces, turns=turns, speaking=there, **rest)


share = st.floats(0, 1)
SPECIAL = {
    int: st.integers(0, 3),
    float: share,
    str: st.text(max_size=9),
    type(None): st.none(),
    Span: st.tuples(share, share).map(lambda two: Span(min(two), max(two))),
}


def extractions():
    return st.builds(extraction_of, **fields_of(Extraction))


def across(value, schema, most_bytes=10**9):
    stream = io.BytesIO()
    send(pack(value), stream.write)
    return unpack(receive(reader(stream.getvalue()), most_bytes), schema)


def reader(content):
    stream = io.BytesIO(content)

    def fill(buffer):
        if stream.readinto(buffer) < len(buffer):
            raise EOFError

    return fill


def same(one, other):
    """Equality through dataclasses that hold arrays, which have none of their own."""
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if is_dataclass(one):
        return type(one) is type(other) and all(same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    if isinstance(one, tuple):
        return type(other) is tuple and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@settings(max_examples=40, deadline=None)
@given(extractions())
def test_any_extraction_comes_back_as_it_was(extraction):
    assert same(across(extraction, Extraction), extraction)


Named = NewType("Named", str)


@dataclass(frozen=True)
class Everything:
    name: Named
    flag: bool
    choice: Literal["a", "b"]
    pairs: tuple[tuple[int, float], ...]
    either: int | str | None
    table: dict[str, list[float]]
    plane: NDArray[np.int16]


EVERYTHING = Everything(Named("ü ☃"), True, "b", ((1, 0.5), (2, 0.25)), "x", {"a": [1.0]}, np.arange(6, dtype=np.int16))


def test_every_kind_of_field_that_is_known_comes_back():
    assert same(across(EVERYTHING, Everything), EVERYTHING)
    assert same(across(UPLOADS, MediaLimits), UPLOADS)


def test_arrays_of_any_layout_cross_by_their_values():
    turned = replace(EVERYTHING, plane=np.arange(12, dtype=">i2").reshape(3, 4).T[::-1])
    assert np.array_equal(across(turned, Everything).plane, turned.plane)


@pytest.mark.parametrize(
    "change",
    [
        {"name": 5}, {"name": None}, {"name": "x" * (LONGEST_STRING + 1)}, {"flag": 1}, {"flag": "true"},
        {"choice": "c"}, {"choice": ["a"]}, {"pairs": {}}, {"pairs": [[1]]}, {"pairs": [[1, 2, 3]]},
        {"pairs": [[1.5, 2.0]]}, {"pairs": [[True, 2.0]]}, {"pairs": [[2**60, 2.0]]}, {"either": 1.5},
        {"either": []}, {"table": {"a": 1.0}}, {"table": []}, {"plane": None}, {"plane": {"array": 1}},
        {"plane": {"array": -1}}, {"plane": [1, 2]}, {"extra": 1},
    ],
)  # fmt: skip
def test_what_is_not_of_the_annotated_type_is_refused(change):
    message = pack(EVERYTHING)
    with pytest.raises(NotAsAgreed):
        unpack(Message(message.body | change, message.arrays), Everything)


def test_a_missing_field_a_spare_array_and_an_array_of_another_type_are_refused():
    message = pack(EVERYTHING)
    for broken in (
        Message({name: one for name, one in message.body.items() if name != "flag"}, message.arrays),
        Message(message.body, (*message.arrays, *message.arrays)),
        Message(message.body, (message.arrays[0].astype(np.int32),)),
        Message(message.body, ()),
    ):
        with pytest.raises(NotAsAgreed):
            unpack(broken, Everything)


def test_what_a_dataclass_refuses_of_itself_is_refused():
    with pytest.raises(NotAsAgreed, match="a span needs"):
        unpack(Message({"start": 3.0, "end": 1.0}), Span)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_neither_leave_nor_arrive(value):
    with pytest.raises(ValueError, match="only finite"):
        pack(replace(EVERYTHING, pairs=((1, value),)))
    turn = SpeechTurn(Span(0, 1), 0, np.array([0.0, value], np.float32))
    with pytest.raises(NotAsAgreed, match="finite"):
        across(turn, SpeechTurn)


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array(["a"]), np.array([1 + 2j]), b"bytes"])
def test_what_is_not_known_does_not_leave(value):
    with pytest.raises(TypeError, match="cannot cross"):
        pack(value)


def framed(text, rest=b""):
    return len(text).to_bytes(4, "big") + text + rest


@pytest.mark.parametrize(
    "content",
    [
        framed(b"not json"),
        framed(b"[]"),
        framed(b'{"body": 1}'),
        framed(b'{"body": NaN, "arrays": []}'),
        framed(b'{"body": 1, "arrays": [["object", [1]]]}', bytes(8)),
        framed(b'{"body": 1, "arrays": [["bool", [1]]]}', bytes(8)),
        framed(b'{"body": 1, "arrays": [["V9999", [1]]]}', bytes(8)),
        framed(b'{"body": 1, "arrays": [["uint8", [-1]]]}', bytes(8)),
        framed(b'{"body": 1, "arrays": [["uint8", [1.0]]]}', bytes(8)),
        framed(b'{"body": 1, "arrays": [["uint8", [1,1,1,1,1]]]}', bytes(8)),
        framed(b'{"body": 1, "arrays": [["uint8", [2000]]]}', bytes(2000)),
        framed(b'{"body": 1, "arrays": [["uint8", [9007199254740992, 9007199254740992, 0]]]}'),
        framed(b"[" * 100_000),
        framed("\udcff".encode("utf-8", "surrogatepass")),
        b"\xff\xff\xff\xff",
    ],
)
def test_what_is_no_message_is_refused_before_memory_is_taken(content):
    with pytest.raises(NotAsAgreed):
        receive(reader(content), 1000)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_no_damage_of_a_message_does_more_than_be_refused(data):
    stream = io.BytesIO()
    send(pack(Reply("found", extraction=data.draw(extractions()))), stream.write)
    content = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        reply = unpack(receive(reader(bytes(content)), 10**6), Reply)
    except (NotAsAgreed, EOFError):
        return
    assert isinstance(reply, Reply)


LEAVES = st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.integers()
ANY_JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
)


@settings(max_examples=100, deadline=None)
@given(ANY_JSON)
def test_any_json_at_all_is_refused_where_it_is_no_answer(body):
    with pytest.raises(NotAsAgreed):
        unpack(Message(json.loads(json.dumps(body))), Extraction)


def test_an_annotation_of_a_kind_that_is_not_known_is_told_to_whoever_wrote_it():
    with pytest.raises(TypeError, match="teach"):
        unpack(Message(1), set[int])
