"""The names of an index: a sequence of strings that takes the memory of their bytes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np


class Names(Sequence):
    """N different names, kept as the bytes of all of them and where each ends; a string is made when it is asked for.

    A name is a file's, so it need not be text: bytes that are not UTF-8 stand as surrogates, as in `os.fsdecode`.

    Args:
        content: the bytes of all names, one behind the other.
        lengths: `(N,)`, the bytes of each.
    """

    def __init__(self, content: bytes, lengths: np.ndarray) -> None:
        self._content = content
        self._ends = np.concatenate([[0], np.cumsum(lengths, dtype="int64")])
        self._hashes: tuple[np.ndarray, np.ndarray] | None = None  # sorted, and whose they are; made when a name is looked up

    @classmethod
    def of(cls, names: Iterable[bytes]) -> Names:
        """The names whose bytes are given."""
        parts = list(names)
        return cls(b"".join(parts), np.fromiter(map(len, parts), "int64", len(parts)))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return [self[position] for position in range(*key.indices(len(self)))]
        position = range(len(self))[key]
        return os.fsdecode(self._content[self._ends[position] : self._ends[position + 1]])

    def __iter__(self) -> Iterator[str]:
        start = 0
        for end in self._ends[1:].tolist():
            yield os.fsdecode(self._content[start:end])
            start = end

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Names):
            return self._content == other._content and np.array_equal(self._ends, other._ends)
        return list(self) == other if isinstance(other, list) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __contains__(self, name: object) -> bool:
        return self.find(name) is not None

    def index(self, name: str, start: int = 0, stop: int | None = None) -> int:
        """The position of a name; a ValueError where there is none, as of a list."""
        position = self.find(name)
        if position is None or position not in range(len(self))[start:stop]:
            raise ValueError(f"{name!r} is not among the {len(self)} names")
        return position

    def find(self, name: object) -> int | None:
        """The position of a name, `None` where there is none."""
        if not isinstance(name, str):
            return None
        if self._hashes is None:
            hashes = np.fromiter(map(hash, self), "int64", len(self))
            order = np.argsort(hashes, kind="stable")
            self._hashes = hashes[order], order
        hashes, order = self._hashes
        for place in range(np.searchsorted(hashes, hash(name)), len(hashes)):
            if hashes[place] != hash(name):
                return None
            if self[order[place]] == name:
                return int(order[place])
        return None

    def __repr__(self) -> str:
        return f"<{len(self)} names>"


def positions_of(names: Sequence[str], first: int = 0) -> dict[str, int]:
    """Where each name stands, counted from `first` on; a ValueError for what is no name, or stands twice."""
    positions = {}
    for position, name in enumerate(names, first):
        if not isinstance(name, str):
            raise ValueError(f"A name is a string, but got {name!r} at position {position}.")
        if positions.setdefault(name, position) != position:
            raise ValueError(f"The name {name!r} stands at positions {positions[name]} and {position}; give each once.")
    return positions
