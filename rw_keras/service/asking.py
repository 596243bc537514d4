"""From what a client asks to what it is answered: searches, pages of them, and descriptors."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rw_keras.files import printable
from rw_keras.model.photo_regions import PhotoRegions
from rw_keras.model.recipe import max_side_of, smallest_side
from rw_keras.photos.reading import Box, ImageError
from rw_keras.retrieval.orientations import ORIENTATIONS, orientations_of
from rw_keras.retrieval.rerank import Rerank
from rw_keras.retrieval.vectors import check_expansion
from rw_keras.service import answers, finding, rankings
from rw_keras.service.bodies import from_base64
from rw_keras.service.engine import Described, Engine, Took, Upload
from rw_keras.service.problems import ProblemError, later
from rw_keras.service.rankings import Ranking, Rankings
from rw_keras.service.schemas import EmbedRequest, SearchRequest
from rw_keras.service.served import ServedIndex, State
from rw_keras.service.settings import Settings

# What goes with a cursor.
_OF_A_PAGE = {"cursor", "index", "k", "explain"}


@dataclasses.dataclass(frozen=True)
class _Source:
    """What a part of a query comes from: one of these."""

    photo: Upload | None = None
    name: str | None = None
    vector: Sequence[float] | None = None


class Asking:
    """Answers searches of the indices that are served.

    Args:
        indexes: name -> index; the first is the default.
        engine: what computes.
        kept: where rankings are kept.
        settings: the limits.
    """

    def __init__(self, indexes: Mapping[str, ServedIndex], engine: Engine, kept: Rankings, settings: Settings) -> None:
        self._indexes, self._engine, self._kept, self._settings = indexes, engine, kept, settings

    async def search(self, asked: SearchRequest, files: Sequence[Upload]) -> dict[str, Any]:
        """The answer to a search: see `rw_keras.service.schemas.SearchAnswer`.

        Raises:
            ProblemError: for what cannot be answered.
        """
        if asked.k > self._settings.max_k:
            raise _wrong("k", f"is at most {self._settings.max_k} here, but got {asked.k}; page with the cursor")
        async with self._engine.admitted() as took:
            if asked.cursor is not None:
                return await self._next_page(asked, files, took)
            served = answers.chosen(self._indexes, asked.index)
            state = served.state
            options, is_explicit = self._options(state, asked)
            positives, negatives = await self._engine.in_pool(self._sources, asked, files)
            if asked.orientations > 1:
                _check_turned(asked, positives, negatives)
                query, found = await self._turned(took, served, state, positives[0], asked.box, options)
                sent = [query.vector] if positives[0].photo is not None else []
            else:
                if asked.explain:
                    _check_explains(served, positives)
                query, sent = await self._combined(took, served, state, asked, positives, negatives, options.rerank is not None)
                if query.regions is None and options.rerank is not None:
                    options = _not_reranked(options, is_explicit)
                found = await self._engine.search(took, state, options, query)
            return await self._first_page(served, state, asked, options, query, found, sent, positives, took)

    async def embed(self, asked: EmbedRequest, files: Sequence[Upload]) -> dict[str, Any]:
        """The descriptor of a photo: see `rw_keras.service.schemas.EmbedAnswer`."""
        sent = [] if asked.image is None else [await self._engine.in_pool(from_base64, asked.image, "image")]
        photos = [*files, *sent]
        if len(photos) != 1:
            raise _wrong("image", f"is one photo, but got {len(photos)}; send one as the part `file` or as `image`")
        served = answers.chosen(self._indexes, asked.index)
        async with self._engine.admitted() as took:
            described = await self.described(took, served, photos[0], asked.box)
        return {"descriptor": described.descriptor.tolist(), "recipe": served.index.recipe}

    async def described(
        self, took: Took, served: ServedIndex, photo: Upload, box: Box | None = None, regions: bool = False
    ) -> Described:
        """A photo described as the index's own were; errors as `Engine.decode` and `Engine.describe`."""
        pixels = await self._decoded(took, served, photo, box)
        return await self._engine.describe(took, served.describer, pixels, regions)

    # What is asked.

    def _options(self, state: State, asked: SearchRequest) -> tuple[finding.Options, bool]:
        """How to search, and whether the re-ranking was asked for, not the index's default."""
        index, usual = state.index, state.index.search_defaults
        expand, alpha = asked.expand, asked.alpha
        if expand is None and usual.get("expand"):
            expand, alpha = usual["expand"], usual.get("alpha") if alpha is None else alpha
        rerank = index.default_rerank
        if asked.rerank is not None:
            rerank = Rerank(asked.rerank, usual.get("smooth")) if asked.rerank else None
        if asked.smooth is not None:
            if rerank is None:
                raise _wrong("smooth", "averages the scores of re-ranked photos; give `rerank`, or leave it out")
            rerank = Rerank(rerank.count, asked.smooth or None)
        within = asked.within if asked.within is None or isinstance(asked.within, str) else tuple(asked.within)
        try:
            if rerank is not None:
                index.check_rerank(rerank)
            check_expansion(expand if expand != 1 else None, float(alpha or 0))
            if within is not None and not isinstance(within, str):
                finding.check_conditions(state, within)
        except ValueError as error:
            raise ProblemError(422, f"{error}") from None
        count = max(1, min(self._settings.ranking, state.photos))
        return finding.Options(count, expand, float(alpha or 0), rerank, within or None), asked.rerank is not None

    def _sources(self, asked: SearchRequest, files: Sequence[Upload]) -> tuple[list[_Source], list[_Source]]:
        """What is asked for, and what to move away from."""
        images = [*([] if asked.image is None else [asked.image]), *(asked.images or [])]
        names = [*([] if asked.name is None else [asked.name]), *(asked.names or [])]
        vectors = [*([] if asked.vector is None else [asked.vector]), *(asked.vectors or [])]
        away = asked.negatives
        of_negatives = [] if away is None else _sources(away.images or [], away.names or [], away.vectors or [], "negatives.images")
        positives = [*(_Source(photo=file) for file in files), *_sources(images, names, vectors, "images")]
        if not positives:
            raise _wrong("image", "is what to search for; send a photo as the part `file` or as `image`, a `name`, or a `vector`")
        if len(positives) + len(of_negatives) > self._settings.images:
            raise ProblemError(422, f"A query is of at most {self._settings.images} photos, names and vectors; leave some out.")
        if asked.box is not None and (len(positives) > 1 or positives[0].vector is not None):
            raise _wrong("box", "goes with exactly one photo or name; leave it out")
        return positives, of_negatives

    async def _combined(self, took, served, state, asked, positives, negatives, reranks):
        """The query that all parts make together, and the descriptors of the photos that were sent."""
        compares = reranks or asked.explain
        parts = [self._query(took, served, state, source, asked.box, compares, asked.explain) for source in positives]
        parts += [self._query(took, served, state, source, None, False, False) for source in negatives]
        described = await _all(parts)
        queries, away = described[: len(positives)], described[len(positives) :]
        sent = [one.vector for one, source in zip(queries, positives) if source.photo is not None]
        return finding.combined(queries, away, state.index.dimensions), sent

    async def _query(self, took, served, state, source, box, compares, explains) -> finding.Query:
        """A part of a query described; with its region vectors, where they are compared and it has some."""
        index = state.index
        if source.vector is not None:
            vector = np.asarray(source.vector, "float64")
            if vector.shape != (index.dimensions,):
                raise _wrong("vector", f"has {len(vector)} numbers, and the index {index.dimensions} dimensions")
            return finding.Query(vector)
        if source.name is not None:
            found = await self._engine.in_pool(
                _held, index, source.name, box is None and not (explains and index.regions is None), compares
            )
            if found is None:
                raise ProblemError(404, f"There is no photo {source.name[:200]!r} in the index.")
            if isinstance(found, finding.Query):
                return found
            photo = await self.file_of(served, source.name)
        else:
            photo = source.photo
        wanted = compares and (index.regions is not None or explains)
        described = await self.described(took, served, photo, box, wanted)
        return finding.Query(described.descriptor, described.regions)

    async def _turned(self, took, served, state, source, box, options) -> tuple[finding.Query, finding.Found]:
        """A photo as it is, and the ranking of all its orientations."""
        photo = source.photo if source.name is None else await self.file_of(served, source.name)
        pixels = await self._decoded(took, served, photo, box)
        turned = orientations_of(pixels, max(ORIENTATIONS))
        compares = options.rerank is not None
        described = await _all([self._engine.describe(took, served.describer, one, compares) for one in turned])
        queries = [finding.Query(one.descriptor, one.regions) for one in described]
        plain = dataclasses.replace(options, expand=None, alpha=0.0)
        found = await _all([self._engine.search(took, state, plain, query) for query in queries])
        if (options.expand or 1) == 1:
            return queries[0], finding.merged(found, options)
        best = finding.best_orientation(found, options.expand)
        return queries[0], await self._engine.search(took, state, options, queries[best])

    async def _decoded(self, took, served, photo, box):
        """The pixels of a photo as the index's own were described; errors as `Engine.decode`."""
        max_side, min_side = max_side_of(served.index.recipe), smallest_side(served.describer)
        return await self._engine.decode(took, photo, box, max_side, min_side)

    async def file_of(self, served: ServedIndex, name: str) -> Upload:
        """The bytes of a photo of an index.

        Raises:
            ProblemError: 404 when its file is not there, and 503 when it cannot be read now.
        """
        try:
            content = await self._engine.in_pool(lambda: served.photos.path(name).read_bytes())
        except FileNotFoundError:
            raise ProblemError(404, f"The file of the photo {name[:200]!r} is not there now.") from None
        except OSError:
            raise later(503, f"The file of the photo {name[:200]!r} cannot be read now; ask again in a moment.", 5) from None
        return Upload(content, printable(name))

    # What is answered.

    async def _first_page(self, served, state, asked, options, query, found, sent, positives, took):
        names = [source.name for source in positives if source.name is not None]

        def rank():
            left_out = np.zeros(len(found.positions), bool)
            if asked.leave_out_query:
                left_out |= np.isin(found.positions, [place for place in state.index.positions(names) if place is not None])
                for vector in sent:
                    left_out |= finding.cosines_of(state, found.positions, vector) >= finding.SAME
            kept = finding.kept(found, asked.min_score, left_out)
            is_score = options.rerank is not None and (options.expand or 1) == 1
            names_of = state.index.named(kept.positions.tolist())
            measure = "score" if is_score else "cosine"
            generation = state.about.get("generation")
            regions = query.regions if asked.explain else None
            ranking = Ranking(served.name, generation, names_of, kept.cosines, kept.scores, measure, regions)
            has_more = len(names_of) > asked.k
            return ranking, self._kept.keep(ranking.to_bytes(), rankings.SEARCH) if has_more else None

        ranking, token = await self._engine.in_pool(rank)
        return await self._page(served, state, ranking, token, 0, asked, took)

    async def _next_page(self, asked, files, took):
        others = sorted(asked.model_fields_set - _OF_A_PAGE)
        if others or files:
            raise _wrong("cursor", f"goes on with a query and takes no {others[0] if others else 'photo'}; leave that out")
        token, start, content = await self._engine.in_pool(self._kept.at, asked.cursor, rankings.SEARCH)
        ranking = await self._engine.in_pool(Ranking.from_bytes, content)
        if ranking.index not in self._indexes or asked.index not in (None, ranking.index):
            raise _wrong("cursor", f"is of the index {ranking.index!r}")
        served = self._indexes[ranking.index]
        return await self._page(served, served.state, ranking, token, start, asked, took)

    async def _page(self, served, state, ranking, token, start, asked, took):
        """The hits of a ranking from `start` on, without those that have left the index meanwhile."""
        if asked.explain and ranking.regions is None and ranking.names:
            raise _wrong("explain", "was not asked for with the first page; ask the query again with it")

        def collect():
            hits, place = [], start
            while place < len(ranking.names) and len(hits) < asked.k:
                names = ranking.names[place : place + asked.k - len(hits)]
                found = state.index.positions(names)
                there = [(place + number, name) for number, name in enumerate(names) if found[number] is not None]
                known = [position for position in found if position is not None]
                explains = asked.explain and state.index.regions is not None
                regions = state.index.regions.at(known) if explains else [None] * len(known)
                for (number, name), values, own in zip(there, answers.metadata(state, known), regions):
                    cosine, score = float(ranking.cosines[number]), float(ranking.scores[number])
                    hit = {"rank": number + 1, "cosine": cosine, "score": None if score != score else score}
                    hit |= {**answers.photo(served, name), "metadata": values}
                    if own is not None:
                        hit["regions"] = finding.agreeing(ranking.regions, own)
                    hits.append(hit)
                place += len(names)
            return hits, place

        hits, place = await self._engine.in_pool(collect)
        if asked.explain and state.index.regions is None:
            await self._explain(took, served, ranking.regions, hits)
        return {
            "index": served.name,
            "generation": ranking.generation,
            "hits": hits,
            "cursor": None if token is None else rankings.cursor(token, place, len(ranking.names)),
            "total": len(ranking.names),
            "measure": ranking.measure,
            "took": {stage: round(seconds, 6) for stage, seconds in took.until_now().items()},
        }

    async def _explain(self, took: Took, served: ServedIndex, regions: PhotoRegions, hits: list[dict[str, Any]]) -> None:
        """Gives the first hits, whose files are there, their regions: of an index that keeps none."""
        for hit in hits[: self._settings.explained]:
            try:
                photo = await self.file_of(served, hit["name"])
                described = await self.described(took, served, photo, regions=True)
            except (ProblemError, ImageError):
                continue  # this photo has changed, or gone; the hit stands
            hit["regions"] = finding.agreeing(regions, described.regions)


