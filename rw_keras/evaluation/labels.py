"""What a user's own photos show: labels by folders, from a CSV file, or a ground truth as that of Oxford5k, for one index."""

from __future__ import annotations

import collections
import csv
import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rw_keras.datasets.oxford import read_ground_truth
from rw_keras.files import inside
from rw_keras.model.recipe import max_side_of
from rw_keras.photos.reading import Box, ImageError, read_image
from rw_keras.retrieval.metrics import GroundTruth, landmarks

if TYPE_CHECKING:
    from rw_keras.retrieval import Index

# The word for labels by folders.
FOLDERS = "folders"
# What to do where a label names a photo that is not there; see `read_labels`.
MISSING = ("refuse", "drop_queries", "allow")
# Between the names in one cell of a CSV file: file names hardly ever hold it.
_BETWEEN = "|"
_TITLES = ("query", "positives", "junk", "box")


@dataclasses.dataclass(frozen=True, slots=True)
class LabelledQuery:
    """A query, and which rows of an index are right.

    Attributes:
        positives: their positions `(P,)`. One that is among `junk` too counts neither way.
        junk: positions `(J,)` of what counts neither way.
        position: where the query's own photo stands in the index; `None`: it is not in it.
        left_out: whether the own photo is taken out of the index while the query is asked.
        path: of the photo that is to be described; `None`: the index's own descriptor is asked.
        box: (x1, y1, x2, y2) of the part that is asked for, in pixels; `None`: the whole photo.
    """

    positives: np.ndarray
    junk: np.ndarray
    position: int | None
    left_out: bool = True
    path: str | None = None
    box: Box | None = None


@dataclasses.dataclass(frozen=True)
class Labels:
    """The queries that an index is asked, of `read_labels`.

    Attributes:
        queries: query -> `LabelledQuery`.
        landmarks: query -> what it shows, for `rw_keras.retrieval.bootstrap`: its folder; or a name for all queries that share a
            third of their photos or more (see `rw_keras.retrieval.landmarks`).
        skipped: queries that are not asked, because photos are missing.
        absent: how many photos the labels name that are not there.
    """

    queries: dict[str, LabelledQuery]
    landmarks: dict[str, str]
    skipped: tuple[str, ...] = ()
    absent: int = 0

    @property
    def to_describe(self) -> dict[str, LabelledQuery]:
        """The queries that a model has to describe: with a box, or of a photo that is not in the index."""
        return {name: query for name, query in self.queries.items() if query.path is not None}

    def some(self, count: int) -> Labels:
        """`count` of the queries, evenly spread over all; all, where there are no more."""
        names = list(self.queries)
        if count >= len(names):
            return self
        chosen = [names[place] for place in np.linspace(0, len(names) - 1, count).round().astype(int)]
        return dataclasses.replace(self, queries={name: self.queries[name] for name in chosen})


def read_labels(
    labels: str | os.PathLike[str] | GroundTruth,
    index: Index,
    *,
    photos: str | os.PathLike[str] | None = None,
    missing: str = "refuse",
) -> Labels:
    """Reads labels, and looks up in an index what they name: in seconds, before anything is described.

    A query's own photo is taken out of the index while it is asked, unless its positives name it, as those of Oxford5k do.

    Args:
        labels: one of
            - "folders": a photo's folder, all before the last "/" of its name, is what it shows. Every photo that is not alone in
              its folder is a query, and the others there are its positives. A photo in no folder is wrong for every query.
            - a CSV file with the titles `query` and `positives`, and optionally `junk` and `box`. A cell of positives or junk holds
              names in the index with "|" between them. A query is a name in the index, or the path of another photo, relative to
              the file's own folder; with a box, "x1 y1 x2 y2" in pixels, only that part is asked for. Rows with the same query and
              box are one query, so one positive a row is as good.
            - a folder of `*_query.txt`, `*_good.txt`, `*_ok.txt`, `*_junk.txt`, as that of Oxford5k; it names photos without their
              folder and ending.
            - a dictionary query -> (positives, junk), as `rw_keras.retrieval.holidays_ground_truth` gives it.
        index: what is asked.
        photos: the folder of the index's photos; needed for queries with a box whose photos are in the index.
        missing: what to do where labels name photos that are not there. "refuse", the default: an error. "drop_queries": leave out
            the queries that name any of them. "allow": leave out the photos alone, and queries without a positive.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the labels cannot be read, a photo that is to be described cannot be either, photos are missing and
            `missing` is "refuse", or no query is left.
    """
    if missing not in MISSING:
        raise ValueError(f"missing is one of {', '.join(map(repr, MISSING))}, but got {missing!r}.")
    if isinstance(labels, (str, os.PathLike)) and os.fspath(labels) == FOLDERS:
        return _by_folders(index)
    if isinstance(labels, Mapping):
        named, where = {query: _Named(query, None, *map(set, truth)) for query, truth in labels.items()}, "the ground truth"
    elif os.path.isdir(labels):
        named, where = _of_ground_truth(labels, index), labels
    else:
        named, where = _of_csv(pathlib.Path(labels)), labels
    return _located(named, index, photos, missing, where)


