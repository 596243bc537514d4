"""Joining indices, and handing their vectors to other tools."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from rw_keras.files import written_whole
from rw_keras.model.recipe import Recipe
from rw_keras.retrieval import store
from rw_keras.retrieval.index import Index
from rw_keras.retrieval.rows import Rows
from rw_keras.retrieval.segments import BLOCK_ROWS
from rw_keras.retrieval.writer import Writer


def merge(folders: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> int:
    """Joins indices of one recipe into a new one, with region vectors, stamps, failures and metadata; they stay as they are.

    The new index excludes what any of them excludes, but for photos that another of them holds: those stay in.

    Their photos keep their order, one index behind the other. If the photos of all come from one source, the new index is brought
    up to date from it as they were. Else an update describes again what has changed of the photos that its source lists, and lets
    go of none.

    Args:
        folders: the indices, two or more.
        out: the new index; there is none yet.

    Returns:
        How many photos it holds.

    Raises:
        FileNotFoundError: when one of them is not there.
        ValueError: when they were made in different ways, when two hold a photo of one name, or when there is an index at `out`.
    """
    out = store.check_target(out)
    if len(folders) < 2:
        raise ValueError(f"A merge takes two indices or more, but got {len(folders)}.")
    if store.about(out) is not None:
        raise ValueError(f"There is an index at {out} already; choose another name.")
    excluded = set().union(*map(store.excluded, folders))  # before the photos: one that is deleted meanwhile is there as it was
    found = [store.read(folder) for folder in folders]
    first = found[0].about
    for snapshot in found[1:]:
        _check_alike(found[0], snapshot)
    holder: dict[str, pathlib.Path] = {}
    for snapshot in found:
        for name in snapshot.names:
            if holder.setdefault(name, snapshot.folder) != snapshot.folder:
                raise ValueError(f"Both {holder[name]} and {snapshot.folder} hold {name!r}; a photo's name is there once.")
    shared = {field: value for field in ("source", "settings", "search", "preset") if (value := _common(field, found)) is not None}
    with Writer(out, first["recipe"], first["dimensions"], first["dtype"], beside=True, regions=first.get("regions")) as writer:
        for field, value in shared.items():
            writer.set(field, value)
        writer.set("versions", first.get("versions"))
        writer.set("described_with", _all_of(snapshot.about.get("described_with") or [] for snapshot in found))
        for snapshot in found:
            _copy(snapshot, writer, holder, "source" in shared)
        writer.exclude_rest(excluded)
        columns = dict.fromkeys(column for snapshot in found for column in snapshot.metadata)
        writer.set_metadata(
            {
                column: [value for snapshot in found for value in snapshot.metadata.get(column) or [None] * len(snapshot.names)]
                for column in columns
            }
        )
        writer.finish()
    return len(holder)


def _check_alike(one, other):
    differing = Recipe.from_dict(one.about["recipe"]).differences(other.about["recipe"], f"that of {other.folder}")
    for field in ("dimensions", "dtype", "regions"):
        own, others = one.about.get(field), other.about.get(field)
        if own != others:
            differing.append(f"its {field} is {own!r}, that of {other.folder} {others!r}")
    if differing:
        raise ValueError(f"{one.folder} was made in another way than {other.folder}: {'; '.join(differing)}.")


def _common(field, found):
    values = [snapshot.about.get(field) for snapshot in found]
    return values[0] if all(value == values[0] for value in values) else None


def _all_of(lists):
    values: list[Any] = []
    for given in lists:
        values += (value for value in given if value not in values)
    return values


def _copy(snapshot, writer, holder, of_one_source):
    known, _, failures = store.records(snapshot.folder, snapshot.about["identity"])
    places = np.arange(len(snapshot.names)) if snapshot.places is None else snapshot.places
    for start in range(0, len(places), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        records = [known.get(photo, (None, None, None)) for photo in snapshot.ids[part].tolist()]
        listed = [own if of_one_source else False for *_, own in records]
        regions = None if snapshot.regions is None else snapshot.regions.kept(part)
        writer.put(snapshot.names[part], snapshot.rows[places[part]], [stamp for _, stamp, _ in records], listed, regions)
    for name, reason in snapshot.failures:
        if name not in holder:
            writer.fail(name, reason, failures.get(name))


def export_vectors(folder: str | os.PathLike[str], path: str | os.PathLike[str]) -> int:
    """Writes the descriptors of an index to a file for other tools, in the order of the index; its region vectors stay behind.

    Args:
        folder: the index.
        path: a file that ends in `.npy`: an array `(N, D)` float32, with the names beside it in a JSON list, `vectors.names.json`
            for `vectors.npy`; or in `.parquet`: the columns `name`, `descriptor` and those of the metadata (`pip install
            "rw_keras[parquet]"`).

    Returns:
        How many descriptors it holds.

    Raises:
        FileExistsError: when there is such a file.
        ImportError: when pyarrow is not installed.
        ValueError: for another ending.
    """
    path = pathlib.Path(path)
    writers = {".npy": _write_npy, ".parquet": _write_parquet}
    if path.suffix not in writers:
        raise ValueError(f"The file ends in {' or '.join(writers)}, but got {str(path)!r}.")
    if path.suffix == ".parquet":
        _pyarrow()
    names = path.with_suffix(".names.json")
    for file in (path, names) if path.suffix == ".npy" else (path,):
        if file.exists():
            raise FileExistsError(f"{file} exists already; choose another name")
    index = Index.load(folder, searcher="numpy")
    writers[path.suffix](index, path)
    if path.suffix == ".npy":
        with written_whole(names) as file:
            file.write(json.dumps(list(index.names)).encode("ascii"))
    return len(index)


def _blocks(index) -> Iterator[tuple[int, np.ndarray]]:
    rows = Rows.of(index.descriptors)
    for start in range(0, len(rows), BLOCK_ROWS):
        yield start, np.ascontiguousarray(rows[start : start + BLOCK_ROWS], "float32")


def _write_npy(index, path):
    with written_whole(path) as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": index.descriptors.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for _, rows in _blocks(index):
            file.write(rows.astype("<f4", copy=False).tobytes())


def _write_parquet(index, path):
    arrow, parquet = _pyarrow()
    names = list(index.names)
    try:
        "".join(names).encode("utf8")
        of_names = arrow.string()
    except UnicodeEncodeError:  # a file's name need not be text
        names, of_names = [os.fsencode(name) for name in names], arrow.binary()
    columns = {column: _column(arrow, values) for column, values in index.metadata.items()}
    kinds = {column: values.type for column, values in columns.items()}
    dimensions = index.descriptors.shape[1]
    vector = arrow.list_(arrow.float32(), dimensions)
    schema = arrow.schema([("name", of_names), ("descriptor", vector), *kinds.items()])
    with written_whole(path) as file, parquet.ParquetWriter(file, schema) as writer:
        for start, rows in _blocks(index):
            part = slice(start, start + len(rows))
            vectors = arrow.FixedSizeListArray.from_arrays(arrow.array(rows.ravel()), dimensions)
            own = [arrow.array(names[part], of_names), vectors, *(values[part] for values in columns.values())]
            writer.write_table(arrow.table(own, schema=schema))


def _column(arrow, values):
    """Values as a column; as JSON where they are of different kinds."""
    try:
        return arrow.array(values)
    except (arrow.ArrowInvalid, arrow.ArrowTypeError):
        return arrow.array([json.dumps(value) for value in values])


def _pyarrow():
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError('A .parquet file needs pyarrow; install it with: pip install "rw_keras[parquet]"') from error
    return pyarrow, parquet
