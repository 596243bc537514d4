"""The protocol of Oxford5k and Paris6k over a folder of photos and a folder of ground truth."""

import collections
import sys

import numpy as np

from rw_keras.datasets.oxford import photos_by_name, read_ground_truth
from rw_keras.extraction import describe_cached
from rw_keras.retrieval import Index, average_precision
from rw_keras.whitening import Whitening


class Evaluation(collections.namedtuple("Evaluation", "average_precisions photos skipped_queries missing_positives")):
    """What `evaluate` measured: qe -> query -> AP, and over how much of the set.

    Attributes:
        average_precisions: qe -> {query: AP}.
        photos: how many photos were ranked.
        skipped_queries: queries without their own photo, or without any positive in the folder.
        missing_positives: how many different positives are not in the folder.
    """

    __slots__ = ()

    def mean(self, qe):
        """The mAP at `qe`."""
        return float(np.mean(list(self.average_precisions[qe].values())))


def evaluate(
    model,
    photos,
    ground_truth,
    *,
    max_side=1024,
    qe=(1, 5),
    allow_missing=False,
    corrupt=frozenset(),
    cache=None,
    progress=True,
):
    """Measures a model's mAP by the protocol of Oxford5k and Paris6k.

    Each query's box is cut out of its photo before the network; the photo stays in the index. Junk is removed from a
    ranking before it is scored.

    Args:
        model: a model of `build_descriptor`.
        photos: a folder with the photos, and those below it.
        ground_truth: a folder with the `*_query.txt`, `*_good.txt`, `*_ok.txt`, `*_junk.txt` files.
        max_side: see `rw_keras.describe`.
        qe: the expansions to measure; 1 is none.
        allow_missing: whether to go on where positives are not among the photos. They are then left out of the ground
            truth, and queries without their own photo or any positive are skipped.
        corrupt: names of photos that the set itself knows to be damaged: left out of photos and ground truth.
        cache: a folder that keeps descriptors between runs; `None`: nothing is kept.
        progress: whether to show a progress bar on standard error.

    Raises:
        ValueError: when the model's whitening was learned on photos of this set, when positives are missing and
            `allow_missing` is not given, or no query is left.
    """
    queries = read_ground_truth(ground_truth)
    paths = {name: path for name, path in photos_by_name(photos).items() if name not in corrupt}
    _refuse_whitening_of_the_same_set(model, paths)

    vectors, failures = describe_cached(model, list(paths.values()), max_side=max_side, cache=cache, progress=progress)
    for _, reason in failures:
        print(f"left out: {reason}", file=sys.stderr)
    names = [name for name, vector in zip(paths, vectors) if vector is not None]
    index = Index(names, np.stack([vector for vector in vectors if vector is not None]))

    present = set(names)
    missing = {name for query in queries.values() for name in query.positives - corrupt - present}
    skipped = [name for name, query in queries.items() if query.photo not in present or not query.positives & present]
    if (missing or skipped) and not allow_missing:
        raise ValueError(
            f"{len(missing)} positives and the photos of {len(skipped)} queries are not in {photos}, "
            f"{min(missing or {queries[skipped[0]].photo})} for one, so an mAP would be of another set; get the missing photos, or "
            "pass --allow_missing to leave them out."
        )
    asked = {name: query for name, query in queries.items() if name not in skipped}
    if not asked:
        raise ValueError(f"No query of {ground_truth} has its photo and a positive in {photos}; pass the folders of one set.")
    query_paths = [paths[query.photo] for query in asked.values()]
    boxes = [query.box for query in asked.values()]
    vectors, failures = describe_cached(model, query_paths, boxes, max_side=max_side, cache=cache, progress=progress)
    if failures:
        raise ValueError(f"{len(failures)} queries cannot be described: {failures[0][1]}")
    measured = {
        expansion: {
            name: average_precision(index.rank(vector, expansion), query.positives & present, query.junk)
            for (name, query), vector in zip(asked.items(), vectors)
        }
        for expansion in qe
    }
    return Evaluation(measured, len(names), skipped, len(missing))


def _refuse_whitening_of_the_same_set(model, names):
    provenance = model.recipe.get("whitening")
    if not provenance:
        return
    whitening = Whitening(None, None, None, {}, provenance)
    common = whitening.photos_in_common(names)
    if common:
        raise ValueError(
            f"The model is whitened as learned on {whitening.describe()}, which has {common} photos in common with the set it "
            "would be tested on; learn the whitening on another set, or pass whitening=None."
        )
