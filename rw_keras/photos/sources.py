"""Where photos come from: a folder, a list, a glob, a tar archive, a dataset. Each as one ordered row of photos with a name."""

import dataclasses
import glob
import io
import os
import pathlib
import stat
import tarfile
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from rw_keras.files import printable
from rw_keras.photos import formats
from rw_keras.photos.reading import ImageError, broken_link

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

    @property
    def is_file(self) -> bool:
        """Whether it is a file, or a part of one; else it is an array, which has only its name."""
        return isinstance(self.place, (str, os.PathLike, tuple))

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
        photos: a folder (see `folder_items`; a name is the path below it, with "/"); a glob pattern such as
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
        found = folder_items(path)
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


def folder_items(folder: str | os.PathLike[str]) -> list[Item]:
    """The photos in a folder and in those below it: the one place that lists folders.

    A photo is known by its ending (`rw_keras.photos.formats.LISTED`); a name is the path below the folder, with "/"; the order is
    that of the paths' parts. Symbolic links are followed, to photos as to folders; a folder that lies in itself by way of a link is
    not entered again. What cannot be read is an item with a `fault`: a folder that is named like a photo, and a folder, or a link
    to one, that cannot be listed now. Of such a folder the name ends in "/", and it stands for all that lies in it.

    Raises:
        FileNotFoundError: when there is no such folder.
        OSError: when it cannot be listed.
        ImageError: when there is no photo in it.
    """
    top = os.fspath(folder)
    if not os.path.isdir(top):
        raise FileNotFoundError(f"There is no folder {top}; pass the folder that holds the photos.")
    found: list[Item] = []
    waiting = [(top, "", (os.path.realpath(top),))]
    while waiting:
        path, name, above = waiting.pop()
        try:
            with os.scandir(path) as entries:
                entries = list(entries)
        except OSError as error:
            if not name:
                raise
            found.append(Item(f"{name}/", path, None, f"{path} cannot be listed: {error.strerror}."))
            continue
        for entry in entries:
            inside = f"{name}/{entry.name}" if name else entry.name
            is_photo = os.path.splitext(entry.name)[1].lower() in formats.LISTED
            is_folder, fault = _is_folder(entry)
            if is_photo:
                found.append(_of_path(entry.path, inside))
            elif fault is not None:
                found.append(Item(f"{inside}/", entry.path, None, fault))
            if is_folder:
                real = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(above[-1], entry.name)
                if real not in above:
                    waiting.append((entry.path, inside, (*above, real)))
    if not found:
        raise ImageError(f"There is no photo in {top} ({', '.join(sorted(formats.EXTENSIONS))}); pass a source that holds some.")
    return sorted(found, key=lambda item: pathlib.PurePath(item.name).parts)


def _is_folder(entry):
    """Whether an entry is a folder, and why that cannot be known, as of a link to a folder on a disk that is away."""
    try:
        is_folder = entry.is_dir()
    except OSError as error:
        return False, f"{entry.path} cannot be looked at: {error.strerror}."
    if not is_folder and entry.is_symlink() and not os.path.exists(entry.path):
        return False, broken_link(entry.path)
    return is_folder, None


def list_photos(folder: str | os.PathLike[str]) -> list[pathlib.Path]:
    """The paths of the photos that `folder_items` finds, in its order; of what cannot be read a warning tells.

    Raises:
        FileNotFoundError, OSError, ImageError: see `folder_items`; also when none of what it finds can be read.
    """
    items = folder_items(folder)
    faults = [item.fault for item in items if item.fault is not None]
    listed = "".join(f"\n  {fault}" for fault in faults)
    if len(faults) == len(items):
        raise ImageError(f"There is no photo in {folder} that can be read:{listed}")
    if faults:
        warnings.warn(f"{len(faults)} entries of {folder} were left out:{listed}", stacklevel=2)
    return [pathlib.Path(item.place) for item in items if item.fault is None]


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
    return Item(name, path, stamp(name, about.st_size, about.st_mtime_ns))


def stamp(name: str, size: int, time: int) -> list[int] | None:
    """See `Item.stamp`: of a file called `name`, with its size in bytes and the time of its last change in nanoseconds."""
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
    return Item(member.name, (path, member.offset_data, member.size), stamp(member.name, member.size, time))


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
