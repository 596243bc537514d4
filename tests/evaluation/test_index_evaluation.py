import doctest
import math

import numpy as np
import pytest

import rw_keras
from rw_keras.evaluation import evaluate_index, index_evaluation
from rw_keras.evaluation.labels import read_labels
from rw_keras.retrieval import (
    Index,
    average_precision,
    bootstrap,
    folder_ground_truth,
    paired_difference,
    precision_at,
    recall_at,
)

NAMES = [f"{folder}/{number}" for folder, count in (("cup", 5), ("key", 2), ("lone", 1), ("pin", 4)) for number in range(count)]
NAMES = [NAMES[place] for place in np.random.default_rng(1).permutation(len(NAMES))] + ["stray", "zero/0", "zero/1"]


@pytest.fixture(scope="module", name="index")
def index_of_photos():
    """Descriptors and regions of 15 photos; the last one's are zero, and one has no region."""
    generator = np.random.default_rng(2)
    vectors = generator.normal(size=(len(NAMES), 6))
    vectors[-1] = 0
    regions = [generator.normal(size=(count, 6)) for count in generator.integers(1, 5, len(NAMES))]
    regions[3], regions[-1] = np.zeros((0, 6)), np.zeros((2, 6))
    return Index(NAMES, vectors, regions=regions)


def unit(vectors):
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def ranked(index, query, rerank=None, expand=None, alpha=0.0):
    """The other photos, best first: the search stated plainly, in float64, in an index without the query."""
    vectors = unit(np.asarray(index.descriptors, "float64"))
    asked, others = vectors[index.position(query)], [place for place in range(len(NAMES)) if NAMES[place] != query]
    order = sorted(others, key=lambda place: -np.float32(vectors[place] @ asked))

    def score(place):
        own, its = (np.asarray(index.regions[at].vectors, "float64") for at in (index.position(query), place))
        own, its = own[own.any(axis=1)], its[its.any(axis=1)]
        return np.float32(0.0 if not len(own) else -1.0 if not len(its) else (own @ its.T).max(axis=1).mean())

    if rerank:
        order = [*sorted(order[:rerank], key=lambda place: -score(place)), *order[rerank:]]
    if expand and expand > 1:
        total = asked + sum(vectors[place] * max(vectors[place] @ asked, 0) ** alpha for place in order[: expand - 1])
        if asked.any():
            asked = unit(total)
        order = sorted(others, key=lambda place: -np.float32(vectors[place] @ asked))
    return [NAMES[place] for place in order]


WAYS = [
    {},
    {"expand": 1},
    {"expand": 4},
    {"expand": 3, "alpha": 3.0},
    {"rerank": 5},
    {"rerank": 99},
    {"rerank": 5, "expand": 3},
    {"rerank": 5, "expand": 1},
]


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("held", [1 << 22, 1], ids=["one block", "a query a block"])
def test_is_the_plain_statement(index, way, held, monkeypatch):
    monkeypatch.setattr(index_evaluation, "_HELD", held)
    found = evaluate_index(index, "folders", k=(1, 3), **way, progress=False)
    assert found.photos == len(NAMES)
    assert found.searched == {"rerank": None, "smooth": None, "expand": None, "alpha": 0.0, **way}
    truth = folder_ground_truth(NAMES)
    rankings = {query: ranked(index, query, **way) for query in truth}
    expected = {
        "mAP": {query: average_precision(rankings[query], positives) for query, (positives, _) in truth.items()},
        **{f"mP@{k}": {query: precision_at(rankings[query], truth[query][0], (), k) for query in truth} for k in (1, 3)},
        **{f"recall@{k}": {query: recall_at(rankings[query], truth[query][0], (), k) for query in truth} for k in (1, 3)},
    }
    assert list(found.scores) == list(expected)
    for measure, scores in expected.items():
        assert found.scores[measure] == pytest.approx(scores, abs=1e-12), measure
    assert len(truth) == 5 + 2 + 4 + 2


def test_ways_differ(index):
    means = {str(way): evaluate_index(index, "folders", **way, progress=False).interval().mean for way in WAYS}
    assert len(set(means.values())) == len(WAYS) - 2  # `expand=1` is none


def test_int8_rows_are_asked_as_they_are_kept(index, tmp_path):
    index.save(tmp_path / "kept", dtype="int8")
    kept = Index.load(tmp_path / "kept")
    found = evaluate_index(kept, "folders", progress=False)
    plain = Index(NAMES, np.asarray(kept.descriptors, "float32"))
    assert found.scores["mAP"] == pytest.approx(evaluate_index(plain, "folders", progress=False).scores["mAP"])


