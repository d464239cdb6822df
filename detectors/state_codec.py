"""A detector's state as JSON, and back, to the last bit: nothing in it is run when it is read."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

_INTEGERS = "<i8"


def encode_state(state: Any, types: Sequence[type]) -> Any:
    """``state`` as lists, numbers, texts and objects of JSON.

    It may be made of tuples, numbers, texts, bytes, None, arrays of int64 or of Python's integers,
    and dataclasses of ``types``. Raises ``TypeError`` for anything else.
    """
    if state is None or isinstance(state, bool | int | float | str):
        return state
    if isinstance(state, bytes):
        return {"bytes": base64.b64encode(state).decode("ascii")}
    if isinstance(state, tuple):
        return [encode_state(part, types) for part in state]
    if isinstance(state, np.ndarray):
        return _encoded_array(state)
    if is_dataclass(state) and type(state) in types:
        values = [encode_state(getattr(state, f.name), types) for f in fields(state)]
        return {"type": type(state).__name__, "fields": values}
    raise TypeError(f"a state that holds {type(state).__name__} cannot be kept")


def decode_state(encoded: Any, types: Sequence[type]) -> Any:
    """What `encode_state` was given. Raises ``ValueError`` for what it does not make."""
    if encoded is None or isinstance(encoded, bool | int | float | str):
        return encoded
    if isinstance(encoded, list):
        return tuple(decode_state(part, types) for part in encoded)
    if not isinstance(encoded, dict):
        raise ValueError(f"a state has no {type(encoded).__name__}")
    if encoded.keys() == {"bytes"}:
        return base64.b64decode(encoded["bytes"], validate=True)
    if encoded.keys() == {"shape", "int64"}:
        data = base64.b64decode(encoded["int64"], validate=True)
        flat = np.frombuffer(data, dtype=_INTEGERS)
        return flat.astype(np.int64).reshape(_shape(encoded))
    if encoded.keys() == {"shape", "integers"}:
        values = encoded["integers"]
        if not all(type(value) is int for value in values):
            raise ValueError("an array of integers holds something else")
        array = np.empty(len(values), dtype=object)
        array[:] = values
        return array.reshape(_shape(encoded))
    if encoded.keys() == {"type", "fields"}:
        known = {each.__name__: each for each in types}
        if encoded["type"] not in known:
            raise ValueError(f"a state has no {encoded['type']!r}")
        of_type: Any = known[encoded["type"]]
        values = [decode_state(value, types) for value in encoded["fields"]]
        if len(values) != len(fields(of_type)):
            raise ValueError(f"{encoded['type']} has another number of fields")
        return of_type(*values)
    raise ValueError(f"a state has no object of {', '.join(sorted(encoded))}")


def _encoded_array(array: np.ndarray[Any, Any]) -> dict[str, Any]:
    shape = list(array.shape)
    if array.dtype == object:
        return {"shape": shape, "integers": [int(value) for value in array.ravel()]}
    if array.dtype == np.int64:
        data = np.ascontiguousarray(array).astype(_INTEGERS).tobytes()
        return {"shape": shape, "int64": base64.b64encode(data).decode("ascii")}
    raise TypeError(f"a state that holds an array of {array.dtype} cannot be kept")


def _shape(encoded: dict[str, Any]) -> tuple[int, ...]:
    return tuple(int(size) for size in encoded["shape"])
