"""An index on disk: a folder of numbered shards, and a manifest that says which of them count.

`index.json` names the shards in their order, with the number of rows and the SHA-256 of each; how the descriptors were made
(`recipe`), and by which versions. A shard is an `.npy` of descriptors `(n, D)`, float32, float16 or int8 (see `FromInt8`), and a
JSON file with the names of its rows. Files appear whole or not at all, and count once the manifest names them: it is written last,
so an interrupted write leaves the index as it was. NumPy reads all of it.
"""

import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from rw_keras.files import written_whole
from rw_keras.retrieval.int8 import FromInt8

FORMAT = 2
MANIFEST, JOURNAL, LOCK = "index.json", "journal.bin", ".lock"
# Rows of a shard: 32 MB of 512 dimensions, and a million photos make 62 files.
SHARD_ROWS = 16384
DTYPES = ("float32", "float16", "int8")
_PREFIXES = ("descriptors-", "photos-", "names-", "engine-", ".part-")


class Rows:
    """The rows of several arrays as one array `(N, D)`; each stays where it is, memory-mapped or not."""

    ndim = 2

    def __init__(self, parts: Sequence[np.ndarray], dimensions: int, dtype: str = "float32") -> None:
        self._parts = [part for part in parts if len(part)]
        self._ends = np.cumsum([len(part) for part in self._parts], dtype="int64")
        self.shape = (int(self._ends[-1]) if self._parts else 0, dimensions)
        self.dtype = np.dtype(dtype)

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        if isinstance(rows, (int, np.integer)):
            part, row = self._place(range(len(self))[rows])
            return self._parts[part][row]
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                return self._between(start, stop)
            rows = np.arange(start, stop, step)
        rows = np.asarray(rows)
        if rows.dtype == bool:
            if len(rows) != len(self):
                raise IndexError(f"The mask has {len(rows)} values for {len(self)} rows; give one for each.")
            rows = np.flatnonzero(rows)
        rows = np.where(rows < 0, rows + len(self), rows).astype("int64")
        if len(rows) and not (rows.min() >= 0 and rows.max() < len(self)):
            raise IndexError(f"There are {len(self)} rows; positions are from {-len(self)} to {len(self) - 1}.")
        found = np.empty((len(rows), self.shape[1]), self.dtype)
        places = np.searchsorted(self._ends, rows, side="right")
        for part in np.unique(places):
            chosen = places == part
            found[chosen] = self._parts[part][rows[chosen] - self._first(part)]
        return found

    def __array__(self, dtype=None, copy=None):
        return self._between(0, len(self)).astype(dtype or self.dtype, copy=bool(copy))

    def astype(self, dtype, copy=True):
        return self.__array__(dtype, copy)

    def _first(self, part):
        return int(self._ends[part - 1]) if part else 0

    def _place(self, row):
        part = int(np.searchsorted(self._ends, row, side="right"))
        return part, row - self._first(part)

    def _between(self, start, stop):
        if start >= stop:
            return np.empty((0, self.shape[1]), self.dtype)
        first, last = self._place(start)[0], self._place(stop - 1)[0]
        pieces = [
            self._parts[part][max(start - self._first(part), 0) : stop - self._first(part)] for part in range(first, last + 1)
        ]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)  # a view, where it can be one


def write_shard(folder: pathlib.Path, number: int, descriptors: np.ndarray, photos: dict[str, Any]) -> dict[str, Any]:
    """Writes the two files of a shard, and returns its line in the manifest.

    Args:
        folder: the index.
        number: its place, part of the files' names.
        descriptors: `(n, D)`.
        photos: what the JSON file holds: `names`, a list of n strings, and whatever belongs to them.
    """
    listed = json.dumps(photos).encode("ascii")  # ascii: a name that is not UTF-8 survives as escaped surrogates
    descriptors = np.ascontiguousarray(descriptors)
    content = hashlib.sha256(descriptors.tobytes()).hexdigest()
    tag = hashlib.sha256(listed + content.encode()).hexdigest()[:12]
    entry = {
        "descriptors": f"descriptors-{number:05d}-{tag}.npy",
        "photos": f"photos-{number:05d}-{tag}.json",
        "count": len(descriptors),
        "sha256": content,
        "photos_sha256": hashlib.sha256(listed).hexdigest(),
    }
    with written_whole(folder / entry["descriptors"]) as file:
        np.save(file, descriptors, allow_pickle=False)
    with written_whole(folder / entry["photos"]) as file:
        file.write(listed)
    return entry


def write_manifest(folder: pathlib.Path, manifest: dict[str, Any]) -> None:
    """Writes the manifest: from then on the shards that it names, and no others, are the index. Others are removed."""
    with written_whole(folder / MANIFEST) as file:
        file.write(_text(manifest))
    remove_strays(folder, manifest)


def _text(manifest):
    whole = {"format": FORMAT, **manifest, "count": sum(entry["count"] for entry in manifest["shards"])}
    return json.dumps(whole, indent=1).encode("ascii")


def remove_strays(folder: pathlib.Path, manifest: dict[str, Any]) -> None:
    """Removes files of shards that the manifest does not name: what an interrupted write has left."""
    named = {entry[kind] for entry in manifest["shards"] for kind in ("descriptors", "photos")}
    named.add((manifest.get("engine") or {}).get("file"))
    for path in folder.iterdir():
        if path.name not in named and path.name.startswith(_PREFIXES):
            path.unlink(missing_ok=True)


