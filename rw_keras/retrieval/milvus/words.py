"""Names and values in the words of Milvus: text that is UTF-8 without exception, and literals of filter expressions."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from rw_keras.retrieval.schema import name_bytes

# A byte of a name that is no part of UTF-8, a control character, a quote or a backslash stands as one of these 256 characters,
# which are for private use. Where a name has one of them itself, so do its four bytes.
_FIRST = 0x10FE00
_TAKEN = {chr(_FIRST + byte): byte for byte in range(256)}
_APART = {chr(byte) for byte in (*range(32), 127)} | {'"', "'", "\\"}
# In a literal; more than these not every version of Milvus reads.
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})
_LAST = chr(0x10FFFF)


def text_of(name: str) -> str:
    """A name as Milvus keeps it: what one begins with, the text of it begins with.

    Raises:
        ValueError: when it is no string, or holds half a character that stands for no byte.
    """
    text = name_bytes(name).decode("utf8", "surrogateescape")
    if text.isalnum() and text.isascii():
        return text
    return "".join(map(_in_text, text))


def _in_text(character):
    if character in _APART or character in _TAKEN or "\udc80" <= character <= "\udcff":
        return "".join(chr(_FIRST + byte) for byte in os.fsencode(character))
    return character


def name_of(text: str) -> str:
    """The name that Milvus keeps as a text."""
    if text.isascii():
        return text
    return os.fsdecode(b"".join(bytes([_TAKEN[one]]) if one in _TAKEN else one.encode() for one in text))


def literal(value: Any) -> str:
    """A string, a number or a boolean as a literal of an expression.

    Raises:
        ValueError: for what Milvus cannot compare with.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:  # more than Milvus has in a whole number
        value = float(value) if abs(value) <= sys.float_info.max else float("inf")
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and value - value == 0:
        return repr(value)
    if isinstance(value, str):
        try:
            value.encode("utf8")
        except UnicodeEncodeError:
            raise ValueError(f"Milvus compares text in UTF-8, and {value!r} is none.") from None
        return f'"{value.translate(_ESCAPES)}"'
    raise ValueError(f"Milvus compares texts, finite numbers and booleans, but got {value!r}.")


def literals(values: Any) -> str:
    """A list of them."""
    return f"[{', '.join(map(literal, values))}]"


def above(prefix: str) -> str | None:
    """The lowest text that is above all that begin with `prefix`; `None` where there is none."""
    while prefix and prefix[-1] == _LAST:
        prefix = prefix[:-1]
    if not prefix:
        return None
    following = ord(prefix[-1]) + 1
    return prefix[:-1] + chr(0xE000 if following == 0xD800 else following)  # halves of characters are no text


def to_json(value: Any, sort_keys: bool = False) -> str:
    """JSON in ASCII, so that a text that is no UTF-8 is kept, too."""
    return json.dumps(value, separators=(",", ":"), sort_keys=sort_keys)
