"""Where fragments lie: a folder that all machines share, or a URL of object storage."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from rw_keras.files import checked_path, extra, written_whole

_FILE = "file://"


@dataclasses.dataclass(frozen=True)
class Place:
    """Files by name; a file is there whole or not at all. It travels to other machines as it is.

    Args:
        url: a folder, or a URL of a file system that fsspec knows, such as "s3://bucket/fragments".
    """

    url: str

    @classmethod
    def of(cls, url: str | os.PathLike[str]) -> Place:
        """The place of a folder or a URL; a folder's path is made absolute."""
        url = os.fspath(url).removeprefix(_FILE)
        return cls(url.rstrip("/") if "://" in url else os.path.abspath(checked_path(url)))

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder, and not a URL."""
        return "://" not in self.url

    def write(self, name: str, content: bytes) -> None:
        """Writes a file: in a folder by renaming it, in object storage by one put.

        Raises:
            OSError: when it cannot be written; there is no part of it then.
        """
        if self.is_folder:
            with written_whole(self._path(name)) as file:
                file.write(content)
            return
        with _storage_errors(self._path(name)):
            self._storage().pipe_file(self._path(name), content)

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            FileNotFoundError: when there is no such file.
            OSError: when it cannot be read.
        """
        if self.is_folder:
            return pathlib.Path(self._path(name)).read_bytes()
        with _storage_errors(self._path(name)):
            return self._storage().cat_file(self._path(name))

    def names(self, folder: str = "") -> set[str]:
        """The names of the files in it, or in a folder of it; none where there is no such folder."""
        path = self._path(folder)
        if self.is_folder:
            with contextlib.suppress(FileNotFoundError), os.scandir(path) as entries:
                return {entry.name for entry in entries if entry.is_file()}
            return set()
        storage = self._storage()
        with _storage_errors(path):
            storage.invalidate_cache()
            try:
                return {one["name"].rpartition("/")[2] for one in storage.ls(path, detail=True) if one["type"] == "file"}
            except FileNotFoundError:
                return set()

    def remove(self, names: Any) -> None:
        """Removes files, where they are there."""
        paths = [self._path(name) for name in names]
        if self.is_folder:
            for path in paths:
                pathlib.Path(path).unlink(missing_ok=True)
        elif paths:
            with _storage_errors(self.url), contextlib.suppress(FileNotFoundError):
                self._storage().rm(paths)

    def remove_folder(self, folder: str = "") -> None:
        """Removes a folder of it, or itself, where nothing is left in it. Object storage has no folders."""
        if self.is_folder:
            with contextlib.suppress(OSError):
                os.rmdir(self._path(folder))

    def _path(self, name):
        return f"{self.url}/{name}" if name else self.url

    def _storage(self):
        return _storage_of(self.url.partition("://")[0])


@functools.cache
def _storage_of(protocol):
    with extra("cloud"):
        import fsspec

        return fsspec.filesystem(protocol)


@contextlib.contextmanager
def _storage_errors(path: str) -> Iterator[None]:
    """The errors of object storage as OSErrors that name the place."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # each storage has errors of its own
        raise OSError(f"{path} cannot be reached: {type(error).__name__}: {error}") from error