def read_manifest(folder: pathlib.Path) -> dict[str, Any]:
    """The manifest of an index.

    Raises:
        FileNotFoundError: when there is none.
        ValueError: when it is cut short, or of a later version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"There is no index at {folder} (no {MANIFEST} in it); make one with `rw-keras index`.")
    try:
        manifest = json.loads(path.read_text("ascii"))
        if manifest["format"] > FORMAT:
            raise ValueError(f"it has format {manifest['format']}, this version reads up to {FORMAT}")
        if manifest["format"] == 1:  # one file of descriptors, one of names
            entry = {"descriptors": manifest["descriptors"], "photos": manifest["names"], "count": manifest["count"]}
            manifest = {**manifest, "shards": [entry], "dtype": "float32"}
        for field in ("dimensions", "dtype", "recipe"):
            manifest[field]
        if manifest["count"] != sum(entry["count"] for entry in manifest["shards"]):
            raise ValueError("the numbers of the manifest and its shards do not agree")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"The index at {folder} cannot be read: {error}; make it again with `rw-keras index`.") from error
    return manifest


def read_shard(folder: pathlib.Path, entry: dict[str, Any], dimensions: int) -> tuple[np.ndarray, dict[str, Any]]:
    """A shard's descriptors, memory-mapped, and what its JSON file holds.

    Raises:
        ValueError: when a file of it is missing, cut short, or does not agree with the manifest.
    """
    file = entry["photos"]
    try:
        photos = json.loads((folder / file).read_text("ascii"))
        photos = {"names": photos} if isinstance(photos, list) else photos
        file = entry["descriptors"]
        descriptors = np.load(folder / entry["descriptors"], mmap_mode="r", allow_pickle=False)
        if descriptors.shape != (entry["count"], dimensions) or len(photos["names"]) != entry["count"]:
            raise ValueError("the numbers of names and descriptors do not agree")
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"The index at {folder} cannot be read: {file}: {error}; make it again with `rw-keras index`.") from error
    return descriptors, photos


def read(folder: pathlib.Path) -> tuple[dict[str, Any], list[str], Any, list[tuple[str, str]]]:
    """All of an index: manifest, with the `metadata` of all shards in it; names; descriptors `(N, D)`, memory-mapped; failures."""
    manifest = read_manifest(folder)
    shards = [read_shard(folder, entry, manifest["dimensions"]) for entry in manifest["shards"]]
    names = [name for _, photos in shards for name in photos["names"]]
    failures = [(name, reason) for _, photos in shards for name, reason, *_ in photos.get("failures", ())]
    columns = shards[0][1].get("metadata", {}) if shards else {}
    metadata = {column: [value for _, photos in shards for value in photos["metadata"][column]] for column in columns}
    parts = [descriptors for descriptors, _ in shards]
    descriptors = parts[0] if len(parts) == 1 else Rows(parts, manifest["dimensions"], manifest["dtype"])
    if manifest["dtype"] == "int8":
        descriptors = FromInt8(descriptors)
    return {**manifest, "metadata": metadata}, names, descriptors, failures


def holds(folder: pathlib.Path, manifest: dict[str, Any]) -> bool:
    """Whether an index's manifest is this one."""
    path = folder / MANIFEST
    return path.is_file() and path.read_bytes() == _text(manifest)


def remove(folder: pathlib.Path) -> None:
    """Removes an index, its manifest first, so that what is left after an interruption is none."""
    check_target(folder)
    if (folder / MANIFEST).is_file():
        (folder / MANIFEST).unlink()
    if folder.is_dir():
        remove_strays(folder, {"shards": []})
        (folder / JOURNAL).unlink(missing_ok=True)


def verify(folder: pathlib.Path) -> list[str]:
    """Reads every shard and compares it with its checksums; the names of files that are not as they were written."""
    wrong = []
    for entry in read_manifest(folder)["shards"]:
        if "sha256" in entry and _digest_of_array(folder / entry["descriptors"]) != entry["sha256"]:
            wrong.append(entry["descriptors"])
        if "photos_sha256" in entry and _digest_of_file(folder / entry["photos"]) != entry["photos_sha256"]:
            wrong.append(entry["photos"])
    return wrong


def _digest_of_array(path):
    try:
        return hashlib.sha256(np.ascontiguousarray(np.load(path, mmap_mode="r", allow_pickle=False)).tobytes()).hexdigest()
    except (OSError, EOFError, ValueError):
        return None


def _digest_of_file(path):
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def check_target(path: pathlib.Path) -> None:
    """Raises a ValueError when `path` is something else than an index, or an absent folder, or one with nothing of anyone's."""
    if not path.exists():
        return
    if not path.is_dir() or (any(not _is_own(item.name) for item in path.iterdir()) and not (path / MANIFEST).is_file()):
        raise ValueError(f"{path} exists and is not an index; choose another name.")


def _is_own(name):
    """Whether a file is one that an index without its manifest may hold: what an interrupted write has left."""
    return name in (LOCK, JOURNAL) or name.startswith(_PREFIXES)
