"""Which rows a search may find."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

Within: TypeAlias = str | Iterable[str] | Callable[[str], Any] | Mapping[str, Any] | np.ndarray


def passing(
    within: Within | None, names: Sequence[str], position: Callable[[str], int], metadata: Mapping[str, Sequence[Any]]
) -> np.ndarray | None:
    """A mask `(N,)` of the rows a filter lets pass, `None` for no filter.

    Args:
        within: what the names begin with; or names; or a function of a name, true for those that pass; or a dictionary from
            columns of the metadata to the value a row must have, or to a function of the value, all of which must hold.
        names: of the N rows.
        position: from a name to its row; a ValueError for unknown ones.
        metadata: column -> N values.

    Raises:
        ValueError: for an unknown name or column, or something that is no filter.
    """
    if within is None:
        return None
    if isinstance(within, np.ndarray) and within.dtype == bool:
        if within.shape != (len(names),):
            raise ValueError(f"A mask has one value for each of the {len(names)} names, but got the shape {within.shape}.")
        return within
    if isinstance(within, str):
        return np.fromiter((name.startswith(within) for name in names), bool, len(names))
    if callable(within):
        return _holds(within, names)
    mask = np.zeros(len(names), bool)
    if isinstance(within, Mapping):
        mask[:] = True
        for column, wanted in within.items():
            if column not in metadata:
                known = f"has {', '.join(map(repr, metadata))}" if metadata else "has none"
                raise ValueError(f"There is no {column!r} in the index's metadata, which {known}.")
            mask &= _holds(wanted if callable(wanted) else lambda value, wanted=wanted: value == wanted, metadata[column])
        return mask
    if isinstance(within, bytes) or not isinstance(within, Iterable):
        raise ValueError(
            "`within` is what names begin with, names, a function of a name, a mask, or a dictionary from columns of the metadata "
            f"to values or functions, but got {within!r}."
        )
    mask[[position(name) for name in within]] = True
    return mask


def _holds(predicate, values):
    return np.fromiter((bool(predicate(value)) for value in values), bool, len(values))


def fitting_metadata(metadata: Mapping[str, Iterable[Any]] | None, columns: Iterable[str], count: int) -> dict[str, list[Any]]:
    """`checked_metadata` for an index that has these columns; a ValueError also when they are others."""
    given, columns = checked_metadata(metadata, count), list(columns)
    if given.keys() != set(columns):
        raise ValueError(f"The index's metadata has the columns {columns}, but got {list(given)}; give the same.")
    return given


def checked_metadata(metadata: Mapping[str, Iterable[Any]] | None, count: int) -> dict[str, list[Any]]:
    """Columns as lists of plain values, `count` each.

    Raises:
        ValueError: when a column is not named by a string, or holds more or fewer values.
    """
    columns = {}
    for column, values in (metadata or {}).items():
        if not isinstance(column, str):
            raise ValueError(f"A column of the metadata is named by a string, but got {column!r}.")
        columns[column] = values.tolist() if isinstance(values, np.ndarray) else list(values)
        if len(columns[column]) != count:
            raise ValueError(f"The metadata's {column!r} holds {len(columns[column])} values for {count} names; give one each.")
    return columns
