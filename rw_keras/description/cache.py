"""Descriptors that an evaluation keeps between its runs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rw_keras import runtimes
from rw_keras.description.describe import describe_batches
from rw_keras.files import checked_path
from rw_keras.model.descriptor import Descriptor
from rw_keras.model.photo_regions import PhotoRegions
from rw_keras.model.recipe import Recipe, smallest_side
from rw_keras.runtimes.describer import described_with

if TYPE_CHECKING:
    import os

    import keras

    from rw_keras.photos.reading import Box

# Descriptors wait for each other no longer than this: a commit takes a fraction of a photo's time, but waits for the disk.
_SECONDS = 1
# So long another process may write before this one gives up.
_PATIENCE = 60
# Fewer than the variables that a statement of any SQLite may have.
_KEYS_AT_ONCE = 500

_SCHEMA = """
CREATE TABLE about (recipe TEXT NOT NULL, dimensions INTEGER NOT NULL);
CREATE TABLE descriptors (key TEXT PRIMARY KEY, vector BLOB NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID;
"""


def describe_cached(
    model: keras.Model | runtimes.Describer,
    paths: Sequence[str | os.PathLike[str]],
    boxes: Iterable[Box | None] | None = None,
    *,
    max_side: int | None = 1024,
    cache: str | os.PathLike[str] | None = None,
    regions: bool = False,
    progress: bool = True,
) -> tuple[list[np.ndarray | None], list[tuple[str | os.PathLike[str], str]]]:
    """Describes photos, using again what an earlier run has kept.

    A descriptor is used again only for the same recipe, weights and whitening digests among it, the same size, the same
    bytes of the photo and the same box. What is new is committed every second, and when the run ends or is interrupted, so a
    run that is killed loses a second's work. Any number of processes may use one folder at once.

    Args:
        cache: a folder, made where it does not exist; `None`: nothing is kept.
        regions: whether each descriptor gets its `regions`, as of `describe`. They are kept in a file of their own.

    Returns:
        A list of `(D,)` vectors, `None` where a photo could not be read, and a list of (path, reason) for those.

    Raises:
        ValueError: when a file of the cache is damaged; it names the file. With `regions`, as `describe`.
        OSError: when the cache cannot be read or written.
    """
    boxes = [None] * len(paths) if boxes is None else list(boxes)
    made = {**Recipe.of(model), "max_side": max_side}
    computed = described_with(model)
    if (computed["runtime"], computed["computes_in"]) != ("tensorflow", "float32"):
        made["described_with"] = computed  # its values are others
    keys = [None] * len(paths) if cache is None else [_key(path, box) for path, box in zip(paths, boxes)]
    store, dimensions = None, model.output_shape[-1]
    if any(key is not None for key in keys):
        store = DescriptorStore(cache, {**made, "regions": True} if regions else made, dimensions, dimensions + 4 if regions else 0)
    with store or contextlib.nullcontext():
        kept = {} if store is None else store.get(key for key in keys if key is not None)
        vectors = [_unpacked(kept[key], dimensions, regions) if key in kept else None for key in keys]
        todo = [position for position, vector in enumerate(vectors) if vector is None]
        failures = []
        described = describe_batches(
            model,
            [paths[position] for position in todo],
            [boxes[position] for position in todo],
            regions=regions,
            max_side=max_side,
            min_side=smallest_side(model),
            progress="describing photos" if progress and todo else None,
        )
        for position, (path, found, error) in zip(todo, described):
            if error is not None:
                failures.append((path, str(error)))
                continue
            vector = found.descriptors[0]
            vectors[position] = Descriptor.of(vector, None, found.regions[0]) if regions else vector
            if keys[position] is not None:
                own = found.regions[0] if regions else ()
                store.add(keys[position], np.concatenate([vector, *map(np.ravel, own)]))
    return vectors, failures


def _unpacked(values, dimensions, regions):
    """A descriptor as `describe_cached` gives it, of what is kept: the descriptor, the region vectors, and their boxes."""
    if not regions:
        return values
    count = (len(values) - dimensions) // (dimensions + 4)
    vectors, boxes = np.split(values[dimensions:], [count * dimensions])
    return Descriptor.of(values[:dimensions], None, PhotoRegions(vectors.reshape(count, -1), boxes.reshape(count, 4)))


class DescriptorStore:
    """Descriptors of one recipe by key, in one SQLite file of a folder.

    A context manager: what was added is committed when it ends, however it ends. An `.npz` file that an earlier version kept of the
    same recipe is taken over when the store is made.

    Args:
        folder: where the file lies; made where it does not exist.
        made: how the descriptors are made, as plain values.
        dimensions: of each.
        more: how many numbers more a descriptor may have behind it, any number of times. Default: none.

    Raises:
        ValueError: when the file is damaged, or is no store of this recipe.
        OSError: when it cannot be opened, or another process does not let go of it.
    """

    def __init__(self, folder: str | os.PathLike[str], made: dict[str, Any], dimensions: int, more: int = 0) -> None:
        recipe = json.dumps(made, sort_keys=True)
        tag = hashlib.sha256(recipe.encode()).hexdigest()[:16]
        self.path = checked_path(folder) / f"{made['backbone'].partition(' ')[0]}-{tag}.sqlite"
        self._dimensions, self._more, self._pending, self._committed = dimensions, more, [], time.monotonic()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._errors():
            self._connection = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None)
        try:
            self._open(recipe)
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> DescriptorStore:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.commit()
        finally:
            self._connection.close()

    def get(self, keys: Iterable[str]) -> dict[str, np.ndarray]:
        """Those of the keys that are kept, with their descriptors `(D,)` float32, and what each has behind it."""
        keys, found = list(dict.fromkeys(keys)), {}
        with self._errors():
            for start in range(0, len(keys), _KEYS_AT_ONCE):
                some = keys[start : start + _KEYS_AT_ONCE]
                marks = ",".join("?" * len(some))
                query = f"SELECT key, vector, checksum FROM descriptors WHERE key IN ({marks})"
                for key, vector, checksum in self._connection.execute(query, some):
                    found[key] = self._checked(vector, checksum)
        return found

    def add(self, key: str, vector: np.ndarray) -> None:
        """Keeps a descriptor; it is on the disk a second later."""
        content = np.asarray(vector, "<f4").tobytes()
        self._pending.append((key, content, zlib.crc32(content)))
        if time.monotonic() - self._committed > _SECONDS:
            self.commit()

    def commit(self) -> None:
        """Writes what was added since the last time."""
        if self._pending:
            with self._transaction():
                self._connection.executemany("INSERT OR REPLACE INTO descriptors VALUES (?, ?, ?)", self._pending)
            self._pending = []
        self._committed = time.monotonic()

    def _open(self, recipe):
        with self._errors():
            known = self._tables()
            if not known:
                with self._transaction():
                    if not self._tables():  # another process may have been faster
                        for statement in _SCHEMA.strip().splitlines():
                            self._connection.execute(statement)
                        self._connection.execute("INSERT INTO about VALUES (?, ?)", (recipe, self._dimensions))
                        self._take_over(self.path.with_suffix(".npz"))
            about = self._connection.execute("SELECT recipe, dimensions FROM about").fetchall()
        if about != [(recipe, self._dimensions)]:
            raise ValueError(f"{self.path} holds descriptors of another recipe than its name tells; remove it.")

    def _tables(self):
        return self._connection.execute("SELECT name FROM sqlite_master").fetchall()

    def _take_over(self, earlier):
        if not earlier.exists():
            return
        try:
            with np.load(earlier, allow_pickle=False) as kept:
                for key, vector in zip(kept["keys"].tolist(), np.asarray(kept["vectors"], "<f4"), strict=True):
                    if vector.shape != (self._dimensions,):
                        raise ValueError(f"a descriptor has the shape {vector.shape}")
                    content = vector.tobytes()
                    self._connection.execute("INSERT INTO descriptors VALUES (?, ?, ?)", (key, content, zlib.crc32(content)))
        except (OSError, sqlite3.Error):
            raise
        except Exception as error:  # no zip file, cut short, other arrays
            raise ValueError(f"{earlier} does not hold the descriptors it was written with: {error}; remove it.") from error

    def _checked(self, content, checksum):
        if not isinstance(content, bytes) or not self._fits(len(content)) or zlib.crc32(content) != checksum:
            raise ValueError(f"{self.path} is damaged: a descriptor is not the one that was written; remove it.")
        return np.frombuffer(content, "<f4").astype("float32")

    def _fits(self, length):
        behind = length - 4 * self._dimensions
        return behind == 0 or (behind > 0 and self._more > 0 and behind % (4 * self._more) == 0)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """One transaction, which waits for another process to end its own."""
        with self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # an error may have rolled it back already
                    self._connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """SQLite's errors as sentences: what may pass is an OSError, the rest is damage."""
        try:
            yield
        except sqlite3.Error as error:
            if isinstance(error, sqlite3.OperationalError) and "no such" not in str(error):  # a table or a column
                raise OSError(f"The kept descriptors in {self.path} cannot be read or written: {error}.") from error
            raise ValueError(f"{self.path} is damaged: {error}; remove it.") from error


def _key(path, box):
    """What a photo and its box are known by: the photo's bytes, not its name. `None` where there are none to read."""
    try:
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
    return f"{content} {tuple(float(corner) for corner in box) if box is not None else 'whole'}"
