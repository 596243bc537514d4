"""Changes of an index while it is served: a photo is put, or deleted, and that is on the disk when the function returns.

Each is one short transaction of the index's one writer (`rw_keras.retrieval.writer`), so `rw-keras index` may run beside the
service: while it does, changes raise `Busy`. A photo that is put has its file in the folder of the photos first, and then its row,
with the stamp that `rw-keras index` would give it. A process that ends between the two leaves the file: the next `rw-keras index`
describes it, unless the name is excluded, and the same `put` once more does so in any case.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import pathlib
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rw_keras.description.describe import Batch, describing
from rw_keras.description.job import made_by
from rw_keras.files import inside, written_whole
from rw_keras.model.recipe import Recipe, max_side_of, smallest_side
from rw_keras.photos import formats
from rw_keras.photos.reading import read_image
from rw_keras.photos.sources import stamp
from rw_keras.retrieval import places, store
from rw_keras.retrieval.schema import name_bytes
from rw_keras.retrieval.segments import naming, synced
from rw_keras.retrieval.writer import LockedError
from rw_keras.service.photo_files import real_path

if TYPE_CHECKING:
    import keras

    from rw_keras.runtimes import Describer


# Rows that no photo has any longer are given up each time that so many photos have been put. At 100 000 photos that takes 0.05
# seconds, and 0.6 where 40 000 of them are gone.
_COMPACTED = 1024


class Busy(OSError):  # noqa: N818
    """Another process, or another thread of this one, writes the index: ask again when it has ended."""


def put(
    index_folder: str | os.PathLike[str],
    source: str | os.PathLike[str] | None,
    name: str,
    data: bytes,
    describer: keras.Model | Describer,
) -> bool:
    """Puts a photo into the folder of the photos, and its row into the index; a name that was excluded is taken back.

    A photo that cannot be decoded changes nothing. A file that has the name is replaced, and so is a link to another photo in the
    folder, which stays as it is. The metadata of a photo that is replaced stays.

    Args:
        index_folder: the index.
        source: the folder of its photos.
        name: the path below that folder, with "/".
        data: the bytes of a photo, in a format that is read (`rw_keras.photos.formats`).
        describer: the model that made the index, or what `rw_keras.runtimes.load` made of it.

    Returns:
        Whether the index held a descriptor of a photo of this name.

    Raises:
        Busy: when the index is being written, for longer than two seconds.
        ImageError: (a ValueError) when the photo cannot be decoded, or is too small.
        ValueError: for a name that is not allowed, no folder of photos, or a model that did not make the index.
        FileNotFoundError: when there is no index.
        OSError: when something cannot be written; the index is then as it was.
    """
    about = _about(index_folder)
    path = _target(index_folder, source, name)
    max_side = max_side_of(about["recipe"])
    described = _described(about, max_side, name, data, describer)
    made = {**Recipe.of(describer), "max_side": max_side}
    digest = hashlib.sha256(data).hexdigest()
    with _writing(index_folder, made, describer.output_shape[-1]) as writer:
        if bool(writer.about.get("regions")) != (described.regions is not None):
            raise Busy(
                errno.EAGAIN, f"{places.shown(index_folder)} was made again in another way meanwhile; put the photo once more"
            )
        known = writer.find([name]).get(name)
        for field, value in made_by(writer.about, describer).items():
            writer.set(field, value)
        size_and_time = stamp(name, *_write(path, data))
        own = None if size_and_time is None else [*size_and_time, digest]
        writer.put([name], described.descriptors, [own], listed=True, regions=described.regions)
        writer.commit()
        if writer.about["next_row"] % _COMPACTED == 0:
            with contextlib.suppress(OSError, store.DamageError):  # the photo is there, and the next update says what is wrong
                writer.finish()
    return known is not None and known.described


def delete(index_folder: str | os.PathLike[str], name: str) -> None:
    """Takes a photo out of the index, and excludes its name from later updates; its file stays.

    Args:
        index_folder: the index.
        name: of the photo.

    Raises:
        Busy: when the index is being written, for longer than two seconds.
        KeyError: when the index knows no such photo.
        FileNotFoundError: when there is no index.
        OSError: when it cannot be written; it is then as it was.
    """
    about = _about(index_folder)
    with _writing(index_folder, about["recipe"], about["dimensions"]) as writer:
        if not writer.find([name]):
            raise KeyError(name)
        writer.exclude([name])
        writer.commit()


def _about(folder):
    about = places.about(folder)
    if about is None:
        raise FileNotFoundError(f"There is no index at {places.shown(folder)}; make one with `rw-keras index`.")
    return about


@contextlib.contextmanager
def _writing(folder: str | os.PathLike[str], recipe: Any, dimensions: int) -> Iterator[places.IndexWriter]:
    """The writer of an index."""
    try:
        with places.writer(folder, recipe, dimensions, keeps_begun=True) as writer:
            yield writer
    except LockedError as error:
        raise Busy(errno.EAGAIN, str(error)) from error
    except OSError as error:
        if error.errno == errno.EAGAIN:  # a reader kept the database for a minute
            raise Busy(error.errno, error.strerror, error.filename) from error
        raise


def _described(about, max_side, name, data, describer) -> Batch:
    """What a photo is described as, in the way of the index."""
    file = io.BytesIO(data)
    file.name = name  # for messages, and for what a format is told by
    pixels = read_image(file, None, max_side, smallest_side(describer))
    return describing(describer, bool(about.get("regions")))(pixels[None])


def _target(index_folder, source, name):
    """Where a photo of a name goes; a ValueError where none may."""
    if source is None or not os.path.isdir(source):
        where = "its photos did not come from a folder" if source is None else f"{source} is not a folder now"
        raise ValueError(
            f"No photo can be put into {places.shown(index_folder)}: {where}; make the index of a folder with `rw-keras index`."
        )
    name_bytes(name)
    parts = name.split("/")
    if "\0" in name or any(not part or part.startswith(".") for part in parts):
        raise ValueError(
            "The name of a photo is a path below the folder of the photos, such as more/a.jpg, without a NUL, and no part of it "
            f"is empty or begins with a dot, but got {name!r}."
        )
    if os.path.splitext(parts[-1])[1].lower() not in formats.LISTED:
        raise ValueError(f"A photo's name ends as one that is read ({', '.join(sorted(formats.LISTED))}), but got {name!r}.")
    path, above = inside(source, name), "/".join(parts[:-1])
    if path is None or real_path(source, name) is None or (above and real_path(source, above) is None):
        raise ValueError(f"The name {name!r} leads out of the folder of the photos by a link; choose another name.")
    own = None if places.is_milvus(index_folder) else os.path.realpath(index_folder)
    if own is not None and os.path.commonpath([own, os.path.realpath(os.path.dirname(path))]) == own:
        raise ValueError(f"The name {name!r} is of a file among those of the index itself; choose another name.")
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return pathlib.Path(path)
    except OSError as error:  # it is too long, or a part of it is a file
        raise ValueError(f"No file can have the name {name!r}: {error.strerror}; choose another one.") from None
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise ValueError(f"{name!r} is no file but a folder, a pipe, a socket or a device; choose another name.")
    return pathlib.Path(path)


def _write(path, data):
    """Writes the file of a photo; its size in bytes and the time of its last change in nanoseconds."""
    made = path.parent
    while not made.exists():
        made = made.parent
    with naming(path), written_whole(path) as file:
        file.write(data)
        file.flush()
        about = os.fstat(file.fileno())
    for folder in path.parents:
        synced(folder)
        if folder == made:
            break
    return about.st_size, about.st_mtime_ns
