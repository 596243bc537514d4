"""An index that grows while photos are described: what is finished stays, whatever happens to the process.

Described photos are first appended to a journal, a few hundred at a time; a full journal becomes a shard, and the manifest names
it. A killed process leaves a journal that may end in the middle of a record, which the next one cuts off.
"""

import contextlib
import json
import os
import pathlib
import zlib
from collections.abc import Iterable
from typing import Any

import filelock
import numpy as np

from rw_keras.retrieval import storage
from rw_keras.retrieval.int8 import encoded

# Size in bytes and time of the last change in nanoseconds, and where it was asked for the SHA-256 of the content.
Stamp = list[Any]


class Collection:
    """An index on disk that photos are added to and dropped from; a context manager that holds the index's lock.

    Args:
        folder: the index; made where it does not exist.
        recipe: how descriptors are made, `max_side` among it. An index of another recipe is refused.
        dimensions: of a descriptor.
        dtype: "float32", "float16" for half the space, or "int8" for a quarter; that of an index which exists already counts.
        about: more fields for the manifest, such as the versions of packages.
        anew: whether an index that is there is removed first.

    Raises:
        ValueError: when the folder is something else, is held by another process, or was made in another way.
        OSError: when it cannot be written.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        recipe: dict[str, Any],
        dimensions: int,
        dtype: str = "float32",
        about: dict[str, Any] | None = None,
        anew: bool = False,
    ) -> None:
        self.folder, self.recipe, self.dimensions = pathlib.Path(folder), recipe, dimensions
        self.dtype, self.about, self._anew = dtype, about or {}, anew

    def __enter__(self):
        storage.check_target(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = self.folder / storage.LOCK
        self._lock = filelock.FileLock(lock)
        try:
            self._lock.acquire(timeout=0)  # the system frees it when its process ends, in whatever way
        except filelock.Timeout:
            raise ValueError(f"{self.folder} is being written by another process ({_text(lock)}); wait for it to end.") from None
        try:
            with open(lock, "r+") as file:
                file.truncate()
                file.write(f"process {os.getpid()}")
            if self._anew:
                storage.remove(self.folder)
            self._open()
        except BaseException:
            self._lock.release()
            raise
        return self

    def discard(self) -> None:
        """Removes the index: there is nothing in it."""
        self._records = []
        storage.remove(self.folder)
        self._lock.release()
        (self.folder / storage.LOCK).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something of another's is in it
            self.folder.rmdir()

    def __exit__(self, *error):
        self._file.close()
        if not self._records:
            (self.folder / storage.JOURNAL).unlink(missing_ok=True)
        self._lock.release()

    def _open(self):
        self.shards, self._next = [], 0
        if (self.folder / storage.MANIFEST).is_file():
            manifest = storage.read_manifest(self.folder)
            _check_recipe(self.folder, manifest["recipe"], self.recipe)
            self.dtype, self.shards = manifest["dtype"], manifest["shards"]
            self._next = manifest.get("next_shard", len(self.shards))
            storage.remove_strays(self.folder, manifest)
        else:
            storage.write_manifest(self.folder, self._manifest())
        # name -> its stamp, of every photo that needs no describing: in a shard, a failure, or in the journal.
        self.known: dict[str, Stamp | None] = {}
        self.failed: dict[str, str] = {}
        self._shard_of: dict[str, int] = {}
        for entry in self.shards:
            photos = storage.read_shard(self.folder, entry, self.dimensions)[1]
            self._learn(photos)
            self._shard_of.update(
                dict.fromkeys([*photos["names"], *(name for name, *_ in photos.get("failures", ()))], _number(entry))
            )
        self._read_journal()
        self._seal_if_full()  # as the process that filled it was about to do

    def _learn(self, photos):
        stamps = photos.get("stamps") or [None] * len(photos["names"])
        for name, stamp in zip(photos["names"], stamps):
            self.known[name] = stamp
            self.failed.pop(name, None)
        for name, reason, stamp in photos.get("failures", ()):
            self.known[name], self.failed[name] = stamp, reason

    # The journal: records of a header (three numbers of 8 bytes: lengths of the two parts, and a checksum of both), a JSON text as
    # in a shard, and the descriptors.

    def _read_journal(self):
        # Without a buffer: what a full disk has refused must not be written later on. Open as long as the lock is held.
        self._file = open(self.folder / storage.JOURNAL, "a+b", buffering=0)  # noqa: SIM115
        self._records, whole = [], 0
        self._file.seek(0)
        while True:
            header = self._file.read(24)
            if len(header) < 24:
                break
            header = np.frombuffer(header, "<u8")
            lengths, checksum = [int(length) for length in header[:2]], int(header[2])
            body = self._file.read(sum(lengths)) if sum(lengths) < 1 << 32 else b""
            if len(body) < sum(lengths) or zlib.crc32(body) != checksum:
                break
            photos = json.loads(body[: lengths[0]])
            vectors = np.frombuffer(body[lengths[0] :], self.dtype).reshape(-1, self.dimensions)
            whole = self._file.tell()
            if photos["shard"] != self._next:  # it became a shard already; the process was killed before it was emptied
                continue
            self._records.append((photos, vectors))
            self._learn(photos)
        self._file.truncate(whole if self._records else 0)
        self._file.seek(0, os.SEEK_END)

    def add(
        self, names: list[str], stamps: list, descriptors: np.ndarray, failures: Iterable[tuple[str, str, Stamp | None]]
    ) -> None:
        """Appends photos; once it returns they are on the disk.

        Args:
            names, stamps: of the photos that were described.
            descriptors: `(n, D)`.
            failures: (name, reason, stamp) of those that were not.
        """
        photos = {"names": names, "stamps": stamps, "failures": [list(failure) for failure in failures], "shard": self._next}
        text, vectors = (
            json.dumps(photos).encode("ascii"),
            encoded(np.reshape(descriptors, (-1, self.dimensions)), self.dtype),
        )
        body = text + vectors.tobytes()
        header = np.array([len(text), len(body) - len(text), zlib.crc32(body)], "<u8").tobytes()
        start = self._file.tell()
        try:
            left = memoryview(header + body)
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except BaseException:  # a full disk, an interrupt: no half a record before the next one
            with contextlib.suppress(OSError):
                os.truncate(self.folder / storage.JOURNAL, start)
            raise
        self._records.append((photos, vectors))
        self._learn(photos)
        self._seal_if_full()

    def _seal_if_full(self):
        if sum(len(record["names"]) + len(record["failures"]) for record, _ in self._records) >= storage.SHARD_ROWS:
            self._seal()

    def finish(self, keep: Iterable[str] | None = None) -> int:
        """Makes a shard of what is in the journal, and drops photos that are gone.

        Args:
            keep: the names of all photos that are there; `None`: all that are known.

        Returns:
            How many described photos were dropped.
        """
        gone = set() if keep is None else self.known.keys() - set(keep)
        dropped = len(gone - self.failed.keys())
        if self._records or gone or not self._is_merged():
            self._seal(gone, merge=True)
        for name in gone:
            self.known.pop(name, None), self.failed.pop(name, None)
        return dropped

    def _seal(self, gone=frozenset(), merge=False):
        """The journal becomes a shard; rows of photos that it describes anew, or that are gone, leave the others."""
        fresh = {}  # a photo may have been described twice, when it changed between two runs
        for number, (photos, _) in enumerate(self._records):
            for name in [*photos["names"], *(failure[0] for failure in photos["failures"])]:
                fresh[name] = number
        parts = []
        for number, (photos, vectors) in enumerate(self._records):
            kept = {name for name, last in fresh.items() if last == number} - gone
            parts.append(_only(photos, vectors, kept))
        shards = self._without(fresh.keys() | gone)
        if any(len(photos["names"]) + len(photos["failures"]) for photos, _ in parts):
            shards.append(_joined(parts, self._next, self.dimensions, self.dtype))
        self._next += 1  # never used again: a journal that still stands there belongs to a shard that is written
        if merge:
            self._merge(shards)
        self.shards = [shard if isinstance(shard, dict) else storage.write_shard(self.folder, *shard) for shard in shards]
        storage.write_manifest(self.folder, self._manifest())
        self._records = []
        self._file.seek(0)
        self._file.truncate()
        self._shard_of = {name: own for name, own in self._shard_of.items() if name not in gone and name not in fresh}
        self._shard_of.update(dict.fromkeys(fresh.keys() - gone, self._next - 1))

    def _without(self, names):
        """The shards without some photos: those that hold none of them stay as they are."""
        touched = {self._shard_of[name] for name in names if name in self._shard_of}
        shards = []
        for entry in self.shards:
            if _number(entry) not in touched:
                shards.append(entry)
                continue
            vectors, photos = storage.read_shard(self.folder, entry, self.dimensions)
            photos = {"failures": [], "stamps": [None] * len(photos["names"]), **photos}
            kept = {*photos["names"], *(failure[0] for failure in photos["failures"])} - names
            if kept:
                shards.append(_joined([_only(photos, vectors, kept)], _number(entry), self.dimensions, self.dtype))
        return shards

    def _is_merged(self):
        return len(self.shards) < 2 or sum(entry["count"] for entry in self.shards[-2:]) > storage.SHARD_ROWS

    def _merge(self, shards):
        """Joins the last shards while they fit into one, so that many small updates leave few files."""

        def count(shard):
            return shard["count"] if isinstance(shard, dict) else len(shard[1])

        while len(shards) > 1 and count(shards[-2]) + count(shards[-1]) <= storage.SHARD_ROWS:
            pair = [self._loaded(shard) for shard in shards[-2:]]
            number = min(number for number, *_ in pair)
            shards[-2:] = [_joined([(photos, vectors) for _, vectors, photos in pair], number, self.dimensions, self.dtype)]

    def _loaded(self, shard):
        if not isinstance(shard, dict):
            return shard
        vectors, photos = storage.read_shard(self.folder, shard, self.dimensions)
        return _number(shard), vectors, {"failures": [], "stamps": [None] * len(photos["names"]), **photos}

    def _manifest(self):
        return {
            "recipe": self.recipe,
            "dimensions": self.dimensions,
            "dtype": self.dtype,
            **self.about,
            "next_shard": self._next,
            "shards": self.shards,
        }


def _only(photos, vectors, kept):
    """The part of a record, or shard, that is of some photos."""
    rows = [row for row, name in enumerate(photos["names"]) if name in kept]
    return {
        "names": [photos["names"][row] for row in rows],
        "stamps": [photos["stamps"][row] for row in rows],
        "failures": [failure for failure in photos["failures"] if failure[0] in kept],
    }, vectors[rows] if len(rows) < len(vectors) else vectors


def _joined(parts, number, dimensions, dtype):
    """Records as one shard: what `storage.write_shard` takes."""
    photos = {field: [item for photos, _ in parts for item in photos[field]] for field in ("names", "stamps", "failures")}
    return number, np.concatenate([np.empty((0, dimensions), dtype), *(vectors for _, vectors in parts)]).astype(dtype), photos


def _number(entry):
    parts = entry["descriptors"].split("-")
    return int(parts[1]) if len(parts) == 3 else 0  # files of format 1 have none


def _text(path):
    try:
        return path.read_text() or "its number is not known"
    except OSError:
        return "its number is not known"


def _check_recipe(folder, own, asked):
    own, asked = (json.loads(json.dumps(recipe)) for recipe in (own, asked))
    if own == asked:
        return
    own, asked = own or {}, asked or {}
    fields = [field for field in {**own, **asked} if own.get(field) != asked.get(field)]
    raise ValueError(
        f"The index {folder} was made in another way: {', '.join(fields)} differ; update it with the model and the size that made "
        "it, or choose another name."
    )
