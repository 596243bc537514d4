"""Where photos come from: a folder, a list, a glob, a tar archive, a dataset, a URL. Each is an ordered row of named photos."""

import glob
import os
import pathlib
import stat
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from rw_keras.files import printable
from rw_keras.photos import archives, formats, remote
from rw_keras.photos.items import EmptySourceError, Item, stamp
from rw_keras.photos.listing import Listing
from rw_keras.photos.reading import ImageError, broken_link
from rw_keras.storage import is_url

__all__ = ["EmptySourceError", "Item", "Listing", "folder_items", "list_photos", "photo_items", "stamp"]


def photo_items(photos: Any) -> Iterator[Item] | list[Item] | Listing:
    """The photos of a source, in its order.

    Args:
        photos: a folder (see `folder_items`; a name is the path below it, with "/"); a glob pattern such as
            "photos/**/*.jpg" (a name is the path as found); a `.tar` archive (WebDataset's layout: what is no photo is
            passed over; a name is the member's, and nothing is unpacked, wherever it points); a text file that lists paths, one
            a line, or ended by zero bytes, relative to its own folder (a name is the line); a `tf.data.Dataset` of photos
            `(H, W, 3)`, or of pairs of a photo and its name (without one the name is its number); or a list of paths and arrays.
            A folder, an archive, a list file, and what a list names may be given by a URL, such as `s3://bucket/photos/`; see
            `rw_keras.photos.remote.photos_at`.

    Returns:
        A list; of a URL, and of a list that names some, a `Listing`; an iterator for a dataset, whose length is not known, and for
        an archive that can only be read from its beginning to its end.

    Raises:
        FileNotFoundError, ImageError: when there is no such source, or no photo in it.
        OSError: when a source in storage cannot be listed, or a part of it cannot.
    """
    if hasattr(photos, "element_spec"):
        return _of_dataset(photos)
    if isinstance(photos, Listing) or (isinstance(photos, list) and photos and all(isinstance(photo, Item) for photo in photos)):
        return photos
    if not isinstance(photos, (str, os.PathLike)):
        given = [_given(number, photo) for number, photo in enumerate(photos)]
        if not given:
            raise EmptySourceError("There is no photo in the list; pass one that holds some.")
        return _distinct(given, "the list")
    path = os.fspath(photos)
    if is_url(path):
        return remote.photos_at(path)
    if os.path.isdir(path):
        found = folder_items(path)
    elif path.lower().endswith(archives.COMPRESSED):
        raise ImageError(archives.compressed(path))
    elif os.path.isfile(path) and path.lower().endswith(archives.ENDINGS):
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
        raise EmptySourceError(
            f"There is no photo in {path} ({', '.join(sorted(formats.EXTENSIONS))}); pass a source that holds some."
        )
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
        raise EmptySourceError(
            f"There is no photo in {top} ({', '.join(sorted(formats.EXTENSIONS))}); pass a source that holds some."
        )
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


def _of_list(path):
    folder = os.path.dirname(path)
    with open(path, "rb") as file:
        lines = list(remote.lines_of(file))
    return [_of_url(name) if is_url(name) else _of_path(os.path.join(folder, name), name) for name in lines]


def _of_url(url):
    return Item(url, remote.Remote(url))


def _of_archive(path):
    try:
        with open(path, "rb") as file:
            length = os.path.getsize(path)
            return list(archives.items_in(file, length, path, lambda member: (path, member.offset_data, member.size)))
    except OSError as error:
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
        raise EmptySourceError("There is no photo in the dataset; pass one that gives some.")


def _given(number, photo):
    if isinstance(photo, (str, os.PathLike)):
        path = os.fspath(photo)
        return _of_url(path) if is_url(path) else _of_path(path, path)
    return Item(f"{number:08d}", photo)


def _distinct(items, source):
    """The items of a list, those with a URL with their stamps, once their names are known to differ."""
    if any(isinstance(item.place, remote.Remote) for item in items):
        return Listing.spooled(remote.with_stamps(items), source)
    seen = set()
    for item in items:
        if item.name in seen:
            raise ImageError(f"{source} names {item.name!r} twice; name each photo once.")
        seen.add(item.name)
    return items
