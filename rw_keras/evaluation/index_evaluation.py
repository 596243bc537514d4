"""How good the search in an index is, by labels of the user's own: mAP, mP@k and recall@k, each with its interval."""

from __future__ import annotations

import dataclasses
import itertools
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import tqdm

from rw_keras.evaluation.labels import LabelledQuery, Labels, read_labels
from rw_keras.model.recipe import max_side_of
from rw_keras.retrieval import places
from rw_keras.retrieval.expansion import expand_query
from rw_keras.retrieval.intervals import Difference, Interval, LandmarkOf, bootstrap, landmark_by_name, paired_difference
from rw_keras.retrieval.metrics import GroundTruth, area, checked_k, precision, recall
from rw_keras.retrieval.rerank import Rerank
from rw_keras.retrieval.vectors import check_expansion

if TYPE_CHECKING:
    import keras

    from rw_keras.retrieval import Index
    from rw_keras.runtimes import Describer

# Positions and cosines of rankings that are held at a time: 48 MB.
_HELD = 1 << 22


@dataclasses.dataclass(frozen=True)
class IndexEvaluation:
    """What `evaluate_index` measured.

    Attributes:
        photos: how many the index holds.
        scores: "mAP", "mP@k" and "recall@k" -> query -> score.
        landmarks: query -> what it shows; see `rw_keras.evaluation.labels.Labels`.
        searched: how the index was searched: "rerank", "smooth", "expand" and "alpha", as for `Index.search`.
    """

    photos: int
    scores: dict[str, dict[str, float]]
    landmarks: dict[str, str]
    searched: dict[str, Any]

    def interval(self, measure: str = "mAP") -> Interval:
        """The mean of a measure with its 95 % interval over landmarks; see `interval`."""
        return interval(self.scores[measure], self.landmarks)

    def difference(self, baseline: IndexEvaluation, measure: str = "mAP") -> Difference:
        """By how much this is better than `baseline` over the same queries; see `rw_keras.retrieval.paired_difference`."""
        return paired_difference(self.scores[measure], baseline.scores[measure], self.landmarks)


def interval(scores: Mapping[str, float], landmark_of: LandmarkOf = landmark_by_name) -> Interval:
    """The mean of scores with its interval, of `rw_keras.retrieval.bootstrap`; where all queries are of one landmark, there is no
    interval, and its ends are NaN."""
    of = landmark_of.__getitem__ if isinstance(landmark_of, Mapping) else landmark_of
    if len(set(map(of, scores))) > 1:
        return bootstrap(scores, landmark_of)
    return Interval(float(np.mean(list(scores.values()))), float("nan"), float("nan"), 0.95, len(scores), 1)


def evaluate_index(
    index: Index,
    labels: str | os.PathLike[str] | GroundTruth | Labels,
    *,
    k: Iterable[int] = (1, 5, 10),
    expand: int | None = None,
    rerank: int | Rerank | str | None = "auto",
    alpha: float = 0.0,
    model: keras.Model | Describer | None = None,
    photos: str | os.PathLike[str] | None = None,
    missing: str = "refuse",
    progress: bool = True,
) -> IndexEvaluation:
    """Measures how well an index finds what its photos show.

    A query that is a photo of the index is asked by the index's own descriptor and region vectors, and needs no network; what the
    index rounds, the query has rounded. It is asked as if the photo were not in the index, unless its positives name it. All photos
    are ranked, which any searcher does exactly; `Index.recall` measures an approximate one.

    mAP is the mean of `rw_keras.retrieval.average_precision`, mP@k of `precision_at`, recall@k of `recall_at`.

    Example:
        >>> import numpy as np, rw_keras
        >>> vectors = [[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]]
        >>> index = rw_keras.retrieval.Index(["cup/1.jpg", "cup/2.jpg", "key/1.jpg", "key/2.jpg"], np.array(vectors))
        >>> rw_keras.evaluation.evaluate_index(index, "folders", progress=False).interval().mean
        1.0

    Args:
        index: what is asked.
        labels: what `rw_keras.evaluation.labels.read_labels` takes, or what it gave.
        k: the ranks to take precision and recall at.
        expand, alpha: see `Index.search`.
        rerank: see `Index.search`. "auto", the default: as `index.search_defaults` have it, where there are region vectors.
        model: what describes queries with a box, and those of photos that are not in the index: as for `Index.search_photo`.
        photos, missing: see `read_labels`.
        progress: whether to show a progress bar on standard error.

    Raises:
        ValueError: for labels that do not fit (see `read_labels`), a search that `Index.search` refuses, queries to be described
            without a `model`, or with one that did not make the index; and for an index in Milvus.
    """
    places.check_folder(getattr(index, "place", None), "An evaluation")
    cuts = [checked_k(cut) for cut in k]
    if rerank == "auto":
        rerank = index.default_rerank
    rerank = Rerank.of(rerank)
    # All that `Index.search` would refuse, before photos are described.
    check_expansion(expand, alpha)
    if rerank is not None:
        index.check_rerank(rerank)
    labels = labels if isinstance(labels, Labels) else read_labels(labels, index, photos=photos, missing=missing)
    described = _described(index, labels.to_describe, model, rerank is not None)
    scores: dict[str, dict[str, float]] = {
        measure: {} for measure in ("mAP", *(f"mP@{cut}" for cut in cuts), *(f"recall@{cut}" for cut in cuts))
    }
    rankings = _rankings(index, labels.queries, described, expand, rerank, alpha)
    shown = tqdm.tqdm(
        rankings,
        desc="asking",
        total=len(labels.queries),
        unit="query",
        disable=not progress,
        delay=1,
        mininterval=0.1 if sys.stderr.isatty() else 10,
    )
    for name, ranking in shown:
        ranks, positives = _ranks(labels.queries[name], ranking, len(index))
        scores["mAP"][name] = area(ranks, positives)
        for cut in cuts:
            scores[f"mP@{cut}"][name] = precision(ranks, positives, cut)
            scores[f"recall@{cut}"][name] = recall(ranks, positives, cut)
    count, smooth = (None, None) if rerank is None else (rerank.count, rerank.smooth)
    searched = {"rerank": count, "smooth": smooth, "expand": expand, "alpha": alpha}
    return IndexEvaluation(len(index), scores, {name: labels.landmarks[name] for name in labels.queries}, searched)