def _sources(images, names, vectors, field):
    photos = [_Source(photo=from_base64(image, f"{field}.{number}")) for number, image in enumerate(images)]
    return [*photos, *(_Source(name=name) for name in names), *(_Source(vector=vector) for vector in vectors)]


def _held(index, name, whole, compares):
    """A photo of an index as a query, with its region vectors where they are compared; `True` where it is not `whole` that is asked
    for, and `None` where there is none of this name."""
    (position,) = index.positions([name])
    if position is None or not whole:
        return None if position is None else True
    own = index.regions[position] if compares and index.regions is not None else None
    return finding.Query(np.asarray(index.descriptors[position], "float32"), own)


def _check_explains(served, positives):
    if any(source.vector is not None for source in positives):
        raise _wrong("explain", "compares regions, and a vector has none; leave it out, or ask with a photo or a name")
    if served.describer.made.whiten_on == "global" or served.index.recipe is None:
        raise _wrong("explain", "compares whitened regions, and the index's model whitens their sum; leave it out")


def _not_reranked(options, is_explicit):
    """The options of a query without region vectors; an error where the re-ranking was asked for, not the index's default."""
    if is_explicit:
        raise _wrong("rerank", "compares regions, and a vector has none; leave it out, or ask with a photo or a name")
    return dataclasses.replace(options, rerank=None)


def _check_turned(asked, positives, negatives):
    if len(positives) > 1 or negatives or positives[0].vector is not None:
        raise _wrong("orientations", "turns exactly one photo, sent or named; leave it out, or ask with that alone")
    if asked.explain:
        raise _wrong("explain", "draws regions of the photo as it is; leave it out, or `orientations`")


def _wrong(field: str, words: str) -> ProblemError:
    return ProblemError(422, f"`{field}` {words}.", faults=[(field, words)])


async def _all(parts):
    """What coroutines give; after an error of one the others end, too."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
