"""Plain folders laid out as the original sets, whole or in part."""

import dataclasses
import os
import pathlib

from rw_keras.datasets import catalogue
from rw_keras.datasets.oxford import Query, photos_by_name
from rw_keras.datasets.revisited import RevisitedQuery

_SETS = {known.name: known for known in (catalogue.OXFORD5K, catalogue.PARIS6K, catalogue.ROXFORD5K, catalogue.RPARIS6K)}


@dataclasses.dataclass(frozen=True)
class PhotoSet:
    """A set, or a part of it, read from a folder. In words: `str(photo_set)`.

    Attributes:
        name: the set's name.
        photos: name -> path of the photos that are searched.
        queries: query name -> query.
        query_photos: query name -> path of the photo that it is cut from, where that is there.
        full_count: how many photos the full set has.
        full_queries: how many queries the full set has.
        incomplete: names of the queries, among those that were read, whose own photo or any positive is not there.
        dropped: how many of them were left out.
    """

    name: str
    photos: dict[str, pathlib.Path]
    queries: dict[str, Query | RevisitedQuery]
    query_photos: dict[str, pathlib.Path]
    full_count: int
    full_queries: int
    incomplete: tuple[str, ...]
    dropped: int

    def __str__(self):
        photos = _of(len(self.photos), self.full_count)
        queries = _of(len(self.queries), self.full_queries)
        absent = f", {len(self.incomplete)} of them without all their photos" if self.incomplete else ""
        if self.dropped:
            absent = f", {self.dropped} more dropped for photos that are not there"
        return f"{self.name}: {photos} photos, {queries} queries{absent}"


def read_folder(folder: str | os.PathLike[str], dataset: str = "oxford5k", drop_incomplete: bool = False) -> PhotoSet:
    """Reads a folder laid out as a set: photos in `jpg/` and those below it, ground truth in `gt/`, all of them or a part.

    Args:
        folder: the folder that holds both; `paris/` for `jpg/`, and the archives' own names, are known as well. The revisited sets
            have a file `gnd_roxford5k.pkl` or `.mat` in place of `gt/`.
        dataset: "oxford5k", "paris6k" (the 20 photos that are damaged as published are left out), "roxford5k" or "rparis6k".
        drop_incomplete: whether to leave out queries whose own photo or any positive is not there. Those that stay have the very
            positives of the full set.

    Raises:
        FileNotFoundError: when there is no such folder, or no photos or ground truth in it.
        ValueError: for an unknown set, or when photos or ground truth cannot be read, or no query is left.
    """
    if dataset not in _SETS:
        raise ValueError(f"dataset={dataset!r} is not a set that can be read from a folder; pass one of {', '.join(_SETS)}.")
    known = _SETS[dataset]
    landmarks = known.photos[0]
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"There is no folder {folder}; pass the one that holds {landmarks.folders[0]}/ and the ground truth."
        )
    place = landmarks.folder(folder)
    if place is None:
        raise FileNotFoundError(f"There is no {landmarks.folders[0]}/ in {folder}; put the photos of {dataset} there.")
    truth, missing = known.truth.find(folder)
    if missing:
        there = " or ".join([*(f"{name}/" for name in known.truth.folders[:1]), missing[0].name, *missing[0].also])
        raise FileNotFoundError(f"There is no {there} in {folder}; put the ground truth of {dataset} there.")

    present = {name: path for name, path in photos_by_name(place).items() if name not in landmarks.corrupt}
    index, queries = known.truth.read(truth)
    queries = {name: query.without(landmarks.corrupt) for name, query in queries.items()}
    photos = present if index is None else {name: present[name] for name in index if name in present}
    incomplete = tuple(
        name for name, query in queries.items() if query.photo not in present or not query.positives <= photos.keys()
    )
    if drop_incomplete:
        queries = {name: query for name, query in queries.items() if name not in incomplete}
        if not queries:
            raise ValueError(
                f"No query of {truth[0]} has all its photos in {place}; pass drop_incomplete=False to read them still."
            )
    return PhotoSet(
        name=dataset,
        photos=photos,
        queries=queries,
        query_photos={name: present[query.photo] for name, query in queries.items() if query.photo in present},
        full_count=known.index,
        full_queries=known.queries,
        incomplete=incomplete,
        dropped=len(incomplete) if drop_incomplete else 0,
    )


def _of(count, full):
    return f"{count}" if count == full else f"{count} of {full}"
