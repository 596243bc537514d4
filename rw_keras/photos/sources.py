"""Where photos come from: a folder, a list, a glob, a tar archive, a dataset. Each as one ordered row of photos with a name."""

import dataclasses
import glob
import io
import os
import pathlib
import stat
import tarfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from rw_keras.files import printable
from rw_keras.photos import formats
from rw_keras.photos.reading import ImageError

ARCHIVES = (".tar",)
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """A photo that has not been read.

    Attributes:
        name: what it is called in the index; unique within a source.
        place: a path, an array of pixels, or (archive, offset, size).
        stamp: [size in bytes, time of its last change in nanoseconds], by which a change is seen; `None` where there is none, and
            while what reads such files is not installed, so that the photo is read once it is.
        fault: why it cannot be read, where that is known without reading it.
    """

    name: str
    place: Any
    stamp: list[int] | None = None
    fault: str | None = None

    def open(self) -> Any:
        """What `rw_keras.photos.reading.read_image` takes."""
        if self.fault is not None:
            raise ImageError(self.fault)
        if not isinstance(self.place, tuple):
            return self.place
        archive, offset, size = self.place
        return io.BufferedReader(_Member(archive, offset, size, f"{self.name} in {archive}"), 1 << 20)


class _Member(io.RawIOBase):
    """A part of a file as a file, of which no more is read than is asked for."""

    def __init__(self, path, offset, size, name):
        super().__init__()
        self._file, self._offset, self._size, self._at = io.FileIO(path), offset, size, 0
        self.name = name

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, place, whence=os.SEEK_SET):
        self._at = max(0, place + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, buffer):
        self._file.seek(self._offset + self._at)
        count = self._file.readinto(memoryview(buffer)[: max(0, self._size - self._at)])
        self._at += count
        return count

    def close(self):
        if not self.closed:
            self._file.close()
        super().close()


def photo_items(photos: Any) -> Iterator[Item] | list[Item]:
    """The photos of a source, in its order.

    Args:
        photos: a folder (with those below it, sorted by name; a name is the path below it, with "/"); a glob pattern such as
            "photos/**/*.jpg" (a name is the path as found); a `.tar` archive (WebDataset's layout: what is no photo is
            passed over; a name is the member's, and nothing is unpacked, wherever it points); a text file that lists paths, one
            a line, or ended by zero bytes, relative to its own folder (a name is the line); a `tf.data.Dataset` of photos
            `(H, W, 3)`, or of pairs of a photo and its name (without one the name is its number); or a list of paths and arrays.

    Returns:
        A list, or an iterator for a dataset, whose length is not known.

    Raises:
        FileNotFoundError, ImageError: when there is no such source, or no photo in it.
    """
    if hasattr(photos, "element_spec"):
        return _of_dataset(photos)
    if isinstance(photos, list) and photos and all(isinstance(photo, Item) for photo in photos):
        return photos
    if not isinstance(photos, (str, os.PathLike)):
        given = [_given(number, photo) for number, photo in enumerate(photos)]
        if not given:
            raise ImageError("There is no photo in the list; pass one that holds some.")
        return _distinct(given, "the list")
    path = os.fspath(photos)
    if os.path.isdir(path):
        found = _of_folder(path)
    elif path.lower().endswith(_COMPRESSED):
        raise ImageError(f"{path} is compressed, so a photo in it cannot be reached by itself; unpack it to a plain .tar first.")
    elif os.path.isfile(path) and path.lower().endswith(ARCHIVES):
        found = _of_archive(path)
    elif os.path.isfile(path):
        if pathlib.PurePath(path).suffix.lower() in formats.LISTED:
            raise ImageError(f"{path} is one photo; pass a folder, a list file, a glob or a .tar archive.")
        found = _of_list(path)
    elif glob.has_magic(path):
        found = [_of_path(name, name) for name in sorted(glob.glob(path, recursive=True)) if not os.path.isdir(name)]
    else:
        raise FileNotFoundError(f"There is no folder, list file or archive {path}; pass one that holds the photos.")
    if not found:
        raise ImageError(f"There is no photo in {path} ({', '.join(sorted(formats.EXTENSIONS))}); pass a source that holds some.")
    return _distinct(found, path)


def _of_folder(folder):
    found = []

    def note(error):
        """A folder that cannot be listed now: what lies in it is not known, so it stands for all of that."""
        inside = os.path.relpath(error.filename, folder)
        if inside == os.curdir:
            raise error
        name = f"{inside.replace(os.sep, '/')}/"
        found.append(Item(name, error.filename, None, f"{error.filename} cannot be listed: {error.strerror}."))

    for parent, folders, files in os.walk(folder, onerror=note):
        below = os.path.relpath(parent, folder)
        for name in [*files, *folders]:
            if os.path.splitext(name)[1].lower() in formats.LISTED:
                inside = name if below == os.curdir else os.path.join(below, name)
                found.append(_of_path(os.path.join(parent, name), inside.replace(os.sep, "/")))
    return sorted(found, key=lambda item: pathlib.PurePath(item.name).parts)


