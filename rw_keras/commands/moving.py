"""What `push` and `pull` have in common: the address that they take, and the progress that they show."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from rw_keras.commands.parser import UsageError


def check_url(command: str, url: str) -> None:
    """Raises a UsageError for what is no URL."""
    if "://" not in url:
        raise UsageError(f"{command} takes a URL such as milvus://HOST:19530/COLLECTION or s3://BUCKET/INDEX, but got {url!r}")


@contextlib.contextmanager
def told(quiet: bool) -> Iterator[Callable[[int], None]]:
    """A function that is told how many photos are done, and shows it on standard error, where that is a terminal."""
    from tqdm import tqdm

    with tqdm(unit=" photos", unit_scale=True, disable=quiet or not sys.stderr.isatty()) as bar:
        yield bar.update
