"""Arrays and numbers out of pickles, without ever running what a pickle asks for.

A pickle is a program for a small machine. Python's own machine calls whatever the program names; this one calls
nothing. It knows the instructions that numpy's arrays and numbers are made of, follows them with placeholders, and
refuses every other instruction, name and type. Sizes are believed only if the bytes are there.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import Any

import numpy as np

_RECONSTRUCT = "reconstruct"
_SCALAR = "scalar"
_FROM_BUFFER = "from buffer"
_ARRAY = "array"
_DTYPE = "dtype"
_ENCODE = "encode"

# What a pickle may name. numpy 2 moved its modules.
_NAMES = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _RECONSTRUCT for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _SCALAR for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _FROM_BUFFER for core in ("core", "_core")},
    ("numpy", "ndarray"): _ARRAY,
    ("numpy", "dtype"): _DTYPE,
    ("_codecs", "encode"): _ENCODE,
}
_VALUES = frozenset(
    {"BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"}
    | {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_NUMBERS = frozenset({"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"})
_MOST_DIMENSIONS = 4
_MOST_ELEMENTS = 2**40


class PickleError(ValueError):
    """A pickle that is cut, or holds anything but an array or a number."""


@dataclass(frozen=True)
class _Name:
    """Something that the pickle names and that is never called."""

    meaning: str


_MARK = _Name("mark")


@dataclass
class _Pending:
    """An array or number type under construction."""

    dtype: np.dtype | None = None
    value: np.ndarray | None = None


def load_numbers(content: bytes) -> np.ndarray | int | float:
    """Return the array or number that a pickle (protocol 2 to 5) holds.

    Arrays may share memory with `content`. Time and memory stay in proportion to its length.

    Raises
    ------
    PickleError
        For anything else.
    """
    machine = _Machine(len(content))
    try:
        for instruction, argument, _ in pickletools.genops(content):
            machine.follow(instruction.name, argument)
    except PickleError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise PickleError(f"not a complete pickle of an array or a number ({error})") from None
    return machine.result()


class _Machine:
    def __init__(self, size: int) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        # Bytes that `encode` may still make: a pickle that encodes one text again and again would fill the memory.
        self._budget = size

    def follow(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "TUPLE":
            items = []
            while (item := stack.pop()) is not _MARK:
                items.append(item)
            stack.append(tuple(reversed(items)))
        elif name in _TUPLES:
            stack[-_TUPLES[name] :] = [tuple(stack[-_TUPLES[name] :])]
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name == "GLOBAL":
            stack.append(_named(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            stack[-2:] = [_named(stack[-2], stack[-1])]
        elif name == "REDUCE":
            stack[-2:] = [self._reduce(stack[-2], stack[-1])]
        elif name == "BUILD":
            stack[-2:] = [_build(stack[-2], stack[-1])]
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise PickleError(f"refused: a pickle with the instruction {name}, which no number needs")

    def result(self) -> np.ndarray | int | float:
        if len(self._stack) != 1:
            raise PickleError("not a complete pickle of an array or a number")
        value = self._stack[0]
        if isinstance(value, _Pending) and value.value is not None:
            return value.value
        if isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63):
            return value
        raise PickleError(f"refused: a pickle of {type(value).__name__}, not of an array or a number")

    def _reduce(self, function: Any, arguments: Any) -> Any:
        meaning = function.meaning if isinstance(function, _Name) else ""
        if meaning == _RECONSTRUCT and arguments[0] == _Name(_ARRAY):
            return _Pending()
        if meaning == _DTYPE:
            return _Pending(dtype=_number_type(arguments[0]))
        if meaning == _SCALAR:
            dtype, data = arguments
            return _Pending(value=_filled(data, dtype, (), "C"))
        if meaning == _FROM_BUFFER:
            data, dtype, shape, order = arguments
            return _Pending(value=_filled(data, dtype, shape, order))
        if meaning == _ENCODE and arguments[1] == "latin1":
            self._budget -= len(arguments[0])
            if self._budget < 0:
                raise PickleError("refused: a pickle that makes more bytes than it has")
            return arguments[0].encode("latin1")
        raise PickleError("refused: a pickle that calls something other than numpy's constructors")


def _named(module: Any, name: Any) -> _Name:
    if not isinstance(module, str) or not isinstance(name, str) or (module, name) not in _NAMES:
        words = ".".join(part[:50] if isinstance(part, str) else "?" for part in (module, name))
        raise PickleError(f"refused: a pickle that names {words}")
    return _Name(_NAMES[module, name])


def _build(pending: Any, state: Any) -> _Pending:
    if not isinstance(pending, _Pending) or pending.value is not None:
        raise PickleError("refused: a pickle that changes something other than a new array")
    if pending.dtype is not None:
        # State of a number type: version, byte order, and nothing that concerns numbers.
        if state[1] not in ("<", ">", "|", "=") or any(item is not None for item in state[2:5]):
            raise PickleError("refused: an array of records")
        pending.dtype = pending.dtype.newbyteorder(state[1])
        return pending
    _, shape, dtype, fortran, data = state
    pending.value = _filled(data, dtype, shape, "F" if fortran else "C")
    return pending


def _number_type(name: Any) -> np.dtype:
    if not isinstance(name, str) or name not in _NUMBERS:
        raise PickleError(f"refused: an array of type {str(name)[:20]!r}, not of numbers")
    return np.dtype(name)


def _filled(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """Return bytes as an array, if they are as many as its shape says."""
    if not isinstance(dtype, _Pending) or dtype.dtype is None or not isinstance(data, bytes | bytearray):
        raise PickleError("refused: an array without bytes or without a number type")
    if not isinstance(shape, tuple) or len(shape) > _MOST_DIMENSIONS or order not in ("C", "F"):
        raise PickleError("refused: an array of no plain shape")
    size = dtype.dtype.itemsize
    for length in shape:
        if type(length) is not int or not 0 <= length <= _MOST_ELEMENTS:
            raise PickleError("refused: an array of no plain shape")
        size *= length
    if size != len(data):
        raise PickleError(f"an array of shape {shape} needs {size} bytes, {len(data)} are there")
    return np.frombuffer(data, dtype.dtype).reshape(shape, order=order)
