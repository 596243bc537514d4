"""Pairs of photos that show the same, and which of their vectors match."""

from __future__ import annotations

import collections
import csv
import numbers
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from rw_keras.files import printable

# The pairs that a file or a folder gives are told in an error up to so many.
_SHOWN = 3
# Of a folder of more photos than this, a photo is paired with so many that follow it: 1,000 photos would be 499,500 pairs.
FOLLOWING = 50


def pair_positions(pairs: Any, photos: Sequence[Any] | None, folder: str | os.PathLike[str] | None = None) -> list[tuple[int, int]]:
    """Pairs of photos as positions among all.

    Args:
        pairs: (position, position), or (path, path) of photos that are in `photos`, below `folder` also by their paths below it;
            or "folders": the photos of one folder match.
        photos: the paths or arrays; `None` where they are not known beforehand, as of a dataset, which takes positions alone.
        folder: the one they were found in, if they were.

    Returns:
        (i, j) with i < j, each once, in order.

    Raises:
        ValueError: for what is no pair, an unknown photo, a photo with itself, or no pair at all.
    """
    if isinstance(pairs, (str, os.PathLike)):
        if pairs != "folders":
            raise ValueError(
                f"pairs is a list of pairs of photos, or 'folders', but got {os.fspath(pairs)!r}; read a file with "
                "rw_keras.description.pairs.read_pairs."
            )
        return _of_folders(photos)
    known = _positions(photos, folder)
    found = set()
    for pair in pairs:
        if isinstance(pair, (str, bytes, os.PathLike)) or not hasattr(pair, "__len__") or len(pair) != 2:
            raise ValueError(f"A pair is two photos that show the same, but got {pair!r}; pass (photo, photo).")
        one, other = sorted(_position(photo, photos, known) for photo in pair)
        if one == other:
            raise ValueError(f"The pair {pair!r} is one photo twice, which tells nothing of how views differ; leave it out.")
        found.add((one, other))
    if not found:
        raise ValueError("There is no pair of photos to learn from; pass some, or pairs=None for principal axes.")
    return sorted(found)


def read_pairs(path: str | os.PathLike[str]) -> list[tuple[str, str]]:
    """Pairs of photos from a CSV file: two names a row, such as `church/1.jpg,church/7.jpg`; a tab may stand for the comma.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: for a row of another form, naming it, or a file that is no text.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no file {path}; pass one with two names of photos a row.")
    try:
        lines = pathlib.Path(path).read_text("utf8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error}); write two names of photos a row.") from None
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row = next(csv.reader([line], delimiter="\t" if "\t" in line else ","))
        if len(row) != 2:
            raise ValueError(f"Row {number} of {path} is {printable(line)!r}; write two names of photos with a comma between.")
        found.append((row[0].strip(), row[1].strip()))
    return found


class MatchingVectors:
    """Finds which vectors of paired photos match, photo by photo; a photo's vectors are kept until its last pair is done.

    Of two photos with several vectors each, those match that are each other's nearest; of a photo with one, that is it.

    Args:
        pairs: what `pair_positions` gave.

    Attributes:
        count: pairs of photos that gave matching vectors. A photo without any, as a black one, gives none.
    """

    def __init__(self, pairs: Iterable[tuple[int, int]]) -> None:
        self.count = 0
        self._partners: dict[int, set[int]] = collections.defaultdict(set)
        for one, other in pairs:
            self._partners[one].add(other)
            self._partners[other].add(one)
        self._kept: dict[int, list[np.ndarray]] = {}

    def add(self, position: int, vectors: Sequence[np.ndarray] | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Takes the vectors of a photo, `(R, d)` of each scale, and gives those that match vectors of photos before it.

        A photo that could not be read has `None`, and its pairs are left out.
        """
        if vectors is None:
            for partner in self._partners.pop(position, ()):
                self._leave(partner, position)
            return
        for partner in sorted(self._partners.get(position, set()) & self._kept.keys()):
            found = [nearest_to_each_other(one, other) for one, other in zip(self._kept[partner], vectors)]
            self.count += any(len(one) for one, _ in found)
            yield from found
            self._leave(position, partner)
            self._leave(partner, position)
        if position in self._partners:
            self._kept[position] = [np.asarray(one) for one in vectors]

    @property
    def waiting(self) -> list[int]:
        """Positions of photos that were paired and have not come."""
        return sorted(self._partners.keys() - self._kept.keys())

    def _leave(self, position, partner):
        self._partners[position].discard(partner)
        if not self._partners[position]:
            del self._partners[position]
            self._kept.pop(position, None)


def nearest_to_each_other(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of two sets of unit vectors `(n, d)`, `(m, d)` that are each other's nearest, `(k, d)` each; zeros are left out."""
    one, other = one[one.any(axis=1)], other[other.any(axis=1)]
    if not len(one) or not len(other):
        return one[:0], other[:0]
    cosines = one @ other.T
    forth, back = cosines.argmax(axis=1), cosines.argmax(axis=0)
    rows = np.flatnonzero(back[forth] == np.arange(len(one)))
    return one[rows], other[forth[rows]]


def _of_folders(photos):
    if photos is None or not all(isinstance(photo, (str, os.PathLike)) for photo in photos):
        raise ValueError("pairs='folders' pairs photos by the folders that they lie in; pass a folder of photos, or their paths.")
    members = collections.defaultdict(list)
    for position, photo in enumerate(photos):
        members[os.path.dirname(os.fspath(photo))].append(position)
    found = [
        (one, other)
        for positions in members.values()
        for number, one in enumerate(positions)
        for other in positions[number + 1 : number + 1 + FOLLOWING]
    ]
    if not found:
        raise ValueError("pairs='folders' found no folder with two photos; put the photos of one thing into one folder.")
    return sorted(found)


def _positions(photos, folder):
    """Path -> position."""
    known = {}
    for position, photo in enumerate(photos or ()):
        if isinstance(photo, (str, os.PathLike)):
            known[os.path.normpath(os.fspath(photo))] = position
            if folder is not None:
                known[os.path.normpath(os.path.relpath(photo, folder))] = position
    return known


def _position(photo, photos, known):
    if isinstance(photo, numbers.Integral) and not isinstance(photo, bool):
        if photo < 0 or (photos is not None and photo >= len(photos)):
            among = "" if photos is None else f", of which there are {len(photos)}"
            raise ValueError(f"A pair names the photo {photo}{among}; positions are counted from 0.")
        return int(photo)
    if not isinstance(photo, (str, os.PathLike)):
        raise ValueError(f"A photo of a pair is a path or its position among the images, but got {type(photo).__name__}.")
    position = known.get(os.path.normpath(os.fspath(photo)))
    if position is None:
        some = ", ".join(list(known)[:_SHOWN]) or "none with a path"
        raise ValueError(f"A pair names {printable(os.fspath(photo))!r}, which is not among the images ({some}, ...); add it.")
    return position
