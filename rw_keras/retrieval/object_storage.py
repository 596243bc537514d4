"""Copies of indices in object storage: a state that was committed goes there, and comes back, whole or not at all.

A copy is a folder of objects, `files/SHA256`, and `manifest.json`, which is written last and says which of them are its files. An
object never changes, so whoever reads a manifest finds what it names, and what an earlier copy has in common is not sent again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

from rw_keras import storage
from rw_keras.files import written_whole
from rw_keras.retrieval import store
from rw_keras.retrieval.schema import DATABASE, check_target, connected, fields_of, layout, reading, said
from rw_keras.retrieval.segments import synced

_FORMAT = 1
_MANIFEST = "manifest.json"
# Bytes that are in memory at once: a file of rows has 128 MB, and storage wants parts of 5 MB at least.
_PART = 16 << 20
_COMPARED = ("photos", "identity", "generation")


@dataclasses.dataclass(frozen=True)
class Copied:
    """What `push` or `pull` did.

    Attributes:
        photos: described photos in the index.
        files, bytes: of the index, and how many of these
        sent: bytes were sent, or fetched, now; the others were there already.
    """

    photos: int
    files: int
    bytes: int
    sent: int

    def __str__(self) -> str:
        return f"{self.photos} photos in {self.files} files, {self.bytes} bytes, {self.sent} of them copied now"


def push(folder: str | os.PathLike[str], url: str, replace: bool = False) -> Copied:
    """Copies the state of an index that was committed last to object storage.

    It may be written meanwhile. What takes the place of an earlier copy of the index does so in one step, at the end; a run that is
    killed leaves that copy as it was, and the next one sends what is not there yet. All that was sent is read again, and compared
    by its SHA-256, before it counts.

    Args:
        folder: the index.
        url: a folder in storage, such as `s3://bucket/my_photos`: an earlier copy, or empty.
        replace: whether the copy there may be of another index, or of a later state of this one. It is then gone.

    Raises:
        FileNotFoundError: when there is no index.
        ValueError: when it is damaged, is of an earlier format, or when there is something else at `url`, also a copy of another
            index, or of a later state.
        StorageError: (an OSError) when storage cannot be reached, or keeps other bytes than were sent.
        ImportError: see `rw_keras.storage.filesystem`.
    """
    folder = pathlib.Path(folder)
    files, root = storage.filesystem(url)
    _check_sound(folder)
    earlier = _manifest(files, root, url)
    if earlier is None:
        _check_empty(files, root, url)
    with contextlib.ExitStack() as stack:
        about, opened = _snapshot(folder, stack)
        if earlier is not None and not replace:
            _check_replaces(folder, about, url, earlier)
        entries, sent = [], 0
        verified = {} if earlier is None else {entry["sha256"]: entry["bytes"] for entry in earlier["files"]}
        for name, (file, size) in opened.items():
            digest = _digest(_parts(file, size))
            key = f"{root}/files/{digest}"
            # Objects of the earlier copy were compared when it was made; others may be what a killed run has left.
            if verified.get(digest) != size or _size(files, key, url) != size:
                if _size(files, key, url) != size:
                    _send(files, key, file, size, url)
                    sent += size
                if _digest(_fetched(files, key, size, url)) != digest:
                    storage.patiently(lambda key=key: files.rm_file(key), url)
                    raise storage.StorageError(f"{storage.shown(url)} keeps other bytes of {name} than were sent; run again.")
            entries.append({"name": name, "bytes": size, "sha256": digest})
    manifest = {"format": _FORMAT, **about, "files": entries}
    _write_manifest(files, root, manifest, url)
    if _manifest(files, root, url) != manifest:
        raise storage.StorageError(f"{storage.shown(url)} keeps another manifest than was sent: another push goes on; run again.")
    for digest in verified.keys() - {entry["sha256"] for entry in entries}:
        with contextlib.suppress(storage.StorageError):  # it takes room, and nothing names it
            storage.patiently(lambda digest=digest: files.rm_file(f"{root}/files/{digest}"), url)
    return Copied(about["photos"], len(entries), sum(entry["bytes"] for entry in entries), sent)


def pull(url: str, folder: str | os.PathLike[str]) -> Copied:
    """Makes an index of a copy in object storage.

    It appears whole, once each of its files has the SHA-256 that was noted, and all of it has been read and compared with its
    checksums. A run that is killed leaves its files beside `folder`, and the next one fetches what is missing.

    Args:
        url: a folder in storage that `push` has written.
        folder: the new index; there is none yet.

    Raises:
        ValueError: when there is something at `folder`, or the copy is of a later version or damaged.
        FileNotFoundError: when there is no copy at `url`.
        StorageError: (an OSError) when storage cannot be reached.
        ImportError: see `rw_keras.storage.filesystem`.
    """
    folder = check_target(folder)
    if folder.exists() and os.listdir(folder):
        raise ValueError(f"There is something at {folder} already; choose another name.")
    files, root = storage.filesystem(url)
    manifest = _manifest(files, root, url)
    if manifest is None:
        raise storage.MissingError(f"There is no index at {storage.shown(url)} (no {_MANIFEST}); copy one with `rw-keras push`.")
    part = folder.absolute().with_name(f".{folder.name}.pulled")
    part.mkdir(parents=True, exist_ok=True)
    wanted = {entry["name"]: entry for entry in manifest["files"]}
    for path in part.iterdir():  # of another state, or in the making
        if path.name not in wanted:
            path.unlink()
    sent = 0
    for name, entry in wanted.items():
        if not _is_there(part / name, entry):
            _fetch(files, f"{root}/files/{entry['sha256']}", part / name, entry, url)
            sent += entry["bytes"]
    _check_pulled(part, manifest, url)
    synced(part)
    os.replace(part, folder.absolute())
    synced(folder.absolute().parent)
    return Copied(manifest["photos"], len(wanted), sum(entry["bytes"] for entry in wanted.values()), sent)


def _check_sound(folder):
    """Refuses a damaged index, which must not take the place of a sound copy."""
    if not (folder / DATABASE).is_file():
        store.read(folder)  # says that there is none
        raise ValueError(f"{folder} has an earlier format; bring it up to date with `rw-keras index` first, which converts it.")
    damages = store.check(folder)
    if damages:
        raise ValueError(f"{folder} is damaged ({damages[0].file}: {damages[0].what}); `rw-keras check {folder}` tells all.")


def _snapshot(folder, stack):
    """What the index says of itself, and its files: name -> (file, how many of its bytes count).

    The files stay open, so that a writer may go on, and give files up, while they are sent.
    """
    copy = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory())) / DATABASE
    opened: dict[str, tuple[BinaryIO, int]] = {}
    with reading(folder) as database:
        fields = fields_of(folder, database)
        photos = database.execute("SELECT count(*) FROM photos WHERE row IS NOT NULL").fetchone()[0]
        for kind, name, count in database.execute("SELECT kind, file, count FROM segments ORDER BY id").fetchall():
            dimensions, dtype = layout(fields, kind)
            opened[name] = _opened(folder, name, count * dimensions * np.dtype(dtype).itemsize, stack)
        searcher = (fields.get("searcher") or {}).get("file")
        if searcher and (folder / searcher).is_file():
            opened[searcher] = _opened(folder, searcher, (folder / searcher).stat().st_size, stack)
        with contextlib.closing(sqlite3.connect(copy)) as target:
            database.backup(target)
    opened[DATABASE] = _opened(copy.parent, DATABASE, copy.stat().st_size, stack)
    about = {"photos": photos, "identity": fields["identity"], "generation": fields["generation"]}
    return about, dict(sorted(opened.items()))


def _opened(folder, name, size, stack):
    if pathlib.PurePath(name).name != name or not (folder / name).is_file() or (folder / name).stat().st_size < size:
        raise ValueError(f"{folder / name} is missing or cut short; `rw-keras check {folder}` tells what is damaged.")
    return stack.enter_context(open(folder / name, "rb")), size


def _manifest(files, root, url):
    """The manifest of a copy; `None` where there is none."""
    try:
        content = storage.patiently(lambda: files.cat_file(f"{root}/{_MANIFEST}"), f"{url.rstrip('/')}/{_MANIFEST}")
    except storage.MissingError:
        return None
    shown = f"{storage.shown(url).rstrip('/')}/{_MANIFEST}"
    try:
        manifest = json.loads(content)
        if manifest["format"] > _FORMAT:
            raise ValueError(
                f"{shown} has format {manifest['format']}, and this version reads up to {_FORMAT}; install a later one."
            )
        for entry in manifest["files"]:
            if pathlib.PurePath(entry["name"]).name != entry["name"] or not {*entry} >= {"bytes", "sha256"}:
                raise KeyError("name")
        return {"format": manifest["format"], **{field: manifest[field] for field in _COMPARED}, "files": manifest["files"]}
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{shown} is no manifest of an index; choose another URL.") from error


def _write_manifest(files, root, manifest, url):
    content, path = json.dumps(manifest, indent=1).encode("ascii"), f"{root}/{_MANIFEST}"
    if "file" in files.protocol:  # an object appears whole by itself
        with written_whole(path) as file:
            file.write(content)
    else:
        storage.patiently(lambda: files.pipe_file(path, content), url)


def _check_empty(files, root, url):
    """Refuses a folder that holds something else than what a push that was killed has left."""
    try:
        found = storage.patiently(lambda: files.ls(root, detail=False), url)
    except storage.MissingError:
        return
    others = [path for path in found if path.rstrip("/") not in (root, f"{root}/files")]
    if others:
        raise ValueError(
            f"{storage.shown(url)} holds {others[0].rpartition('/')[2]!r} and is no copy of an index; choose another URL."
        )


def _check_replaces(folder, about, url, earlier):
    """Refuses a state that is not one that the copy there came to."""
    here, there, shown = about["photos"], earlier["photos"], storage.shown(url)
    if about["identity"] != earlier["identity"]:
        words = (
            f"{shown} is a copy of another index ({earlier['identity']}, {there} photos) than {folder} ({about['identity']}, "
            f"{here} photos), which one that was made again with --force is, too"
        )
    elif about["generation"] < earlier["generation"]:
        words = (
            f"{shown} has a later state of the index ({earlier['generation']}, {there} photos) than {folder} "
            f"({about['generation']}, {here} photos)"
        )
    else:
        return
    raise ValueError(f"{words}. Choose another URL, or push with --replace (in Python: replace=True) to do without that copy.")


def _size(files, key, url):
    try:
        return storage.patiently(lambda: files.info(key), url)["size"]
    except storage.MissingError:
        return None


def _parts(file: BinaryIO, size: int) -> Iterator[bytes]:
    file.seek(0)
    while size:
        part = file.read(min(size, _PART))
        if not part:
            raise OSError(f"{file.name} was cut short while it was read; `rw-keras check` tells what is damaged")
        size -= len(part)
        yield part


def _digest(parts):
    sha256 = hashlib.sha256()
    for part in parts:
        sha256.update(part)
    return sha256.hexdigest()


def _send(files, key, file, size, url):
    def send():
        with files.open(key, "wb") as target:  # in parts, and whole or not at all
            for part in _parts(file, size):
                target.write(part)

    if "file" in files.protocol:
        with written_whole(key) as target:
            target.writelines(_parts(file, size))
        synced(pathlib.Path(key).parent)
    else:
        storage.patiently(send, url)


def _fetched(files, key, size, url):
    url = f"{url.rstrip('/')}/files/{key.rpartition('/')[2]}"
    for start in range(0, size, _PART):
        stop = min(start + _PART, size)
        content = storage.patiently(lambda start=start, stop=stop: files.cat_file(key, start=start, end=stop), url)
        if len(content) != stop - start:
            raise storage.StorageError(f"{storage.shown(url)} is cut short; push the index again.")
        yield content


def _is_there(path: pathlib.Path, entry: Mapping[str, Any]) -> bool:
    if not path.is_file() or path.stat().st_size != entry["bytes"]:
        return False
    with open(path, "rb") as file:
        return _digest(_parts(file, entry["bytes"])) == entry["sha256"]


def _fetch(files, key, path, entry, url):
    sha256 = hashlib.sha256()
    with open(path, "wb") as file:
        for part in _fetched(files, key, entry["bytes"], url):
            sha256.update(part)
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
    if sha256.hexdigest() != entry["sha256"]:
        path.unlink()
        raise ValueError(f"{storage.shown(url)} holds other bytes of {entry['name']} than its manifest says; push the index again.")


def _check_pulled(folder, manifest, url):
    """Compares what came with its own checksums, and its photos with how many the manifest says."""
    damages = store.check(folder)
    with said(folder, DATABASE), contextlib.closing(connected(folder / DATABASE)) as database:
        (photos,) = database.execute("SELECT count(*) FROM photos WHERE row IS NOT NULL").fetchone()
    if damages or photos != manifest["photos"]:
        shutil.rmtree(folder)
        what = f"{damages[0].file}: {damages[0].what}" if damages else f"it has {photos} photos, not {manifest['photos']}"
        raise ValueError(f"{storage.shown(url)} holds a damaged index ({what}); push a sound one.")
