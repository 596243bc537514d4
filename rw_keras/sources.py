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

from rw_keras.images import EXTENSIONS, ImageError

ARCHIVES = (".tar",)
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """A photo that has not been read.

    Attributes:
        name: what it is called in the index; unique within a source.
        place: a path, an array of pixels, or (archive, offset, size).
        stamp: [size in bytes, time of its last change in nanoseconds], by which a change is seen; `None` where there is none.
        fault: why it cannot be read, where that is known without reading it.
    """

    name: str
    place: Any
    stamp: list[int] | None = None
    fault: str | None = None

    def open(self) -> Any:
        """What `rw_keras.images.read_image` takes."""
        if self.fault is not None:
            raise ImageError(self.fault)
        if not isinstance(self.place, tuple):
            return self.place
        archive, offset, size = self.place
        with open(archive, "rb") as file:
            file.seek(offset)
            content = io.BytesIO(file.read(size))
        content.name = f"{self.name} in {archive}"
        return content


def photo_items(photos: Any) -> Iterator[Item] | list[Item]:
    """The photos of a source, in its order.

    Args:
        photos: a folder (with those below it, sorted by name; a name is the path below it, with "/"); a glob pattern such as
            "photos/**/*.jpg" (a name is the path as found); a `.tar` archive (WebDataset's layout: what is no photo is
            passed over; a name is the member's); a text file that lists paths, one a line, or ended by zero bytes,
            relative to its own folder (a name is the line); a `tf.data.Dataset` of photos `(H, W, 3)`, or of pairs of a photo
            and its name (without one the name is its number); or a list of paths and arrays.

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
        if pathlib.PurePath(path).suffix.lower() in EXTENSIONS:
            raise ImageError(f"{path} is one photo; pass a folder, a list file, a glob or a .tar archive.")
        found = _of_list(path)
    elif glob.has_magic(path):
        found = [_of_path(name, name) for name in sorted(glob.glob(path, recursive=True)) if not os.path.isdir(name)]
    else:
        raise FileNotFoundError(f"There is no folder, list file or archive {path}; pass one that holds the photos.")
    if not found:
        raise ImageError(f"There is no photo in {path} ({', '.join(sorted(EXTENSIONS))}); pass a source that holds some.")
    return _distinct(found, path)


def _of_folder(folder):
    found = []
    for parent, folders, files in os.walk(folder):
        below = os.path.relpath(parent, folder)
        for name in [*files, *folders]:
            if os.path.splitext(name)[1].lower() in EXTENSIONS:
                inside = name if below == os.curdir else os.path.join(below, name)
                found.append(_of_path(os.path.join(parent, name), inside.replace(os.sep, "/")))
    return sorted(found, key=lambda item: pathlib.PurePath(item.name).parts)


def _of_path(path, name):
    try:
        about = os.stat(path)
    except OSError:
        return Item(name, path)  # reading it says what is wrong
    if stat.S_ISDIR(about.st_mode):
        return Item(name, path, None, f"{path} is a folder; pass the path of a photo.")
    if not stat.S_ISREG(about.st_mode):
        return Item(name, path, None, f"{path} is no file but a pipe, a socket or a device; pass the path of a photo.")
    return Item(name, path, [about.st_size, about.st_mtime_ns])


def _of_list(path):
    with open(path, "rb") as file:
        content = file.read()
    end = b"\0" if b"\0" in content else b"\n"
    names = [os.fsdecode(line.removesuffix(b"\r") if end == b"\n" else line) for line in content.split(end)]
    folder = os.path.dirname(path)
    return [_of_path(os.path.join(folder, name), name) for name in names if name.strip()]


def _of_archive(path):
    try:
        with tarfile.open(path, "r:") as archive:
            return [
                Item(member.name, (path, member.offset_data, member.size), [member.size, int(member.mtime * 1_000_000_000)])
                for member in archive
                if member.isfile() and os.path.splitext(member.name)[1].lower() in EXTENSIONS
            ]
    except (tarfile.TarError, OSError) as error:
        raise ImageError(f"{path} cannot be read as a tar archive: {error}; make it again.") from error


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
