"""Values across the border of a process that is not trusted: JSON and raw arrays, checked as they come in.

A dataclass crosses by its fields and their annotations, which are the schema: what arrives is of the types that
are annotated, finite and bounded, or it is refused. Nothing that arrives is ever executed, as a pickle would be.

One message is the length of its JSON text (4 bytes, big-endian), the text, and the bytes of its arrays in order.
"""

# ruff: noqa: ANN401 - what crosses may be anything until it is checked

from __future__ import annotations

import json
import math
import reprlib
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, NewType, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

MOST_TEXT = 64 * 2**20
"""Bytes of the JSON text of one message."""
LONGEST_STRING = 10_000
GREATEST_NUMBER = 2**53
MOST_AXES = 4
MOST_ARRAYS = 1_000_000
_LENGTH_BYTES = 4
_ARRAY = "array"
_KINDS = "iuf"  # NumPy's letters for plain numbers

Array = NDArray[Any]


class NotAsAgreed(ValueError):
    """What came across is not what was agreed: the other side is broken, or somebody else's by now."""


@dataclass(frozen=True, eq=False)
class Message:
    """What crosses at once.

    Args:
        body: made of what JSON knows.
        arrays: of plain numbers; ``body`` names them by their places.
    """

    body: Any
    arrays: Sequence[Array] = ()


def pack(value: object) -> Message:
    """A value of dataclasses, tuples, mappings, plain values and arrays as a message.

    Raises:
        TypeError: it holds something else. ValueError: it holds a number that is not finite.
    """
    arrays: list[Array] = []
    return Message(_plain(value, arrays), tuple(arrays))


def _plain(value: Any, arrays: list[Array]) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in _KINDS:
            raise TypeError(f"an array of {value.dtype} cannot cross")
        arrays.append(value)
        return {_ARRAY: len(arrays) - 1}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} cannot cross: only finite numbers do")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: _plain(getattr(value, one.name), arrays) for one in fields(value) if one.init}
    if isinstance(value, tuple | list):
        return [_plain(one, arrays) for one in value]
    if isinstance(value, dict):
        return {str(name): _plain(one, arrays) for name, one in value.items()}
    raise TypeError(f"a {type(value).__name__} cannot cross: teach ingest/crossing.py how")


def unpack(message: Message, schema: Any) -> Any:
    """A message as a value of an annotated type.

    Args:
        message: as it came, not trusted.
        schema: a dataclass, or any annotation made of dataclasses, tuples, lists, mappings from names, unions,
            literals, plain values and ``NDArray`` of a number type.

    Raises:
        NotAsAgreed: it is not of that type, not finite, too large, or its dataclass refuses it.
        TypeError: the annotation is of a kind that is not known here.
    """
    reader = _Reader(message.arrays)
    value = reader.read(message.body, schema, "the answer")
    if reader.used != len(message.arrays):
        raise NotAsAgreed(f"{len(message.arrays)} arrays came, and {reader.used} are named")
    return value


class _Reader:
    """Reads values by annotations; each array is used once, in order, so that none is there twice."""

    def __init__(self, arrays: Sequence[Array]) -> None:
        self._arrays = arrays
        self.used = 0

    def read(self, value: Any, schema: Any, where: str) -> Any:
        origin = get_origin(schema)
        if isinstance(schema, NewType):
            return self.read(value, schema.__supertype__, where)
        if origin is typing.Annotated:
            return self.read(value, get_args(schema)[0], where)
        if origin is Literal:
            return value if value in get_args(schema) else _refuse(where, value, f"one of {get_args(schema)}")
        if origin in (Union, types.UnionType):
            return self._one_of(value, get_args(schema), where)
        if origin is tuple:
            return self._tuple(value, get_args(schema), where)
        if origin is list:
            return [self.read(one, get_args(schema)[0], where) for one in _expected(value, list, where)]
        if origin is np.ndarray:
            return self._array(value, get_args(get_args(schema)[1])[0], where)
        if isinstance(origin, type) and issubclass(origin, typing.Mapping):
            inner = get_args(schema)[1]
            return {
                _text(name, where): self.read(one, inner, where) for name, one in _expected(value, dict, where).items()
            }
        if is_dataclass(schema):
            return self._dataclass(value, schema, where)
        return _plain_value(value, schema, where)

    def _one_of(self, value: Any, schemas: Sequence[Any], where: str) -> Any:
        if value is None and type(None) in schemas:
            return None
        refusals = []
        for schema in schemas:
            used = self.used
            try:
                return self.read(value, schema, where)
            except NotAsAgreed as error:
                self.used = used
                refusals.append(str(error))
        raise NotAsAgreed("; ".join(refusals))

    def _tuple(self, value: Any, schemas: Sequence[Any], where: str) -> tuple[Any, ...]:
        items = _expected(value, list, where)
        if len(schemas) == 2 and schemas[1] is Ellipsis:
            return tuple(self.read(one, schemas[0], where) for one in items)
        if len(items) != len(schemas):
            _refuse(where, len(items), f"{len(schemas)} values")
        return tuple(self.read(one, schema, where) for one, schema in zip(items, schemas, strict=True))

    def _dataclass(self, value: Any, schema: Any, where: str) -> Any:
        given, names = _expected(value, dict, where), [one.name for one in fields(schema) if one.init]
        if set(given) != set(names):
            _refuse(where, sorted(given), f"the fields {names}")
        hints = get_type_hints(schema)
        read = {name: self.read(given[name], hints[name], f"{schema.__name__}.{name}") for name in names}
        try:
            return schema(**read)
        except (ValueError, TypeError, ArithmeticError) as error:
            raise NotAsAgreed(f"{where}: {error}") from error

    def _array(self, value: Any, dtype: Any, where: str) -> Array:
        if value != {_ARRAY: self.used} or self.used >= len(self._arrays):
            _refuse(where, value, f"array {self.used}")
        array = self._arrays[self.used]
        if array.dtype != np.dtype(dtype):
            _refuse(where, array.dtype, str(np.dtype(dtype)))
        # least and greatest are NaN if one is: no second array is made to look
        if array.dtype.kind == "f" and array.size and not np.isfinite([array.min(), array.max()]).all():
            _refuse(where, "an array", "finite numbers")
        self.used += 1
        return array


