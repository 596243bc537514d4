"""Where fragments lie: a folder that all machines share, or a URL of object storage."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterable

from rw_keras import storage
from rw_keras.files import PART, checked_path, written_whole

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
        return cls(url.rstrip("/") if storage.is_url(url) else os.path.abspath(checked_path(url)))

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder, and not a URL."""
        return not storage.is_url(self.url)

    @property
    def shown(self) -> str:
        """The place for messages, without a password."""
        return storage.shown(self.url)

    def write(self, name: str, content: bytes) -> None:
        """Writes a file: in a folder by renaming it, in object storage by one put.

        Raises:
            OSError: when it cannot be written; there is no part of it then.
        """
        if self.is_folder:
            with written_whole(self._path(name)) as file:
                file.write(content)
        else:
            self._ask(name, lambda files, path: files.pipe_file(path, content))

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            FileNotFoundError: when there is no such file.
            OSError: when it cannot be read.
        """
        if self.is_folder:
            return pathlib.Path(self._path(name)).read_bytes()
        return self._ask(name, lambda files, path: files.cat_file(path))

    def names(self, folder: str = "") -> set[str]:
        """The names of the files in it, or in a folder of it; none where there is no such folder."""
        with contextlib.suppress(FileNotFoundError):
            if self.is_folder:
                with os.scandir(self._path(folder)) as entries:
                    return {entry.name for entry in entries if entry.is_file()}
            found = self._ask(folder, lambda files, path: files.ls(path, detail=True, refresh=True))
            return {one["name"].rpartition("/")[2] for one in found if one["type"] == "file"}
        return set()

    def remove(self, names: Iterable[str]) -> None:
        """Removes files, where they are there."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                if self.is_folder:
                    os.unlink(self._path(name))
                else:
                    self._ask(name, lambda files, path: files.rm_file(path))

    def remove_folder(self, folder: str = "") -> None:
        """Removes a folder of it, or itself, where nothing is left in it but parts of files whose writers were killed. Object
        storage has no folders."""
        if self.is_folder:
            with contextlib.suppress(OSError):
                left = os.listdir(self._path(folder))
                if all(name.startswith(PART) for name in left):
                    self.remove(f"{folder}/{name}" if folder else name for name in left)
                os.rmdir(self._path(folder))

    def _path(self, name):
        return f"{self.url}/{name}" if name else self.url

    def _ask(self, name, action):
        """What an action on a file system and a path gives, tried again where it fails for a reason that may pass."""
        url = self._path(name)
        files, path = storage.filesystem(url)
        return storage.patiently(lambda: action(files, path), url)
