"""Revisited Oxford and Paris: against their own evaluation program."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from published_rules import published_average_precision

from rw_keras.retrieval import (
    revisited,
    revisited_ground_truth,
)


def published_revisited(ranking, easy, hard, junk, level, cuts=(1, 5, 10)):
    """The revisited sets' evaluation, step by step over places in the ranking: AP and [precision at each cut], NaN if empty."""
    if level == "easy":
        right, ignored = list(easy), [*junk, *hard]
    elif level == "medium":
        right, ignored = [*easy, *hard], list(junk)
    else:
        right, ignored = list(hard), [*junk, *easy]
    if not right:
        return math.nan, [math.nan] * len(cuts)
    places = np.flatnonzero(np.isin(ranking, right))
    ignored_places = np.flatnonzero(np.isin(ranking, ignored))
    moved = []
    for place in places:
        moved.append(place - sum(1 for other in ignored_places if other < place))
    moved = np.array(moved)
    area = published_average_precision(moved, len(right))
    ranks = moved + 1
    precisions = []
    for cut in cuts:
        cut = min(max(ranks), cut)
        precisions.append((ranks <= cut).sum() / cut)
    return area, precisions


def compare_with_published(rankings, labels, level):
    """Asserts that `revisited` is the published rule, query by query and in the mean."""
    measured = revisited(rankings, labels, level)
    published = {query: published_revisited(rankings[query], *labels[query], level) for query in labels}
    asked = [query for query in labels if not math.isnan(published[query][0])]
    assert list(measured.average_precisions) == asked
    assert measured.average_precisions == pytest.approx({query: published[query][0] for query in asked}, abs=1e-12)
    assert measured.mean_average_precision == pytest.approx(np.nanmean([area for area, _ in published.values()]), abs=1e-12)
    assert list(measured.precisions) == [1, 5, 10]
    for column, cut in enumerate((1, 5, 10)):
        expected = {query: published[query][1][column] for query in asked}
        assert measured.precisions[cut] == pytest.approx(expected, abs=1e-12)
        assert measured.mean_precision[cut] == pytest.approx(np.mean(list(expected.values())), abs=1e-12)
    assert measured.level == level
    return measured


LEVELS = ("easy", "medium", "hard")


@st.composite
def labelled_rankings(draw):
    """Rankings of up to 40 names for up to five queries; every query has an easy or a hard photo, one query has both."""
    names = [f"photo_{number}" for number in range(draw(st.integers(2, 40)))]
    rankings, labels = {}, {}
    for query in range(draw(st.integers(1, 5))):
        kinds = draw(st.lists(st.sampled_from("ehj..."), min_size=len(names), max_size=len(names)))
        first, second = draw(st.permutations(range(len(names))))[:2]
        kinds[first] = draw(st.sampled_from("eh")) if query else "e"
        kinds[second] = kinds[second] if query else "h"
        labels[f"query_{query}"] = tuple([name for name, one in zip(names, kinds) if one == kind] for kind in "ehj")
        rankings[f"query_{query}"] = draw(st.permutations(names))
    return rankings, labels


