"""The photos of an index as files: where they lie, how large they are, and thumbnails, kept on the disk within a bound."""

from __future__ import annotations

import collections
import contextlib
import errno
import hashlib
import io
import os
import pathlib
import re
import stat
import threading
import time

from PIL import Image

from rw_keras.files import inside, written_whole
from rw_keras.photos.reading import ImageError, read_thumbnail, upright_size

# Of photos' sizes that are kept in memory, about 20 MB.
_SIZES = 100_000
# Pillow's usual quality is 75, of which edges show; at 82 a thumbnail of 320 pixels has 15 to 20 KB.
_QUALITY = 82
# A process looks how full the cache is each time that it has written this share of the bound, and leaves no more than the other
# one: the files of eight processes stay within the bound.
_LOOKS, _LEFT = 1 / 32, 3 / 4
# Seconds after which a file that was not finished was left by a process that was killed.
_STALE = 3600
_OWN = re.compile(r"[0-9a-f]{64}\.jpg|\.part-[0-9a-f]{16}")
# What says that a file is not there: others may pass.
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
# Part of the names of thumbnails, so that those that were made in another way count as not there.
_FORMAT = 1


def real_path(folder: str | os.PathLike[str], name: str) -> str | None:
    """The path of a name in a folder with all links followed, the last one as well; `None` where it leads out of the folder.

    The file need not be there.
    """
    path = inside(folder, name)
    if path is None:
        return None
    try:
        folder, path = os.path.realpath(folder), os.path.realpath(path)
        return path if path != folder and os.path.commonpath([folder, path]) == folder else None
    except (OSError, ValueError):  # no file can have that name, or links go round
        return None