def test_intervals_are_over_what_is_shown(index):
    found = evaluate_index(index, "folders", rerank=None, progress=False)
    folders = {query: query.split("/")[0] for query in found.scores["mAP"]}
    assert found.interval() == bootstrap(found.scores["mAP"], folders)
    other = evaluate_index(index, "folders", rerank=5, progress=False)
    for measure in ("mAP", "recall@5"):
        expected = paired_difference(other.scores[measure], found.scores[measure], folders)
        assert other.difference(found, measure) == expected
    alone = evaluate_index(Index(["b", "a/0", "a/1"], np.eye(3)), "folders", progress=False).interval()
    assert (alone.mean, alone.queries, alone.landmarks) == (0.25, 2, 1)
    assert math.isnan(alone.low)


def test_some_queries(index):
    labels = read_labels("folders", index)
    whole = evaluate_index(index, labels, progress=False)
    some = evaluate_index(index, labels.some(4), progress=False)
    assert len(some.scores["mAP"]) == len(some.landmarks) == 4
    assert some.scores["mAP"].items() <= whole.scores["mAP"].items()


def test_an_own_photo_among_the_positives_stays(index):
    found = evaluate_index(index, {"stray": (["stray", "zero/0"], [])}, expand=3, progress=False)
    ranking = index.rank(np.asarray(index.descriptors)[NAMES.index("stray")], 3)
    assert found.scores["mAP"] == {"stray": average_precision(ranking, {"stray", "zero/0"})}


def test_the_search_is_the_indexs_own_by_default(index):
    own = Index(NAMES, index.descriptors, regions=index.regions)
    assert evaluate_index(own, "folders", progress=False).searched["rerank"] is None
    own.search_defaults = {"rerank": 7}
    assert evaluate_index(own, "folders", progress=False).searched["rerank"] == 7
    own.regions = None
    assert evaluate_index(own, "folders", progress=False).searched["rerank"] is None


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ({"rerank": 5}, "holds no region vectors"),
        ({"expand": 0}, "`expand` is a whole number"),
        ({"alpha": 3.0}, "without `expand`"),
        ({"k": [0]}, "k is 0"),
    ],
)
def test_what_cannot_be_is_refused_first(way, words, monkeypatch):
    monkeypatch.setattr(Index, "nearest_batch", lambda *arguments, **options: pytest.fail("it searched"))
    with pytest.raises(ValueError, match=words):
        evaluate_index(Index(["a/0", "a/1"], np.eye(2)), "folders", **way)


class TestDescribed:
    """Queries that a model has to describe."""

    @pytest.fixture
    def described(self, model, photo_folder):
        return Index.from_folder(model, photo_folder, progress=False)

    @pytest.fixture
    def labels(self, photo_folder):
        (photo_folder / "labels.csv").write_text("query,positives,box\na.png,c.jpg,4 4 60 44\na.png,c.jpg,\nout/x.png,d.png,\n")
        (photo_folder / "out").mkdir()
        (photo_folder / "out" / "x.png").write_bytes((photo_folder / "b.png").read_bytes())
        return photo_folder / "labels.csv"

    def test_are_asked_as_search_asks(self, described, model, photo_folder, labels):
        found = evaluate_index(described, labels, model=model, photos=photo_folder, progress=False)
        box = described.search_photo(model, photo_folder / "a.png", (4, 4, 60, 44), len(described))
        beside = described.search_photo(model, photo_folder / "b.png", k=len(described))
        whole = described.rank(described.descriptors[described.position("a.png")])
        assert found.scores["mAP"] == {
            "a.png [4 4 60 44]": average_precision([name for name, _ in box], {"c.jpg"}, {"a.png"}),
            "a.png": average_precision(whole, {"c.jpg"}, {"a.png"}),
            "out/x.png": average_precision([name for name, _ in beside], {"d.png"}),
        }

    def test_need_the_model_that_made_the_index(self, described, labels, photo_folder, tiny_model, computed):
        with pytest.raises(ValueError, match=r"2 queries have a box or are not in the index, 'a.png \[4 4 60 44\]' first"):
            evaluate_index(described, labels, photos=photo_folder, progress=False)
        with pytest.raises(ValueError, match="made by another model"):
            evaluate_index(described, labels, photos=photo_folder, model=tiny_model(seed=1), progress=False)
        assert computed == []


def test_the_example_runs():
    assert doctest.testmod(index_evaluation).attempted == 4
    assert doctest.testmod(index_evaluation).failed == 0
    assert rw_keras.evaluation.evaluate_index is evaluate_index
