"""Plain values on the way between processes: tagged JSON, never pickle, never code. Standard
library only.

Scalars and lists are JSON as they are; everything else is an object with one key, its tag. What
comes from a program's process is decoded into built-in values only, so an object with a hostile
`__eq__` cannot reach a comparison.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any

VALUE_LIMIT = 8 << 20
"""Largest encoded argument list or value (bytes)."""
_BIG = 1 << 63
COLLISIONS = 64
UNREADABLE = (ValueError, TypeError, KeyError, RecursionError, OverflowError)
"""What `decode` raises on nonsense."""


class Opaque:
    """Stands for a value that has no plain form; equal to nothing."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{self.kind}>"


def encode(value: Any) -> Any:
    """Tagged JSON form of a value; a subclass of a built-in type counts as that type, a numpy scalar as its value."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        number = int(value)
        return number if -_BIG < number < _BIG else {"i": hex(number)}
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, list):
        return [encode(item) for item in value]
    if isinstance(value, dict):
        return {"d": [[encode(key), encode(item)] for key, item in value.items()]}
    for kind, tag in ((tuple, "t"), (set, "s"), (frozenset, "f")):
        if isinstance(value, kind):
            return {tag: [encode(item) for item in value]}
    if isinstance(value, complex):
        return {"c": [value.real, value.imag]}
    if isinstance(value, bytes | bytearray):
        return {"b": bytes(value).hex()}
    if "numpy" in sys.modules and isinstance(value, sys.modules["numpy"].generic):
        return encode(value.item())
    return {"o": type(value).__name__}


def _spread(items: Iterable[Any]) -> list[Any]:
    """The items, unless many share a hash: they were chosen to make a set or dictionary of them quadratic."""
    found = list(items)
    if found and max(Counter(map(hash, found)).values()) > COLLISIONS:
        raise ValueError("members collide")
    return found


def decode(data: Any) -> Any:
    """Inverse of `encode`. Raises one of `UNREADABLE` on nonsense."""
    if isinstance(data, list):
        return [decode(item) for item in data]
    if not isinstance(data, dict):
        return data
    ((tag, body),) = data.items()
    match tag:
        case "t":
            return tuple(decode(item) for item in body)
        case "s":
            return set(_spread(decode(item) for item in body))
        case "f":
            return frozenset(_spread(decode(item) for item in body))
        case "d":
            return dict(zip(_spread(decode(key) for key, _ in body), (decode(item) for _, item in body), strict=True))
        case "i":
            return int(body, 16)
        case "c":
            return complex(*body)
        case "b":
            return bytes.fromhex(body)
        case "o":
            return Opaque(str(body))
    raise ValueError(f"unknown tag {tag!r}")


def read_all(fd: int) -> bytes:
    """Whole content of a memory file, wherever its offset is."""
    return os.pread(fd, os.fstat(fd).st_size, 0)
