"""The protocol of Oxford5k and Paris6k over a folder of photos and a folder of ground truth."""

from __future__ import annotations

import collections
import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rw_keras.datasets.oxford import Query, photos_by_name, read_ground_truth
from rw_keras.description.cache import describe_cached
from rw_keras.evaluation.labels import MISSING
from rw_keras.model.recipe import provenance_in_words
from rw_keras.model.whitening import photos_in_common
from rw_keras.photos.reading import ImageError, read_image
from rw_keras.retrieval import Index, Rerank, average_precision, bootstrap

if TYPE_CHECKING:
    import pathlib

    import keras

    from rw_keras import runtimes
    from rw_keras.photos.reading import Box


class Evaluation(collections.namedtuple("Evaluation", "average_precisions photos skipped_queries missing_positives")):
    """What `evaluate` measured: qe -> query -> AP, and over how much of the set.

    Attributes:
        average_precisions: qe -> {query: AP}.
        photos: how many photos were ranked.
        skipped_queries: queries that were left out for photos that are missing.
        missing_positives: how many different positives are not in the folder.
    """

    __slots__ = ()

    def mean(self, qe):
        """The mAP at `qe`."""
        return float(np.mean(list(self.average_precisions[qe].values())))

    def interval(self, qe):
        """The mAP at `qe` with its 95 % interval over landmarks; see `rw_keras.retrieval.bootstrap`."""
        return bootstrap(self.average_precisions[qe])


class Photos(NamedTuple):
    """The photos of a folder, so that it is listed once.

    Attributes:
        folder: where they lie.
        paths: name -> path; see `rw_keras.datasets.oxford.photos_by_name`.
    """

    folder: str | os.PathLike[str]
    paths: dict[str, pathlib.Path]

    @classmethod
    def of(cls, photos: str | os.PathLike[str] | Photos) -> Photos:
        """Those of a folder, or what they are already."""
        return photos if isinstance(photos, cls) else cls(photos, photos_by_name(photos))