@dataclasses.dataclass(frozen=True)
class _Named:
    """A query by names: its photo, its box, its positives and junk, and the folder that the path of a photo is relative to."""

    photo: str
    box: Box | None
    positives: set[str]
    junk: set[str]
    folder: str = ""


def _by_folders(index):
    """Positions by folder: the positives of a folder are held once, however many photos ask for them."""
    members = collections.defaultdict(list)
    for position, name in enumerate(index.names):
        members[name.rpartition("/")[0]].append(position)
    members.pop("", None)
    queries, folders = {}, {}
    for folder, positions in members.items():
        positives = np.array(positions, np.intp)
        for position in positions if len(positions) > 1 else ():
            name = index.names[position]
            queries[name], folders[name] = LabelledQuery(positives, np.array([position], np.intp), position), folder
    if not queries:
        raise ValueError(
            f"No two of the index's {len(index)} photos share a folder, so folders are no labels; describe photos that lie in one "
            "folder for each thing they show, or give a CSV file."
        )
    return Labels(queries, folders)


def _of_ground_truth(folder, index):
    by_stem: dict[str, list[str]] = collections.defaultdict(list)
    for name in index.names:
        by_stem[pathlib.PurePosixPath(name).stem].append(name)

    def full(stem):
        found = by_stem.get(stem, [stem])
        if len(found) > 1:
            raise ValueError(f"{folder} names {stem}, which may be {found[0]!r} or {found[1]!r} of the index; give a CSV file.")
        return found[0]

    return {
        name: _Named(full(query.photo), query.box, set(map(full, query.positives)), set(map(full, query.junk)))
        for name, query in read_ground_truth(folder).items()
    }


def _of_csv(path):
    if not path.is_file():
        raise FileNotFoundError(f"There are no labels {path}; give {FOLDERS!r}, a CSV file, or a folder of ground truth.")
    try:
        with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            titles, *rows = [line for line in csv.reader(file) if line] or [[]]
    except csv.Error as error:
        raise ValueError(f"{path} cannot be read as CSV: {error}.") from error
    if not {"query", "positives"} <= set(titles) <= set(_TITLES) or len(set(titles)) < len(titles):
        raise ValueError(
            f"{path} has the titles {', '.join(titles) or 'of no column'}; its first line holds query and positives, and may hold "
            "junk and box."
        )
    queries = {}
    for number, row in enumerate(rows, 2):
        if len(row) != len(titles):
            raise ValueError(f"Row {number} of {path} has {len(row)} values for {len(titles)} titles; give one for each.")
        cells = dict(zip(titles, row))
        if not cells["query"]:
            raise ValueError(f"Row {number} of {path} names no query; give the photo that is asked.")
        box = _box(cells.get("box", ""), number, path)
        name = cells["query"] if box is None else f"{cells['query']} [{' '.join(f'{corner:g}' for corner in box)}]"
        query = queries.setdefault(name, _Named(cells["query"], box, set(), set(), str(path.parent)))
        for names, title in ((query.positives, "positives"), (query.junk, "junk")):
            names.update(filter(None, cells.get(title, "").split(_BETWEEN)))
    if not queries:
        raise ValueError(f"{path} holds no query; give one a row.")
    return queries


