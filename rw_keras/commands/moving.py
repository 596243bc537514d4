"""The progress of an index that goes from one place to another."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def told(quiet: bool) -> Iterator[Callable[[int], None]]:
    """A function that is told how many photos are done, and shows it on standard error, where that is a terminal."""
    from tqdm import tqdm

    with tqdm(unit=" photos", unit_scale=True, disable=quiet or not sys.stderr.isatty()) as bar:
        yield bar.update
