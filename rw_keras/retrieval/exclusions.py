"""Photos that were deleted from an index: updates leave their names out, until they are taken back.

`rw_keras.retrieval.places.excluded` gives the names.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from rw_keras.retrieval import places


def take_back(folder: str | os.PathLike[str], names: Iterable[str] | None = None) -> int:
    """Takes the exclusion of names back. Their photos are described when the index is next brought up to date.

    Args:
        folder: the index, or its address.
        names: of photos that were deleted from it. Default: all of them.

    Returns:
        How many were taken back.

    Raises:
        FileNotFoundError: when there is no index.
        ValueError: for a name that is not excluded, see `check_excluded`, or when another process writes the index.
    """
    about = places.about(folder)
    if about is None:
        raise FileNotFoundError(
            f"There is no index at {places.shown(folder)}, so it excludes nothing; make one with `rw-keras index`."
        )
    with places.writer(folder, about["recipe"], about["dimensions"], keeps_begun=True) as writer:
        excluded = writer.excluded()
        names = excluded if names is None else set(names)
        check_excluded(folder, names, excluded)
        writer.include(sorted(names))
        writer.commit()
    return len(names)


def check_excluded(folder: str | os.PathLike[str], names: Iterable[str], excluded: set[str] | None = None) -> None:
    """Raises a ValueError for names that an index does not exclude.

    Args:
        folder: the index, or its address.
        names: that are to be excluded.
        excluded: the names that it excludes. Default: read from it.
    """
    excluded = places.excluded(folder) if excluded is None else excluded
    others = sorted(set(names) - excluded)
    if others:
        known = f", such as {sorted(excluded)[0]!r}" if excluded else ""
        raise ValueError(
            f"{places.shown(folder)} does not exclude {others[0]!r}; it excludes {len(excluded)} names{known}. Give one of those."
        )