def evaluate(
    model: keras.Model | runtimes.Describer,
    photos: str | os.PathLike[str] | Photos,
    ground_truth: str | os.PathLike[str],
    *,
    max_side: int | None = 1024,
    qe: Sequence[int] = (1, 5),
    rerank: int | Rerank | None = None,
    missing: str = "refuse",
    corrupt: Set[str] = frozenset(),
    cache: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Evaluation:
    """Measures a model's mAP by the protocol of Oxford5k and Paris6k.

    Each query's box is cut out of its photo before the network; the photo stays in the index. Junk is removed from a
    ranking before it is scored.

    Args:
        model: a model of `build_descriptor`.
        photos: a folder with the photos, and those below it, or what `check_missing` gave of it.
        ground_truth: a folder with the `*_query.txt`, `*_good.txt`, `*_ok.txt`, `*_junk.txt` files.
        max_side: see `rw_keras.describe`.
        qe: the expansions to measure; 1 is none.
        rerank: how many of the first photos are put in the order of their regions, before an expansion, as for `Index.search`;
            `None`: none. The query's regions are those of its box. Photos' are kept in 8 bits, as an index keeps them.
        missing: what to do where photos of the ground truth are not there. "refuse", the default: an error, before anything is
            described. "drop_queries": leave out every query whose own photo or any positive is missing; those that stay have the
            very positives of the full set. "allow": leave the missing positives out of the ground truth, and skip queries without
            their own photo or any positive.
        corrupt: names of photos that the set itself knows to be damaged: left out of photos and ground truth.
        cache: a folder that keeps descriptors between runs; `None`: nothing is kept.
        progress: whether to show a progress bar on standard error.

    Raises:
        ValueError: when the model's whitening was learned on photos of this set, when photos are missing and `missing` is
            "refuse", or no query is left. For `rerank` with a model that has no whitened region vectors.
    """
    photos = check_missing(photos, ground_truth, missing, corrupt)
    _refuse_whitening_of_the_same_set(model, photos.paths.keys() - corrupt)
    described = functools.partial(
        describe_cached, model, max_side=max_side, cache=cache, regions=rerank is not None, progress=progress
    )
    return evaluate_described(described, photos, ground_truth, qe=qe, rerank=rerank, missing=missing, corrupt=corrupt)


def check_missing(
    photos: str | os.PathLike[str] | Photos,
    ground_truth: str | os.PathLike[str],
    missing: str = "refuse",
    corrupt: Set[str] = frozenset(),
) -> Photos:
    """Looks whether all photos of the ground truth are there, by their names alone: in less than a second.

    Args:
        photos, ground_truth, missing, corrupt: see `evaluate`.

    Returns:
        The photos of the folder, for `evaluate`.

    Raises:
        ValueError: for photos that are missing, where `missing` is "refuse"; where no query is left; for another `missing`.
    """
    queries = {name: query.without(corrupt) for name, query in read_ground_truth(ground_truth).items()}
    photos = Photos.of(photos)
    asked_queries(queries, photos.paths.keys() - corrupt, missing, photos.folder)
    return photos


def asked_queries(
    queries: Mapping[str, Query], present: Set[str], missing: str, where: str | os.PathLike[str]
) -> tuple[dict[str, Query], int]:
    """The queries that are asked, where some of the photos may not be there.

    Args:
        queries: name -> `rw_keras.datasets.oxford.Query`.
        present: names of the photos that are there.
        missing: see `evaluate`.
        where: the folder of the photos, for errors.

    Returns:
        Name -> query, whose positives are all present; and how many different positives are not.

    Raises:
        ValueError: see `check_missing`.
    """
    if missing not in MISSING:
        raise ValueError(f"missing is one of {', '.join(map(repr, MISSING))}, but got {missing!r}.")
    absent = {name for query in queries.values() for name in query.positives - present}
    without_photo = [name for name, query in queries.items() if query.photo not in present]
    if missing == "refuse" and (absent or without_photo):
        example = min(absent | {queries[name].photo for name in without_photo})
        raise ValueError(
            f"{len(absent)} positives and the photos of {len(without_photo)} queries are not in {where}, {example} for one, so an "
            "mAP would be of another set; get the missing photos, or pass missing='drop_queries' to leave out the queries that "
            "they belong to, or missing='allow' to leave out the photos alone."
        )
    asked = {}
    for name, query in queries.items():
        positives = query.positives & present
        if query.photo in present and positives and (missing == "allow" or positives == query.positives):
            asked[name] = query.without(query.positives - present)
    if not asked:
        needed = "a positive" if missing == "allow" else "all its positives"
        raise ValueError(f"No query has its photo and {needed} in {where}; pass the folders of one set.")
    return asked, len(absent)


def evaluate_described(
    describe: Callable[[list[pathlib.Path], list[Box] | None], tuple[list[np.ndarray | None], list[tuple[Any, str]]]],
    photos: str | os.PathLike[str] | Photos,
    ground_truth: str | os.PathLike[str],
    *,
    qe: Sequence[int] = (1, 5),
    rerank: int | Rerank | None = None,
    missing: str = "refuse",
    corrupt: Set[str] = frozenset(),
) -> Evaluation:
    """`evaluate` for descriptors of any origin.

    Args:
        describe: a function (paths, boxes or `None`) -> what `rw_keras.description.cache.describe_cached` returns, with `regions`
            where `rerank` is given.
        photos, ground_truth, qe, rerank, missing, corrupt: see `evaluate`.

    Raises:
        ValueError: when photos are missing and `missing` is "refuse", or no query is left.
    """
    queries = {name: query.without(corrupt) for name, query in read_ground_truth(ground_truth).items()}
    photos = Photos.of(photos)
    paths = {name: path for name, path in photos.paths.items() if name not in corrupt}
    asked, _ = asked_queries(queries, paths.keys(), missing, photos.folder)  # before minutes are spent, as the boxes are
    _check_boxes(asked, paths)
    vectors, failures = describe(list(paths.values()), None)
    for _, reason in failures:
        print(f"left out: {reason}", file=sys.stderr)
    found = {name: vector for name, vector in zip(paths, vectors) if vector is not None}
    if not found:
        raise ValueError(f"None of the {len(paths)} photos in {photos.folder} can be read; pass the folder of the set's photos.")
    regions = None if rerank is None else [vector.regions for vector in found.values()]
    index = Index(found, np.stack([np.asarray(vector) for vector in found.values()]), regions=regions)

    # Once more: a photo that cannot be read is missing too.
    asked, absent = asked_queries(queries, found.keys(), missing, photos.folder)
    vectors, failures = describe([paths[query.photo] for query in asked.values()], [query.box for query in asked.values()])
    if failures:
        raise ValueError(f"{len(failures)} queries cannot be described: {failures[0][1]}")
    measured = {
        expansion: {
            name: average_precision(
                index.rank(vector, expansion if expansion > 1 else None, rerank=rerank), query.positives, query.junk
            )
            for (name, query), vector in zip(asked.items(), vectors)
        }
        for expansion in qe
    }
    return Evaluation(measured, len(found), [name for name in queries if name not in asked], absent)


def _check_boxes(queries, paths):
    """Refuses queries whose box does not fit their photo; a photo that cannot be read at all counts as missing, later."""
    for name, query in queries.items():
        try:
            read_image(paths[query.photo], query.box)
        except (ImageError, OSError) as error:
            try:
                read_image(paths[query.photo])
            except (ImageError, OSError):
                continue
            raise ValueError(f"The query {name} cannot be described: {error}") from None


def _refuse_whitening_of_the_same_set(model, names):
    provenance = getattr(model, "whitening_provenance", None)
    if not provenance:
        return
    common = photos_in_common(provenance, names)
    # A stray IMG_0001 that both sets have does not make them one set.
    if common and 10 * common >= min(len(provenance["photo_ids"]), len(names)):
        raise ValueError(
            f"The model is whitened as learned on {provenance_in_words(provenance)}, which has {common} photos in common with the "
            "set it would be tested on; learn the whitening on another set, or pass whitening=None."
        )