def _of_path(path, name):
    if "\0" in path:
        return Item(name, path, None, f"{printable(path)} has a NUL byte in it, as no file's name has; pass the path of a photo.")
    try:
        about = os.stat(path)
    except OSError:
        return Item(name, path)  # reading it says what is wrong
    if stat.S_ISDIR(about.st_mode):
        return Item(name, path, None, f"{path} is a folder; pass the path of a photo.")
    if not stat.S_ISREG(about.st_mode):
        return Item(name, path, None, f"{path} is no file but a pipe, a socket or a device; pass the path of a photo.")
    return Item(name, path, _stamp(name, about.st_size, about.st_mtime_ns))


def _stamp(name, size, time):
    return [size, time] if formats.is_readable(os.path.splitext(name)[1]) else None


def _of_list(path):
    with open(path, "rb") as file:
        content = file.read()
    end = b"\0" if b"\0" in content else b"\n"
    names = [os.fsdecode(line.removesuffix(b"\r") if end == b"\n" else line) for line in content.split(end)]
    folder = os.path.dirname(path)
    return [_of_path(os.path.join(folder, name), name) for name in names if name.strip()]


def _of_archive(path):
    found, last = [], None
    try:
        with tarfile.open(path, "r:") as archive:
            length = os.path.getsize(path)
            for member in archive:
                last = member.name
                if not member.offset_data <= archive.offset <= length:
                    archive.offset = _next_header(archive.fileobj, member, length)
                if os.path.splitext(member.name)[1].lower() in formats.LISTED and not member.isdir():
                    found.append(_of_member(path, member, length))
            # `tarfile` takes a damaged header for the end, and so would an update take the photos behind it for gone.
            archive.fileobj.seek(archive.offset)
            block = archive.fileobj.read(tarfile.BLOCKSIZE)
            if block != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("its header is damaged" if block else "it has no end, as if it were cut off")
    except (tarfile.TarError, OSError, ValueError, RecursionError) as error:
        where = "" if last is None else f" after its member {printable(last)}"
        raise ImageError(f"{path} cannot be read as a tar archive{where}: {error}; make it again.") from error
    return found


def _next_header(file, member, length):
    """Where the archive goes on behind a member whose header has a size that cannot be."""
    place = member.offset_data
    while place < length:
        file.seek(place)
        block = file.read(tarfile.BLOCKSIZE)
        if block[257:262] == b"ustar" and _is_header(block):
            return place
        if block.strip(b"\0"):
            place += tarfile.BLOCKSIZE
            continue
        end = _end_of_zeros(file, place)
        if end is None:
            return place
        place = end - end % tarfile.BLOCKSIZE
    raise tarfile.ReadError(f"the archive ends within it, or the size in its header, {member.size} bytes, is wrong")


def _is_header(block):
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    return True


def _end_of_zeros(file, place):
    """Where the next byte is that is not zero; `None` where there is none."""
    file.seek(place)
    while content := file.read(1 << 20):
        if rest := content.lstrip(b"\0"):
            return place + len(content) - len(rest)
        place += len(content)
    return None


def _of_member(path, member, length):
    """A photo in an archive of so many bytes. One that cannot be read has a fault, and the others are read all the same."""

    def faulty(what):
        return Item(member.name, path, None, f"{printable(member.name)} in {path} {what}")

    if member.islnk() or member.issym():
        return faulty(f"is a link to {printable(member.linkname)}; put the photo itself into the archive.")
    if member.issparse():
        return faulty("is stored as a sparse file; put it into the archive as a plain one.")
    if not member.isreg():
        return faulty("is a pipe, a device or of an unknown kind; put the photo itself into the archive.")
    if not 0 <= member.size <= length - member.offset_data:
        return faulty(f"has {member.size} bytes by its header, of the archive's {length}; make the archive again.")
    # A header may give any number as the time, or none; a stamp keeps 64 bits.
    time = int(member.mtime * 1_000_000_000) if abs(member.mtime) < 9e9 else 0
    return Item(member.name, (path, member.offset_data, member.size), _stamp(member.name, member.size, time))


def _of_dataset(dataset):
    seen = set()
    for number, element in enumerate(dataset.as_numpy_iterator()):
        photo, name = (element[0], element[1]) if isinstance(element, tuple) and len(element) > 1 else (element, None)
        photo = photo[0] if isinstance(photo, tuple) else photo
        name = os.fsdecode(name) if isinstance(name, (bytes, str)) else f"{number:08d}"
        if name in seen:
            raise ImageError(f"The dataset names {name!r} twice; name each photo once.")
        seen.add(name)
        yield Item(name, np.asarray(photo))
    if not seen:
        raise ImageError("There is no photo in the dataset; pass one that gives some.")


def _given(number, photo):
    if isinstance(photo, (str, os.PathLike)):
        return _of_path(os.fspath(photo), os.fspath(photo))
    return Item(f"{number:08d}", photo)


def _distinct(items, source):
    seen = set()
    for item in items:
        if item.name in seen:
            raise ImageError(f"{source} names {item.name!r} twice; name each photo once.")
        seen.add(item.name)
    return items