def _described(index, queries, model, with_regions):
    """Query -> (descriptor, region vectors or `None`), of those that the index has no descriptor of."""
    if not queries:
        return {}
    if model is None:
        raise ValueError(
            f"{len(queries)} queries have a box or are not in the index, {next(iter(queries))!r} first, so a model has to describe "
            "them; pass `model`, the one that made the index."
        )
    from rw_keras.description.describe import describe

    index.check_model(model)
    paths, boxes = [query.path for query in queries.values()], [query.box for query in queries.values()]
    found = describe(model, paths, boxes, max_side=max_side_of(index.recipe), regions=with_regions)
    regions = found.regions if with_regions else [None] * len(queries)
    return {name: (np.asarray(vector), own) for name, vector, own in zip(queries, found, regions)}


def _rankings(
    index: Index,
    queries: Mapping[str, LabelledQuery],
    described: Mapping[str, tuple[np.ndarray, Any]],
    expand: int | None,
    rerank: int | Rerank | None,
    alpha: float,
) -> Iterator[tuple[str, np.ndarray]]:
    """Each query with the positions of the index, best first, in the order of `queries`."""
    expanded = (expand or 1) > 1
    plain = rerank is None and not expanded
    step = max(1, _HELD // max(1, len(index)))
    for hidden, names in itertools.groupby(queries, lambda name: None if plain or not queries[name].left_out else name):
        # In a plain ranking an own photo is junk, which is taken out later. Re-ranking and expansion would make use of it, so the
        # query is asked alone, with its photo hidden.
        within = None
        if hidden is not None:
            within = np.ones(len(index), bool)
            within[queries[hidden].position] = False
        while block := list(itertools.islice(names, step)):
            vectors, regions = zip(*(described.get(name) or _own(index, queries[name], rerank) for name in block))
            compared = {"rerank": rerank, "regions": None if rerank is None else list(regions)}
            asked = np.stack(vectors)
            if expanded:
                asked = expand_query(asked, index, expand, within=within, alpha=alpha, **compared)
                compared = {}
            found, _ = index.nearest_batch(asked, len(index), within=within, **compared)
            yield from zip(block, found)


def _own(index, query, rerank):
    """The descriptor of a photo of the index, and its region vectors where they are compared."""
    vector = np.asarray(index.descriptors[query.position : query.position + 1])[0]
    return vector, None if rerank is None else index.regions[query.position]


def _ranks(query, ranking, count):
    """The ranks, from 1 and with junk taken out, at which positives stand; and how many positives there are."""
    right, junk = np.zeros(count, bool), np.zeros(count, bool)
    junk[query.junk] = True
    right[query.positives] = True
    right &= ~junk
    kept = ranking[~junk[ranking]]
    return (np.flatnonzero(right[kept]) + 1).tolist(), int(right.sum())
