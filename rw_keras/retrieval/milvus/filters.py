"""Which rows a search may find, as an expression that Milvus evaluates."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np

from rw_keras.retrieval.conditions import AllOf, Comparison
from rw_keras.retrieval.milvus.words import above, literal, literals, text_of


class Expression(str):
    """A filter expression of Milvus: taken as it is, where the face of the index takes a filter."""

    __slots__ = ()


def expression(within: Any, columns: Collection[str], check: Callable[[list[str]], Any] = lambda names: None) -> Expression:
    """A filter as Milvus takes it; empty for `None`.

    Args:
        within: what names begin with; names; or a dictionary from columns of the metadata to the value that a row must have, or
            to a condition of `rw_keras.retrieval.columns.condition`.
        columns: those of the index.
        check: is called with names, and raises a ValueError where the index lacks one.

    Raises:
        ValueError: for a function or a mask, which Milvus cannot evaluate, an unknown column, or something that is no filter.
    """
    if within is None or isinstance(within, Expression):
        return Expression(within or "")
    if isinstance(within, str):
        return Expression(_begins(within))
    if callable(within):
        raise ValueError(
            "`within` is evaluated by Milvus, which knows no Python, but got a function; give what names begin with, names, or a "
            "dictionary from columns to values."
        )
    if isinstance(within, np.ndarray) and within.dtype == bool:
        raise ValueError(
            "`within` is evaluated by Milvus, which has no mask of its rows, but got one; give what names begin with, names, or a "
            "dictionary from columns to values."
        )
    if isinstance(within, Mapping):
        parts = []
        for column, wanted in within.items():
            if column not in columns:
                known = f"has {', '.join(map(repr, columns))}" if columns else "has none"
                raise ValueError(f"There is no {column!r} in the index's metadata, which {known}.")
            parts.append(_holds(column, wanted))
        return Expression(" and ".join(f"({part})" for part in parts))
    if isinstance(within, bytes) or not isinstance(within, Iterable):
        raise ValueError(
            f"`within` is what names begin with, names, or a dictionary from columns of the metadata to values, but got {within!r}."
        )
    names = list(within)
    texts = list(map(text_of, names))
    check(names)
    return Expression(f"name in {literals(texts)}")


def _begins(prefix):
    text = text_of(prefix)
    if not text:
        return ""
    stop = above(text)
    return f"name >= {literal(text)}" + (f" and name < {literal(stop)}" if stop is not None else "")


def field_of(column: str) -> str:
    """The key of a column in the JSON of the metadata: its title, as names are kept."""
    return text_of(column)


def fields_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a photo as Milvus keeps it: without columns where it has no value.

    Raises:
        ValueError: for a value that no JSON in UTF-8 holds, or a whole number of more than 64 bits.
    """
    found = {field_of(column): value for column, value in metadata.items() if value is not None}
    try:
        text = json.dumps(found, allow_nan=False, ensure_ascii=False)
        text.encode()
        json.loads(text, parse_int=_whole)
    except (ValueError, TypeError) as error:
        raise ValueError(f"Milvus keeps metadata as JSON in UTF-8, and a value of {metadata!r} is none: {error}.") from None
    return found


def _whole(text):
    if not -(1 << 63) <= int(text) < 1 << 63:
        raise ValueError(f"{text} has more than 64 bits")


def check_values(metadata: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises a ValueError, as `fields_of`, for a value of column -> name -> value."""
    for column, values in metadata.items():
        for value in values.values():
            fields_of({column: value})


def _holds(column, wanted):
    path = f"metadata[{literal(field_of(column))}]"
    if isinstance(wanted, AllOf):
        return " and ".join(f"({_compared(path, part)})" for part in wanted.parts)
    if isinstance(wanted, Comparison):
        return _compared(path, wanted)
    if callable(wanted):
        raise ValueError(
            f"`within` is evaluated by Milvus, which knows no Python, but got a function for the column {column!r}; give a value, "
            "or a condition such as `rw_keras.retrieval.conditions.Comparison('>=', '2005')`."
        )
    if wanted is None:
        return f"not (exists {path})"
    if isinstance(wanted, (bool, int, float)) and wanted in (0, 1):  # to Python these are equal
        return f"{path} == {literal(int(wanted))} or {path} == {literal(bool(wanted))}"
    return f"{path} == {literal(wanted)}"


def _compared_as_numbers(path, symbol, number):
    """The comparison of numbers, where it may hold: numbers of the metadata are finite."""
    if not isinstance(number, (int, float)) or number != number:
        return []
    if abs(number) <= sys.float_info.max:
        return [f"{path} {'==' if symbol == '=' else symbol} {literal(number)}"]
    if symbol.startswith("<" if number > 0 else ">"):
        most = sys.float_info.max if number > 0 else -sys.float_info.max
        return [f"{path} {symbol[0]}= {literal(most)}"]
    return []


def _compared(path, part):
    """A comparison as `Comparison` makes it."""
    there = f"(exists {path})"
    if not part.wanted:  # all texts are above the one of no characters, and `None` is it
        empty = f"not {there} or {path} == {literal('')}"
        filled = f"{there} and not ({path} == {literal('')})"
        return {"=": empty, "<=": empty, "!=": filled, ">": filled, ">=": "id >= 0", "<": "id < 0"}[part.symbol]
    if part.symbol == "!=":  # of what is not there, versions of Milvus differ in whether `not` holds
        return f"not {there} or not ({_compared(path, Comparison('=', part.wanted))})"
    symbol = "==" if part.symbol == "=" else part.symbol
    parts = [f"{path} {symbol} {literal(part.wanted)}"]
    parts += _compared_as_numbers(path, part.symbol, part.number)
    if part.symbol == "=" and part.wanted in ("True", "False"):
        parts.append(f"{path} == {literal(part.wanted == 'True')}")
    return " or ".join(parts)
