"""How an index is searched."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rw_keras._moved import RenamedAttribute, renamed
from rw_keras.model.recipe import UNSET, Recipe
from rw_keras.retrieval import duplicates, exact
from rw_keras.retrieval.contents import Contents
from rw_keras.retrieval.expansion import expand_query
from rw_keras.retrieval.filters import Within
from rw_keras.retrieval.rerank import QueryRegions, Rerank, reranked
from rw_keras.retrieval.rows import Rows
from rw_keras.retrieval.searchers import NumpySearcher, make_searcher
from rw_keras.retrieval.vectors import check_count, check_expansion, is_number, unit_vector, unit_vectors

# Pairs whose names are looked up together.
_NAMED = 1024


class Searchable(Contents):
    """Names and unit vectors that can be searched: what `rw_keras.retrieval.Index` is, but for how it is made, changed and kept.

    Attributes:
        names, descriptors, regions, recipe, metadata, failures, described_with, search_defaults: see `Index`.
        searcher: what searches; see `rw_keras.retrieval.searchers`.
    """

    failures: list[tuple[str, str]]
    described_with: list[dict[str, str]]
    search_defaults: Mapping[str, Any] = MappingProxyType({})
    searcher = NumpySearcher()

    def scores(self, query: ArrayLike) -> np.ndarray:
        """The cosines `(N,)` float32 of a query vector `(D,)` with all descriptors, in the order of the index."""
        query = unit_vector(query, self.dimensions)
        rows = Rows.of(self.descriptors)
        by_id = np.empty(rows.ids_given, "float32")
        for ids, vectors, _ in rows.blocks(rows.kept()):
            by_id[ids] = exact.cosines(vectors, query)
        return by_id[rows.ids()]

    def nearest(
        self, query: ArrayLike, k: int, *, within: Within | None = None, rerank: int | Rerank | None = None, regions: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The positions and scores of the `k` nearest descriptors, best first; equal ones in the order of the index.

        Arguments and errors as for `search`.
        """
        own = _regions_of_one(query, rerank, regions)
        query = unit_vector(query, self.dimensions)
        positions, scores = self.nearest_batch(query[None], k, within=within, rerank=rerank, regions=own)
        return positions[0], scores[0]

    def nearest_batch(
        self,
        queries: ArrayLike,
        k: int,
        *,
        within: Within | None = None,
        rerank: int | Rerank | None = None,
        regions: Sequence[Any] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """`nearest` for several queries at once: one pass over the descriptors, and the same results.

        Args:
            queries: `(Q, D)`.
            k, within, rerank: see `search`.
            regions: see `search_batch`.

        Returns:
            Positions `(Q, k)` and scores `(Q, k)` float32, cosines but for those of re-ranked rows; fewer columns where fewer than
            `k` rows may be found.
        """
        compared, rerank = self._compared(queries, rerank, regions), Rerank.of(rerank)
        queries, mask = self._asked(queries, k, within)
        most = int(k) if rerank is None else max(int(k), rerank.count)
        positions, scores = self.searcher.nearest(self._rows(), queries, most, mask)
        if compared is not None:
            vectors = [own.first(self.regions.spec["dimensions"]) for own in compared]
            positions, scores = self._reranked(vectors, positions, scores, rerank)
        return positions[:, :k], scores[:, :k]

    def _rows(self):
        """The descriptors as the searcher takes them."""
        return Rows.of(self.descriptors)

    def _reranked(self, vectors, positions, scores, rerank):
        """Rankings in the order of their regions; see `rw_keras.retrieval.rerank.reranked`."""
        return reranked(self.regions, self._rows(), vectors, positions, scores, rerank)

    def _exactly(self, queries, k):
        """The k best rows, whatever the searcher finds."""
        return exact.nearest(self._rows(), queries, k)

    def search(
        self,
        query: ArrayLike,
        k: int = 10,
        expand: int | None = None,
        *,
        rerank: int | Rerank | None = None,
        regions: Any = None,
        within: Within | None = None,
        min_score: float | None = None,
        alpha: float = 0.0,
    ) -> list[tuple[str, float]]:
        """The `k` best matches of a query vector.

        With `rerank`, the first so many photos by cosine are put in the order of a score of their regions: the mean, over the
        query's region vectors, of the highest cosine to any region vector of the photo. The others follow by cosine. Equal scores
        keep the order by cosine; a photo without region vectors has -1. `expand` then averages the descriptors of the query and of
        the first photos in this order, and ranks all of them again, by cosine.

        Args:
            query: `(D,)`, as `rw_keras.describe` returns it. Where its recipe is not the index's, as at another `max_side`, a
                warning says so.
            k: how many; all, where there are fewer.
            expand: query expansion over so many vectors, the query among them (see `expand_query`). Default: none.
            rerank: how many photos are put in the order of their regions, 1 or more; or a `Rerank`, which also says whether each
                photo's score is averaged with its neighbours'. The index has to hold region vectors. Default: none.
            regions: with `rerank`, the query's region vectors: `QueryRegions`, or vectors `(R, D)`. Default: `query.regions`, which
                `rw_keras.describe(..., regions=True)` gives.
            within: which rows may be found (see `Index`). Default: all.
            min_score: hits with a lower score are left out. Default: none.
            alpha: goes with `expand`: the power of the cosine that each vector is weighted by. Default 0: all alike.

        Returns:
            A list of (name, score), best first. The score is the cosine of the (expanded) query and the photo. With `rerank` and
            without `expand`, that of the first photos is the score of their regions, which is not to be compared with the cosines
            of those that follow them.

        Raises:
            ValueError: for a query of other dimensions, or with NaN, `k`, `expand` or `rerank` below 1, a filter that does not fit,
                an `alpha` below 0, or without `expand`; and for `rerank` where the index or the query has no region vectors.
        """
        self._warn_of_another_recipe(query)
        own = _regions_of_one(query, rerank, regions)
        query = unit_vector(query, self.dimensions)
        options = {"rerank": rerank, "regions": own, "within": within, "min_score": min_score, "alpha": alpha}
        return self.search_batch(query[None], k, expand, **options)[0]

    def search_batch(
        self,
        queries: ArrayLike,
        k: int = 10,
        expand: int | None = None,
        *,
        rerank: int | Rerank | None = None,
        regions: Sequence[Any] | None = None,
        within: Within | None = None,
        min_score: float | None = None,
        alpha: float = 0.0,
    ) -> list[list[tuple[str, float]]]:
        """`search` for several queries `(Q, D)` at once: one pass over the descriptors, and for each query the same list.

        `regions` has the region vectors of each query, as `search` takes them.
        """
        self._warn_of_another_recipe(queries)
        regions = self._compared(queries, rerank, regions)
        queries, mask = self._asked(queries, k, within, expand, min_score, alpha)
        if (expand or 1) > 1:
            queries = expand_query(queries, self, expand, within=mask, alpha=alpha, rerank=rerank, regions=regions)
            rerank = regions = None
        found = zip(*self.nearest_batch(queries, k, within=mask, rerank=rerank, regions=regions))
        return [
            [
                (name, score)
                for name, score in zip(self.named(positions.tolist()), scores.tolist())
                if min_score is None or score >= min_score
            ]
            for positions, scores in found
        ]

    def _warn_of_another_recipe(self, query):
        """Warns where a query says how it was made, and the index was made in another way."""
        made = getattr(query, "recipe", None)
        if not isinstance(made, Recipe) or self.recipe is None:
            return
        own = Recipe.from_dict(self.recipe, "The index's recipe")
        differing = own.differences(made if own.max_side is not UNSET else made.of_any_size(), "the query's")
        if differing:
            warnings.warn(
                f"The index was described in another way than the query: {'; '.join(differing)}. Ask with `search_photo`, which "
                "describes a photo as the index's were.",
                stacklevel=3,
            )

    def _asked(self, queries, k, within, expand=None, min_score=None, alpha=0.0):
        """What all searches are asked, checked before anything is computed: the queries `(Q, D)` of unit length, and the mask of
        the rows that may be found, or `None`."""
        check_count("k", k)
        check_expansion(expand, alpha)
        if min_score is not None and not is_number(min_score):
            raise ValueError(f"`min_score` is a cosine, but got {min_score!r}.")
        queries = unit_vectors(queries, self.dimensions)
        return queries, self.passing(within)

    def _compared(self, queries, rerank, regions):
        """The `QueryRegions` of each query, or `None` without re-ranking; checked before anything is computed."""
        if rerank is None:
            if regions is not None:
                raise ValueError("`regions` are what `rerank` compares, but got them without it; give both, or neither.")
            return None
        self.check_rerank(rerank)
        given = getattr(queries, "regions", None) if regions is None else regions
        if given is None:
            raise ValueError(
                "`rerank` compares the region vectors of the query, and it has none; describe it with "
                "`rw_keras.describe(..., regions=True)`, or give `regions=rw_keras.retrieval.QueryRegions(vectors)`."
            )
        if len(given) != len(queries):
            raise ValueError(f"There are region vectors of {len(given)} queries for {len(queries)} queries; give those of each.")
        compared = [QueryRegions.of(own) for own in given]
        for own in compared:
            own.first(self.regions.spec["dimensions"])  # refuses those that do not fit
        return compared

    @property
    def default_rerank(self) -> Rerank | None:
        """How `search_photo` re-ranks where it is not told: as `search_defaults` have it, and not without region vectors."""
        return None if self.regions is None else Rerank.of_defaults(self.search_defaults)

    def check_rerank(self, rerank: int | Rerank) -> None:
        """Raises a ValueError when this index cannot re-rank so many photos."""
        rerank = Rerank.of(rerank)
        if self.regions is None:
            raise ValueError(
                f"`rerank` is {rerank.count}, and the index holds no region vectors to re-rank by; make it with them, as "
                '`rw_keras.extract(..., regions="int8")` does, or leave `rerank` out.'
            )

    def rank(
        self,
        query: ArrayLike,
        expand: int | None = None,
        *,
        rerank: int | Rerank | None = None,
        regions: Any = None,
        alpha: float = 0.0,
    ) -> list[str]:
        """All names, best first; arguments as for `search`."""
        hits = self.search(query, max(len(self), 1), expand, rerank=rerank, regions=regions, alpha=alpha)
        return [name for name, _ in hits]

    def rank_batch(
        self,
        queries: ArrayLike,
        expand: int | None = None,
        *,
        rerank: int | Rerank | None = None,
        regions: Sequence[Any] | None = None,
        alpha: float = 0.0,
    ) -> list[list[str]]:
        """`rank` for several queries `(Q, D)` at once."""
        found = self.search_batch(queries, max(len(self), 1), expand, rerank=rerank, regions=regions, alpha=alpha)
        return [[name for name, _ in hits] for hits in found]

    def recall(self, queries: ArrayLike, k: int = 10) -> float:
        """How much of the exact result the searcher finds: recall@k, the mean share of the `k` best that it returns.

        Of rows with equal cosines any counts. 1.0 for "numpy" and "faiss-flat".

        Args:
            queries: `(Q, D)`, at least one; they should be like those that will be searched for.
            k: see `search`.

        Raises:
            ValueError: without queries, or for ones that do not fit.
        """
        found = self.nearest_batch(queries, k)[1]
        if found.size == 0:
            raise ValueError(f"Recall is a mean over queries and hits, but there are {len(found)} queries and {len(self)} names.")
        best = self._exactly(unit_vectors(queries, self.dimensions), int(k))[1]
        shared = sum((Counter(own.tolist()) & Counter(all_.tolist())).total() for own, all_ in zip(found, best))
        return shared / best.size

    @property
    def searcher_config(self) -> dict[str, Any]:
        """The searcher's name and parameters, as `use_searcher` and `searcher=` take them: `{"name": str, "parameters": dict}`."""
        return {"name": self.searcher.name, "parameters": dict(self.searcher.parameters)}

    @renamed(engine="searcher")
    def use_searcher(self, searcher: str | Mapping[str, Any], **parameters: int) -> None:
        """Searches with another searcher from now on, and builds its structure.

        Cosines are exact with all of them, and none needs the index to be rebuilt when rows are added or removed.

        Args:
            searcher: "numpy", exact; with FAISS (`pip install "rw_keras[faiss]"`) "faiss-flat", exact, "faiss-hnsw" or
                "faiss-ivfpq", which do not find everything (see `recall`); or what `searcher_config` gave.
            **parameters: FAISS's own; see `rw_keras.retrieval.searchers.FaissSearcher`.

        Raises:
            ImportError: for a FAISS searcher where FAISS is not installed.
            ValueError: for a searcher or a parameter that there is not, or too few rows to learn from.
        """
        chosen = make_searcher(searcher, **parameters)
        chosen.build(Rows.of(self.descriptors))
        self.searcher = chosen

    def save_searcher(self, path: str | os.PathLike[str]) -> bool:
        """Writes the searcher's structure to the file `path`; returns whether there is one. It fits the index as it is now."""
        if self.searcher.built:
            self.searcher.save(path, Rows.of(self.descriptors), np.arange(len(self)))
        return self.searcher.built

    def load_searcher(self, path: str | os.PathLike[str]) -> None:
        """Reads what `save_searcher` wrote, when the same searcher is chosen and the same rows are in the index.

        Raises:
            ValueError: when the file is of another searcher, of other rows, or cannot be read.
        """
        self.searcher.load(path, Rows.of(self.descriptors), np.arange(len(self)))

    def near_duplicates(
        self, threshold: float = 0.95, *, groups: bool = False, limit: int | None = None
    ) -> Iterator[tuple[str, str, float]] | list[list[str]]:
        """Photos that are almost the same. All rows are multiplied with all, in blocks, whatever the searcher.

        Args:
            threshold: the lowest cosine, above 0 and up to 1. Rounding takes equal vectors to 1 - 1e-7 or so, and 1 finds them.
            groups: whether to return groups. Default: pairs.
            limit: return this many pairs, the best; this bounds the memory, which is some 24 bytes a pair otherwise.

        Returns:
            An iterator over (name, name, cosine), highest first, each pair once, the name that comes first in the index first. Or
            lists of names that pairs join, directly or through others: the largest first, each in the order of the index.

        Raises:
            ValueError: for another threshold, a limit below 1, or a limit on groups.
        """
        if not is_number(threshold) or not 0 < threshold <= 1:
            raise ValueError(f"`threshold` is a cosine above 0 and up to 1, but got {threshold!r}.")
        if limit is not None:
            check_count("limit", limit)
            if groups:
                raise ValueError(f"`limit` is for pairs, and groups are made of all; leave `limit`, which is {limit}, out.")
        lowest = min(float(threshold), duplicates.EQUAL)
        if groups:
            return [self.named(group.tolist()) for group in self._alike_groups(lowest)]
        return self._named_pairs(*self._alike_pairs(lowest, limit))

    def _alike_groups(self, lowest):
        """See `rw_keras.retrieval.duplicates.groups`."""
        return duplicates.groups(self._rows(), lowest)

    def _alike_pairs(self, lowest, limit):
        """See `rw_keras.retrieval.duplicates.pairs`."""
        return duplicates.pairs(self._rows(), lowest, limit)

    def _named_pairs(self, one, other, scores):
        for start in range(0, len(scores), _NAMED):
            own = [column[start : start + _NAMED].tolist() for column in (one, other, scores)]
            yield from zip(self.named(own[0]), self.named(own[1]), own[2])

    # Names of earlier versions.
    engine_config = RenamedAttribute("searcher_config")
    use_engine = RenamedAttribute("use_searcher")
    save_engine = RenamedAttribute("save_searcher")
    load_engine = RenamedAttribute("load_searcher")


def _regions_of_one(query, rerank, regions):
    """The region vectors of one query, as those of several are given."""
    regions = getattr(query, "regions", None) if regions is None and rerank is not None else regions
    return None if regions is None else [regions]