def _plain_value(value: Any, schema: Any, where: str) -> Any:
    if schema in (None, type(None)):
        return None if value is None else _refuse(where, value, "nothing")
    if schema is bool:
        return _expected(value, bool, where)
    if schema is str:
        return _text(value, where)
    if schema in (int, float):
        numbers = int if schema is int else (int, float)
        if isinstance(value, bool) or not isinstance(value, numbers):
            _refuse(where, value, schema.__name__)
        if not abs(value) <= GREATEST_NUMBER:
            _refuse(where, value, f"within {GREATEST_NUMBER}")
        return schema(value)
    raise TypeError(f"{where}: the annotation {schema} is not known: teach ingest/crossing.py how it crosses")


def _text(value: Any, where: str) -> str:
    text: str = _expected(value, str, where)
    if len(text) > LONGEST_STRING:
        _refuse(where, len(text), f"at most {LONGEST_STRING} characters")
    return text.encode("utf-8", "replace").decode()  # halves of characters could not be written anywhere


def _expected(value: Any, kind: type, where: str) -> Any:
    return value if isinstance(value, kind) else _refuse(where, value, kind.__name__)


def _refuse(where: str, value: Any, wanted: str) -> Any:
    raise NotAsAgreed(f"{where}: {reprlib.repr(value)} came, and {wanted} was agreed")


def send(message: Message, put: Callable[[memoryview], object]) -> None:
    """Send a message.

    Args:
        message: what to send.
        put: sends all of the bytes that it is given.
    """
    arrays = [np.asarray(one, one.dtype.newbyteorder("<"), order="C") for one in message.arrays]
    kinds = [[one.dtype.name, list(one.shape)] for one in arrays]
    text = json.dumps({"body": message.body, "arrays": kinds}, allow_nan=False).encode("ascii")
    put(memoryview(len(text).to_bytes(_LENGTH_BYTES, "big") + text))
    for one in arrays:
        if one.nbytes:
            put(one.reshape(-1).view(np.uint8).data)


def receive(
    fill: Callable[[memoryview], object],
    most_bytes: int,
    take: Callable[[np.dtype[Any], tuple[int, ...]], Array] | None = None,
) -> Message:
    """Receive a message.

    Args:
        fill: fills all of the buffer that it is given, or raises.
        most_bytes: of all its arrays together.
        take: gives the next array where it lies already, by dtype and shape; default: a new one is filled.

    Raises:
        NotAsAgreed: it is no message, or larger than may be.
    """
    length = bytearray(_LENGTH_BYTES)
    fill(memoryview(length))
    if (size := int.from_bytes(length, "big")) > MOST_TEXT:
        raise NotAsAgreed(f"a text of {size} bytes was announced, and at most {MOST_TEXT} are taken")
    text = bytearray(size)
    fill(memoryview(text))
    try:
        told = json.loads(text.decode("ascii"), parse_constant=_no_number)
        body, kinds = told["body"], [_announced(*one) for one in told["arrays"]]
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise NotAsAgreed(f"the text is no message ({error})") from error
    if len(kinds) > MOST_ARRAYS or sum(dtype.itemsize * math.prod(shape) for dtype, shape in kinds) > most_bytes:
        raise NotAsAgreed(f"more than {most_bytes} bytes of arrays were announced")
    take = take or (lambda dtype, shape: _filled(dtype, shape, fill))
    return Message(body, tuple(take(dtype, shape) for dtype, shape in kinds))


def _announced(name: Any, shape: Any) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """The form of one array. Raises ValueError or TypeError."""
    dtype = np.dtype(_text(name, "a dtype"))
    if dtype.kind not in _KINDS or not isinstance(shape, list) or len(shape) > MOST_AXES:
        raise ValueError(f"{name} of shape {shape} is no array that crosses")
    if not all(type(one) is int and 0 <= one <= GREATEST_NUMBER for one in shape):
        raise ValueError(f"{shape} is no shape")
    return dtype.newbyteorder("<"), tuple(shape)


def _filled(dtype: np.dtype[Any], shape: tuple[int, ...], fill: Callable[[memoryview], object]) -> Array:
    try:
        array = np.empty(shape, dtype)
    except ValueError as error:  # one side is 0, and another beyond what NumPy counts
        raise NotAsAgreed(f"an array of shape {shape} was announced") from error
    if array.nbytes:
        fill(array.reshape(-1).view(np.uint8).data)
    return array


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")