def _box(text, number, path):
    if not text.strip():
        return None
    try:
        x1, y1, x2, y2 = map(float, text.replace(",", " ").split())
    except ValueError:
        raise ValueError(f'Row {number} of {path} has the box {text!r}; give "x1 y1 x2 y2" in pixels, or nothing.') from None
    return x1, y1, x2, y2


def _located(named, index, photos, missing, where):
    """Names as positions in the index, without those that are not there; `named`: query -> `_Named`."""
    positions = {}
    for query in named.values():
        for name in {query.photo} | query.positives | query.junk:
            positions.setdefault(name, _position(index, name))
    paths = {name: _path(query, positions[query.photo], photos) for name, query in named.items()}
    gone = {name: _gone(query, positions, paths[name]) for name, query in named.items()}
    absent = list(dict.fromkeys(photo for photos_gone in gone.values() for photo in photos_gone))
    if absent and missing == "refuse":
        raise ValueError(
            f"{where} names {len(absent)} photos that are not in the index of {len(index)}, {absent[0]!r} first, where a photo's "
            f"name is {next(iter(index.names), '')!r}; correct them, or pass missing='drop_queries' to leave out the queries that "
            "name them, or missing='allow' to leave out the photos alone."
        )
    queries, skipped = {}, []
    for name, query in named.items():
        both = query.positives & query.junk
        if both:
            raise ValueError(f"{min(both)!r} is both positive and junk of the query {name!r}; take it out of one of the two.")
        own = positions[query.photo]
        left_out = own is not None and query.photo not in query.positives
        positives, junk = (
            np.array(sorted(positions[each] for each in photos_ if positions[each] is not None), np.intp)
            for photos_ in (query.positives, query.junk | ({query.photo} if left_out else set()))
        )
        if not query.positives:
            raise ValueError(f"The query {name!r} of {where} has no positive; give it one, or leave it out.")
        if (own is None and paths[name] is None) or not len(positives) or (gone[name] and missing == "drop_queries"):
            skipped.append(name)
            continue
        queries[name] = LabelledQuery(positives, junk, own, left_out, paths[name], query.box)
    if not queries:
        raise ValueError(f"No query of {where} has its photo and a positive in the index; give labels of these photos.")
    truth = {name: ({named[name].photo, *named[name].positives},) for name in queries}
    found = Labels(queries, landmarks(truth), tuple(skipped), len(absent))
    _check_photos(found, index)
    return found


def _position(index, name):
    try:
        return index.position(name)
    except ValueError:
        return None


def _path(query, position, photos):
    """Where a photo lies that has to be described, or `None` where the index has the query's descriptor, or there is no photo."""
    if position is None:
        path = os.path.join(query.folder, query.photo)
        return path if os.path.isfile(path) else None
    if query.box is None:
        return None
    if photos is None:
        raise ValueError(f"The query {query.photo!r} has a box, and the index does not say where its photos lie; pass `photos`.")
    path = inside(photos, query.photo)
    if path is None or not os.path.isfile(path):
        raise FileNotFoundError(f"There is no photo {query.photo!r} of a query in {photos}; pass `photos`, where they lie now.")
    return path


def _gone(query, positions, path):
    """The photos that a query names and that are not there, each once."""
    own = [query.photo] if positions[query.photo] is None and path is None else []
    return own + sorted(name for name in query.positives | query.junk if positions[name] is None and name != query.photo)


def _check_photos(labels, index):
    """Refuses a photo that cannot be described, before a network is built."""
    recipe: Mapping[str, Any] = index.recipe or {}
    for name, query in labels.to_describe.items():
        try:
            read_image(query.path, query.box, max_side_of(recipe), recipe.get("min_side", 1))
        except (ImageError, OSError) as error:
            raise ValueError(f"The query {name!r} cannot be described: {error}") from None
