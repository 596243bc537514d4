"""Indices of format 1 and 2, which versions up to 0.1 wrote: read as they are, and converted when they are first written."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from rw_keras.model.recipe import with_runtime
from rw_keras.retrieval.rows import Rows
from rw_keras.retrieval.segments import DamageError, Segment

MANIFEST, _JOURNAL = "index.json", "journal.bin"
PREFIXES = ("descriptors-", "photos-", "names-", "engine-", _JOURNAL)


@dataclasses.dataclass
class OldIndex:
    """What such an index holds.

    Attributes:
        about: the fields of its manifest.
        names, stamps: of the N described photos; a stamp is [size, time] or with the SHA-256, or `None`.
        rows: their descriptors `(N, D)`.
        failures: (name, reason, stamp) of the photos that could not be read.
        metadata: column -> N values.
    """

    about: dict[str, Any]
    names: list[str]
    stamps: list[Any]
    rows: Rows
    failures: list[tuple[str, str, Any]]
    metadata: dict[str, list[Any]]


def is_one(folder: pathlib.Path) -> bool:
    """Whether there is an index of an old format in a folder."""
    return (folder / MANIFEST).is_file()


def about(folder: pathlib.Path) -> dict[str, Any] | None:
    """The manifest, `None` where there is none; a ValueError when it cannot be read."""
    return _manifest(folder) if is_one(folder) else None


def read(folder: pathlib.Path) -> OldIndex | None:
    """All of an old index, `None` where there is none.

    Raises:
        DamageError: when a file of it is missing, cut short, or does not agree with the manifest.
    """
    if not is_one(folder):
        return None
    manifest = _manifest(folder)
    parts, segments = [], []
    for entry in manifest["shards"]:
        array, photos = _shard(folder, entry, manifest["dimensions"], manifest["dtype"])
        first = sum(len(segment.array) for segment in segments)
        checksums = [entry["sha256"]] if "sha256" in entry else None
        segments.append(Segment(folder / entry["descriptors"], array, first, max(len(array), 1), checksums, _digest))
        parts.append(photos)
    # What a killed process had finished; of a photo that it had described again, the later row counts.
    for array, photos in _journal(folder, manifest):
        again = {*photos["names"], *(name for name, *_ in photos["failures"])}
        for part in parts:
            part["failures"] = [failure for failure in part.get("failures", ()) if failure[0] not in again]
            part["names"] = [None if name in again else name for name in part["names"]]
        first = sum(len(segment.array) for segment in segments)
        segments.append(Segment(folder / _JOURNAL, array, first, max(len(array), 1), [_digest(array)], _digest))
        parts.append(photos)
    columns = parts[0].get("metadata", {}) if parts else {}
    try:
        names = [name for part in parts for name in part["names"]]
        stamps = [stamp for part in parts for stamp in part.get("stamps") or [None] * len(part["names"])]
        failures = [tuple(failure) for part in parts for failure in part.get("failures", ())]
        metadata = {
            column: [value for part in parts for value in part.get("metadata", {}).get(column) or [None] * len(part["names"])]
            for column in columns
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(folder, f"{type(error).__name__}: {error}") from error
    rows = Rows(segments, manifest["dimensions"], manifest["dtype"])
    kept = [row for row, name in enumerate(names) if name is not None]
    if len(kept) < len(names):
        array = rows[kept]
        rows = Rows(
            [Segment(folder / _JOURNAL, array, 0, max(len(array), 1), [_digest(array)], _digest)],
            manifest["dimensions"],
            manifest["dtype"],
        )
        names, stamps = ([column[row] for row in kept] for column in (names, stamps))
        metadata = {column: [values[row] for row in kept] for column, values in metadata.items()}
    if len(set(names)) < len(names):
        raise _damaged(folder, "it names a photo twice")
    return OldIndex(manifest, names, stamps, rows, failures, metadata)


def damaged_files(folder: pathlib.Path) -> list[tuple[str, list[str]]]:
    """The files of an old index that are not as they were written, with the names of the photos whose descriptors they hold."""
    found = []
    manifest = _manifest(folder)
    for entry in manifest["shards"]:
        names: list[str] = []
        try:
            content = (folder / entry["photos"]).read_bytes()
            if "photos_sha256" in entry and hashlib.sha256(content).hexdigest() != entry["photos_sha256"]:
                raise _damaged(folder, "its checksum is another one")
            array, photos = _shard(folder, entry, manifest["dimensions"], manifest["dtype"])
            names = photos["names"]
        except (OSError, DamageError):
            found.append((entry["photos"], names))
            continue
        if "sha256" in entry and _digest(array) != entry["sha256"]:
            found.append((entry["descriptors"], names))
    return found


def remove(folder: pathlib.Path) -> None:
    """Removes the files of an old index, which has been converted; its manifest last, by which they are known."""
    for path in folder.iterdir():
        if path.name.startswith(PREFIXES):
            path.unlink(missing_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)


def _manifest(folder):
    try:
        manifest = json.loads((folder / MANIFEST).read_text("ascii"))
        if manifest["format"] not in (1, 2):
            raise ValueError(f"it has format {manifest['format']}, and with this file an index has format 1 or 2")
        if manifest["format"] == 1:  # one file of descriptors, one of names
            entry = {"descriptors": manifest["descriptors"], "photos": manifest["names"], "count": manifest["count"]}
            manifest = {**manifest, "shards": [entry], "dtype": "float32"}
        for field in ("dimensions", "dtype", "recipe"):
            manifest[field]
        if manifest["count"] != sum(entry["count"] for entry in manifest["shards"]):
            raise ValueError("the numbers of the manifest and its shards do not agree")
        for entry in manifest["shards"]:
            if not isinstance(entry["photos"], str) or not isinstance(entry["descriptors"], str):
                raise ValueError("it does not name the files of its shards")
        searcher = manifest.pop("engine", None)
        if searcher:
            manifest["searcher"] = {"name": searcher["name"], "parameters": searcher["parameters"]}
        if manifest.get("described_with"):
            manifest["described_with"] = [with_runtime(entry) for entry in manifest["described_with"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(folder, error) from error
    return manifest


def _shard(folder, entry, dimensions, dtype):
    file = entry.get("photos")
    try:
        photos = json.loads((folder / file).read_text("ascii"))
        photos = {"names": photos} if isinstance(photos, list) else photos
        file = entry["descriptors"]
        array = np.lib.format.open_memmap(folder / file, mode="r") if entry["count"] else np.empty((0, dimensions), dtype)
        if array.shape != (entry["count"], dimensions) or array.dtype != dtype or len(photos["names"]) != entry["count"]:
            raise ValueError("the numbers of names and descriptors do not agree")
    except FileNotFoundError as error:
        raise _damaged(folder, f"{file} is missing") from error
    except Exception as error:  # a damaged header of a .npy file is read as Python, and fails in any way
        raise _damaged(folder, f"{file}: {type(error).__name__}: {error}") from error
    return array, photos


def _journal(folder, manifest) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
    """What a killed process left: records of three numbers of 8 bytes (lengths of two parts, a checksum of both), a JSON text as
    in a shard, and descriptors. The last one may be cut short."""
    try:
        content = (folder / _JOURNAL).read_bytes()
    except FileNotFoundError:
        return
    start = 0
    while start + 24 <= len(content):
        text, vectors, checksum = (int(number) for number in np.frombuffer(content, "<u8", 3, start))
        body = content[start + 24 : start + 24 + text + vectors]
        if not text or text + vectors > len(content) or len(body) < text + vectors or zlib.crc32(body) != checksum:
            return
        start += 24 + text + vectors
        photos = json.loads(body[:text])
        if photos["shard"] == manifest.get("next_shard", len(manifest["shards"])):  # else it is in a shard already
            yield np.frombuffer(body[text:], manifest["dtype"]).reshape(-1, manifest["dimensions"]), photos


def _digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _damaged(folder, why):
    return DamageError(f"The index at {folder} cannot be read: {why}; restore the file, or make the index again with --force.")