class PhotoFiles:
    """The photos in a folder, by the names that an index has for them.

    It may be used by several threads, and a cache by several processes. Messages name a photo, and never where it lies.

    Args:
        folder: where the photos lie; `None`: they are not at hand, and none is found.
        cache: the folder of the thumbnails, made when the first one is. Nothing else in it is touched.
        cache_bytes: what the thumbnails take there at most; those that were used the longest time ago go first.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, cache: str | os.PathLike[str], cache_bytes: int = 256 << 20) -> None:
        self.folder = None if folder is None else pathlib.Path(folder)
        self.cache, self.cache_bytes = pathlib.Path(cache), cache_bytes
        self._sizes: collections.OrderedDict[str, tuple[tuple[int, int], tuple[int, int] | None]] = collections.OrderedDict()
        self._lock = threading.Lock()
        self._unseen: int | None = None  # bytes written since it was looked how full the cache is; `None`: it never was

    def path(self, name: str) -> pathlib.Path:
        """The file of a photo, with all links followed.

        Raises:
            FileNotFoundError: when there is no such file in the folder, or the name leads out of it, by itself or by a link.
            OSError: when it cannot be looked at, such as for want of a permission.
        """
        return self._found(name)[0]

    def _found(self, name):
        """The file, and its stamp: its size in bytes and the time of its last change in nanoseconds."""
        path = None if self.folder is None else real_path(self.folder, name)
        try:
            about = None if path is None else os.stat(path)
        except ValueError:
            about = None
        except OSError as error:
            if error.errno in _NOT_THERE:
                raise _missing(name) from None
            raise OSError(error.errno, f"The photo {name!r} cannot be looked at: {error.strerror}") from None
        if about is None or not stat.S_ISREG(about.st_mode):
            raise _missing(name)
        return pathlib.Path(path), _stamp(about)

    def etag(self, name: str, side: int | None = None) -> str:
        """The entity tag of a photo, with its quotes, of its size and time; with `side`, of its thumbnail. Errors: see `path`."""
        size, changed = self._found(name)[1]
        return f'"{size:x}-{changed:x}' + ('"' if side is None else f'-{side}-{_FORMAT}"')

    def size(self, name: str) -> tuple[int, int] | None:
        """Width and height in pixels of the upright photo, from the head of its file; `None` where it cannot be read now."""
        try:
            path, stamp = self._found(name)
        except OSError:
            return None
        with self._lock:
            known = self._sizes.get(name)
            if known is not None:
                self._sizes.move_to_end(name)
                if known[0] == stamp:
                    return known[1]
        try:
            with _opened(path, name) as (file, stamp):
                size = upright_size(file)
        except ImageError:
            size = None
        except OSError:  # which may pass, so it is not kept
            return None
        with self._lock:
            self._sizes[name] = stamp, size
            while len(self._sizes) > _SIZES:
                self._sizes.popitem(last=False)
        return size

    def thumbnail(self, name: str, side: int) -> bytes:
        """A photo as a JPEG in sRGB whose longer side is `side` pixels at most: upright, and with nothing beside its pixels.

        Raises:
            FileNotFoundError, OSError: as for `path`, or when it cannot be read at the moment.
            ImageError: when it cannot be decoded.
        """
        path, stamp = self._found(name)
        content = _kept(self._place(path, stamp, side))
        if content is not None:
            return content
        with _opened(path, name) as (file, stamp):
            pixels, _ = read_thumbnail(file, side)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=_QUALITY)
        content = buffer.getvalue()
        with contextlib.suppress(OSError):  # a cache that cannot be written holds nobody up
            self._keep(self._place(path, stamp, side), content)
        return content

    def _place(self, path, stamp, side):
        key = "\0".join((str(_FORMAT), os.fspath(path), *map(str, stamp), str(side)))
        return self.cache / f"{hashlib.sha256(os.fsencode(key)).hexdigest()}.jpg"

    def _keep(self, path, content):
        # The photos may be private, so the folder of their thumbnails is for its owner alone.
        self.cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        with written_whole(path) as file:
            file.write(content)
        with self._lock:
            is_due = self._unseen is None or self._unseen + len(content) > self.cache_bytes * _LOOKS
            self._unseen = 0 if is_due else self._unseen + len(content)
        if is_due:
            self._make_room()

    def _make_room(self):
        """Removes the thumbnails that were used the longest time ago, where the cache is full, and what killed processes left."""
        found, now = [], time.time()
        with os.scandir(self.cache) as entries:
            for entry in entries:
                if not _OWN.fullmatch(entry.name):
                    continue
                with contextlib.suppress(FileNotFoundError):  # another process makes room, too
                    about = entry.stat(follow_symlinks=False)
                    if entry.name.startswith(".part-") and now - about.st_mtime > _STALE:
                        os.unlink(entry.path)
                    elif stat.S_ISREG(about.st_mode):
                        found.append((about.st_mtime_ns, about.st_size, entry.path))
        held = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if held <= self.cache_bytes * _LEFT:
                break
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            held -= size


def _kept(path):
    """The bytes of a thumbnail that is kept, which was used now; `None` where there is none that is whole."""
    try:
        content = path.read_bytes()
        os.utime(path)
    except OSError:
        return None
    return content if content.startswith(b"\xff\xd8") and content.endswith(b"\xff\xd9") else None


def _missing(name):
    return FileNotFoundError(f"There is no file of the photo {name!r} in the folder of the photos.")


def _stamp(about):
    return about.st_size, about.st_mtime_ns


@contextlib.contextmanager
def _opened(path, name):
    """The file of a photo, and its stamp."""
    try:
        file = _NamedFile(path, name)
    except OSError as error:
        raise OSError(error.errno, f"The photo {name!r} cannot be read: {error.strerror}") from None
    with file:
        yield file, _stamp(os.fstat(file.fileno()))


class _NamedFile(io.BufferedReader):
    """A file that messages call by a name, and not by its path."""

    def __init__(self, path, name):
        super().__init__(io.FileIO(path))
        self._called = name

    @property
    def name(self):
        return self._called