class TestRevisited:
    @pytest.mark.slow
    @given(labelled_rankings(), st.sampled_from(LEVELS))
    def test_is_the_published_rule(self, case, level):
        compare_with_published(*case, level)

    @pytest.mark.photos
    @pytest.mark.parametrize("level", LEVELS)
    @pytest.mark.parametrize(("name", "without"), [("roxford5k", {"easy": 2}), ("rparis6k", {})])
    def test_is_the_published_rule_on_the_published_labels(self, published_labels, name, without, level):
        photos, labels = published_labels(name)
        generator = np.random.default_rng(7)
        rankings = {}
        for query, (easy, hard, junk) in labels.items():
            # The right ones mostly ahead, as with a real descriptor, or the mean would be of numbers near 0.
            score = generator.random(len(photos))
            score[np.isin(photos, easy)] += 0.4
            score[np.isin(photos, [*hard, *junk])] += 0.2
            rankings[query] = [photos[place] for place in np.argsort(-score)]
        measured = compare_with_published(rankings, labels, level)
        assert len(measured.average_precisions) == 70 - without.get(level, 0)
        assert 0.01 < measured.mean_average_precision < 0.9
        assert len(set(measured.landmarks.values())) == 11

    @pytest.mark.photos
    @pytest.mark.parametrize("name", ["roxford5k", "rparis6k"])
    def test_the_published_labels_perfectly_ranked(self, published_labels, name):
        photos, labels = published_labels(name)
        orders = {"easy": (0, 2, 1), "medium": (0, 1, 2), "hard": (1, 2, 0)}
        for level, order in orders.items():
            rankings = {}
            for query, lists in labels.items():
                known = [photo for kind in order for photo in lists[kind]]
                rankings[query] = known + sorted(set(photos) - set(known))
            measured = revisited(rankings, labels, level)
            assert measured.mean_average_precision == pytest.approx(1)
            assert measured.mean_precision == {1: 1, 5: 1, 10: 1}

    def test_by_hand(self):
        labels = {"q": (["e"], ["h"], ["j"]), "only easy": (["e"], [], [])}
        rankings = {"q": list("jxhe"), "only easy": list("xejh")}
        easy, medium, hard = (revisited(rankings, labels, level) for level in LEVELS)
        assert easy.average_precisions == {"q": (0 + 1 / 2) / 2, "only easy": (0 + 1 / 2) / 2}
        assert medium.average_precisions["q"] == pytest.approx(0.5 * (0 + 1 / 2) / 2 + 0.5 * (1 / 2 + 2 / 3) / 2)
        assert hard.average_precisions == {"q": (0 + 1 / 2) / 2}
        late = {"q": 2 / 3, "only easy": 1 / 2}
        assert medium.precisions == {1: {"q": 0, "only easy": 0}, 5: late, 10: late}
        assert hard.mean_precision == {1: 0, 5: 1 / 2, 10: 1 / 2}
        assert easy.landmarks == {"q": "q", "only easy": "q"}
        assert hard.landmarks == {"q": "q"}

    def test_medium_is_the_default_and_k_is_free(self):
        labels, rankings = {"q": (["e"], ["h"], [])}, {"q": list("exh")}
        measured = revisited(rankings, labels, k=[2])
        assert measured.level == "medium"
        assert measured.precisions == {2: {"q": 1 / 2}}

    def test_takes_iterators(self):
        labels = {"q": (["e"], ["h"], ["j"])}
        assert revisited({"q": iter("exh")}, labels) == revisited({"q": list("exh")}, labels)

    def test_refuses_a_query_in_the_index(self):
        labels = {"q1": (["e"], [], []), "q2": (["e"], [], [])}
        with pytest.raises(ValueError, match="ranking of 'q2' holds the query 'q1'; leave the query photos out"):
            revisited({"q1": ["e"], "q2": ["e", "q1"]}, labels)

    @pytest.mark.parametrize("level", ["Easy", "E", 1])
    def test_refuses_another_level(self, level):
        with pytest.raises(ValueError, match=rf'level is {level!r}; pass "easy", "medium" or "hard"'):
            revisited({"q": ["e"]}, {"q": (["e"], [], [])}, level)

    @pytest.mark.parametrize("labels", [(["e"], []), {"easy": ["e"], "hard": [], "junk": []}])
    def test_refuses_other_labels(self, labels):
        with pytest.raises(ValueError, match=r"labels of 'q' are not three lists; pass \(easy, hard, junk\)"):
            revisited_ground_truth({"q": labels}, "easy")

    @pytest.mark.parametrize("lists", [("ab", "b", ""), ("ab", "", "b"), ("a", "b", "b")])
    @pytest.mark.parametrize("level", LEVELS)
    def test_refuses_two_labels_at_every_level(self, lists, level):
        with pytest.raises(ValueError, match="'b' has two labels for the query 'q'"):
            revisited_ground_truth({"q": tuple(map(list, lists))}, level)

    def test_refuses_a_level_without_positives(self):
        with pytest.raises(ValueError, match="None of the 1 queries has a positive at the level 'hard'"):
            revisited({"q": ["e"]}, {"q": (["e"], [], [])}, "hard")

    def test_every_query_needs_a_ranking_even_if_it_is_left_out(self):
        labels = {"q1": (["e"], [], []), "q2": ([], ["h"], [])}
        with pytest.raises(ValueError, match="1 queries have no ranking, 'q2'"):
            revisited({"q1": ["e"]}, labels, "easy")
        with pytest.raises(ValueError, match="1 queries have no ground truth, 'q3'"):
            revisited({"q1": ["e"], "q2": ["e"], "q3": ["e"]}, labels, "easy")

    def test_refuses_another_k(self):
        with pytest.raises(ValueError, match="k is 0"):
            revisited({"q": ["e"]}, {"q": (["e"], [], [])}, k=[1, 0])
