"""From region vectors to average precisions: whitening, descriptors, rankings, each made once and kept in memory."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np

from rw_keras import layers
from rw_keras.datasets.folder import PhotoSet
from rw_keras.description.learning import learn_whitening
from rw_keras.evaluation.region_vectors import RegionVectors
from rw_keras.model.build import head_stages, through
from rw_keras.retrieval import Index, Rerank, average_precisions
from rw_keras.retrieval.regions import Regions, encode


@dataclasses.dataclass(frozen=True)
class Setting:
    """How descriptors are made.

    Attributes:
        network: the name of a network in the experiment.
        method: the key of a method in its `RegionVectors`.
        components: dimensions that the whitening keeps; `None`: all.
        shrinkage: of the whitening; `None`: no whitening.
        whiten_on: "regions", or "global": the whitening comes after the sum over regions, and is learned there.
        photos: how many photos the whitening is learned from, evenly spread over the set; `None`: all.
        scales: of the photos whose descriptors are added, as `rw_keras.multi_scale` does; the whitening is learned at 1.
    """

    network: str
    method: str
    components: int | None = None
    shrinkage: float | None = 0.0
    whiten_on: str = "regions"
    photos: int | None = None
    scales: tuple[float, ...] = (1.0,)


class Experiment:
    """The sets, their region vectors, and what was measured on them.

    Args:
        sets: name -> set that is searched.
        learned_on: name of a set -> photos that its whitening is learned on.
        distractors: photos that are added to either set as "oxford105k" and "paris106k".
        vectors: network -> its `RegionVectors`; (network, scale) -> those of photos that are resized to it.
    """

    def __init__(
        self,
        sets: Mapping[str, PhotoSet],
        learned_on: Mapping[str, Sequence[pathlib.Path]],
        vectors: Mapping[str | tuple[str, float], RegionVectors],
        distractors: Sequence[pathlib.Path] = (),
    ) -> None:
        self.sets, self.vectors = dict(sets), dict(vectors)
        self._learned_on = {name: [(path, None) for path in paths] for name, paths in learned_on.items()}
        self._distractors = [(path, None) for path in distractors]
        self.truth = {
            name: {query: (asked.positives & found.photos.keys(), asked.junk) for query, asked in found.queries.items()}
            for name, found in self.sets.items()
        }
        self._whitening = functools.cache(self._learn)
        self._described = functools.cache(self._describe)
        self._regions = functools.lru_cache(maxsize=1)(self._compare)  # large, and asked for several times in a row
        self._scores: dict = {}

    def compute(self, network: str, methods: Sequence[str], with_distractors: Sequence[str] = (), scale: float = 1.0) -> None:
        """Makes the region vectors of these methods, with one pass of the network over every photo."""
        vectors = self._vectors_at(network, scale)
        words = network if scale == 1 else f"{network} at {scale:.2g}"
        for name, found in self.sets.items():
            vectors.compute(self._photos(name), methods, f"{words}, {name}")
            vectors.compute(_queries(found), methods, f"{words}, {name}'s queries")
            if scale == 1:
                vectors.compute(self._learned_on[name], methods, f"{words}, whitening")
        if self._distractors and with_distractors:
            vectors.compute(self._distractors, with_distractors, f"{words}, distractors")

    @property
    def has_distractors(self) -> bool:
        """Whether there are any."""
        return bool(self._distractors)

    def whitening_photos(self, name: str) -> int:
        """How many photos the whitening is learned on where the set `name` is searched."""
        return len(self._learned_on[name])

    def descriptors(self, setting: Setting, name: str, distractors: bool = False) -> tuple[Index, np.ndarray]:
        """The index of a set, and its queries `(Q, D)` in the order of the set's own."""
        index, queries = self._described(setting, name)
        if not distractors:
            return index, queries
        more = self._vectors(setting, name, self._distractors)
        names = [f"distractor/{number}" for number in range(len(more))]
        return Index([*index.names, *names], np.concatenate([np.asarray(index.descriptors), more])), queries

    def scores(
        self,
        setting: Setting,
        name: str,
        qe: int = 1,
        *,
        rerank: int | Rerank | None = None,
        distractors: bool = False,
        rank: Callable[[Index, np.ndarray], list[list[str]]] | None = None,
        tag: str | None = None,
    ) -> dict[str, float]:
        """Every query's average precision.

        Args:
            setting: how descriptors are made.
            name: the set.
            qe: query expansion over so many vectors, the query among them.
            rerank: how many of the first photos are put in the order of their regions, of all scales, before that; `None`: none.
            distractors: whether they are in the index.
            rank: another way to rank: the index and queries `(Q, D)` to a ranking of each.
            tag: the name by which what `rank` found is kept.

        Raises:
            ValueError: for `rerank` of vectors that are whitened after their sum.
        """
        key = (setting, name, qe, rerank, distractors, tag)
        if key not in self._scores or (rank and tag is None):
            index, queries = self.descriptors(setting, name, distractors)
            compared = {}
            if rerank is not None:
                regions, asked = self._regions(setting, name, distractors)
                index, compared = Index(index.names, index.descriptors, regions=regions), {"rerank": rerank, "regions": asked}
            rankings = rank(index, queries) if rank else index.rank_batch(queries, qe if qe > 1 else None, **compared)
            self._scores[key] = average_precisions(dict(zip(self.sets[name].queries, rankings)), self.truth[name])
        return self._scores[key]

    def _photos(self, name):
        return [(path, None) for path in self.sets[name].photos.values()]

    def _describe(self, setting, name):
        index = Index(list(self.sets[name].photos), self._vectors(setting, name, self._photos(name)))
        return index, self._vectors(setting, name, _queries(self.sets[name]))

    def _compare(self, setting, name, distractors):
        """The region vectors of a set's photos, in 8 bits as an index keeps them, and those of each query."""
        photos = self._photos(name) + (self._distractors if distractors else [])
        kept = Regions.of([], dimensions=setting.components or self.vectors[setting.network].channels)
        for block in self._whitened_regions(setting, name, photos):
            kept.append(encode(block, kept.spec))
        queries = [query for block in self._whitened_regions(setting, name, _queries(self.sets[name])) for query in block]
        return kept, queries

    def _whitened_regions(self, setting, name, photos):
        """The vectors whose sum is a photo's descriptor, those of all scales, without zeros: 64 photos at a time."""
        if setting.whiten_on != "regions":
            raise ValueError(f'whiten_on="{setting.whiten_on}" whitens no region vectors to re-rank by; pass "regions".')
        stages = self._stages(setting, name)
        before = stages[: next(place for place, stage in enumerate(stages) if isinstance(stage, layers.RegionSum))]
        for blocks in zip(*(self._vectors_at(setting.network, scale).blocks(setting.method, photos) for scale in setting.scales)):
            vectors = np.concatenate([keras.ops.convert_to_numpy(through(before, block)) for block in blocks], axis=1)
            yield [own[own.any(axis=1)] for own in vectors]

    def _stages(self, setting, name):
        """The layers from region vectors of unit length to a descriptor."""
        whiten = self._whitening_layer(setting.network, setting.components, setting.shrinkage or 0.0)
        if setting.shrinkage is not None:
            whiten.assign(*self._whitening(setting.network, setting.method, setting.whiten_on, setting.photos, name))
        return head_stages(whiten, setting.whiten_on)[1:]  # region vectors have been through the first

    def _vectors(self, setting, name, photos):
        """Descriptors of photos, as `build_descriptor`'s model makes them of the same region vectors."""
        stages = self._stages(setting, name)
        total = 0
        for scale in setting.scales:
            blocks = self._vectors_at(setting.network, scale).blocks(setting.method, photos)
            total = total + np.concatenate([keras.ops.convert_to_numpy(through(stages, block)) for block in blocks])
        return keras.ops.convert_to_numpy(layers.L2Norm()(total)) if len(setting.scales) > 1 else total

    def _whitening_layer(self, network, components=None, shrinkage=0.0):
        layer = layers.PCAWhiten(components, shrinkage)
        layer.build((None, self.vectors[network].channels))
        return layer

    def _vectors_at(self, network, scale):
        return self.vectors[network if scale == 1 else (network, scale)]

    def _learn(self, network, method, whiten_on, count, name):
        """What `PCAWhiten.assign` takes, learned on the photos that go with the set `name`."""
        photos = self._learned_on[name]
        chosen = np.ones(len(photos), bool)
        if count is not None and count < len(photos):
            chosen[:] = False
            chosen[np.linspace(0, len(photos) - 1, count).round().astype(int)] = True
        layer = self._whitening_layer(network)
        stages = head_stages(layer, whiten_on)[1:]
        before = stages[: stages.index(layer)]

        def batches():
            start = 0
            for block in self.vectors[network].blocks(method, photos):
                part = block[chosen[start : start + len(block)]]
                start += len(block)
                if len(part):
                    yield through(before, part)

        return learn_whitening(layer, batches())


def _queries(photo_set):
    return [(photo_set.query_photos[query], asked.box) for query, asked in photo_set.queries.items()]
