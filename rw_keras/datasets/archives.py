"""Compressed tar archives read from beginning to end, nothing unpacked to the disk."""

import os
import pathlib
import tarfile
import zlib
from collections.abc import Collection, Iterator


def members(path: str | os.PathLike[str], endings: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """The files of an archive whose names end so (lower case, with the dot): pairs of name and content, in its order.

    Raises:
        ValueError: when it cannot be read to its end.
    """
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                name = pathlib.PurePosixPath(member.name)
                # macOS' tar adds a file "._x" of attributes beside the file x.
                if member.isfile() and name.suffix.lower() in endings and not name.name.startswith("._"):
                    yield member.name, archive.extractfile(member).read()
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as a tar archive: {error}; download it again.") from error
