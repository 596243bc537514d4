import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rw_keras.retrieval import average_precision, mean_average_precision


def compute_ap(pos, amb, ranked_list):
    """The evaluation program of Oxford5k and Paris6k, line by line."""
    old_recall = 0.0
    old_precision = 1.0
    ap = 0.0

    intersect_size = 0
    i = 0
    j = 0
    while i < len(ranked_list):
        if ranked_list[i] in amb:
            i += 1
            continue
        if ranked_list[i] in pos:
            intersect_size += 1

        recall = intersect_size / float(len(pos))
        precision = intersect_size / (j + 1.0)

        ap += (recall - old_recall) * ((old_precision + precision) / 2.0)

        old_recall = recall
        old_precision = precision
        j += 1
        i += 1
    return ap


@st.composite
def rankings(draw):
    """A ranking of up to 60 names, with positives and junk in it and beside it."""
    names = [str(number) for number in range(draw(st.integers(1, 60)))]
    kinds = draw(st.lists(st.sampled_from("pj.."), min_size=len(names), max_size=len(names)))
    kinds[draw(st.integers(0, len(names) - 1))] = "p"
    ranking = draw(st.permutations(names))[: draw(st.integers(0, len(names)))]
    by_kind = {kind: {name for name, one in zip(names, kinds) if one == kind} for kind in "pj"}
    return ranking, by_kind["p"], by_kind["j"]


class TestAveragePrecision:
    @given(rankings())
    def test_is_the_evaluation_programs(self, case):
        ranking, positives, junk = case
        assert average_precision(ranking, positives, junk) == pytest.approx(compute_ap(positives, junk, ranking), abs=1e-12)

    def test_is_the_evaluation_programs_at_full_size(self):
        generator = random.Random(3)
        names = [f"photo_{number}" for number in range(5063)]
        for _ in range(20):
            generator.shuffle(names)
            positives, junk = set(names[10:4000:97]), set(names[5:3000:77])
            junk -= positives
            ranking = generator.sample(names, len(names))
            assert average_precision(ranking, positives, junk) == pytest.approx(compute_ap(positives, junk, ranking), abs=1e-12)

    @pytest.mark.parametrize(
        ("ranking", "area"),
        [
            ("ab", 1.0),
            ("abxyz", 1.0),
            ("axb", 0.5 + 0.5 * (1 / 2 + 2 / 3) / 2),
            ("xab", 0.5 * (0 + 1 / 2) / 2 + 0.5 * (1 / 2 + 2 / 3) / 2),
            ("xyab", 0.5 * (0 + 1 / 3) / 2 + 0.5 * (1 / 3 + 1 / 2) / 2),
            ("a", 0.5),
            ("xa", 0.5 * (0 + 1 / 2) / 2),
            ("xyz", 0.0),
            ("", 0.0),
        ],
    )
    def test_by_hand(self, ranking, area):
        assert average_precision(list(ranking), {"a", "b"}) == pytest.approx(area, abs=1e-15)

    def test_junk_is_as_if_it_were_not_there(self):
        with_junk = average_precision(list("jaxkjlbm".replace("j", "", 1)), {"a", "b"}, {"j", "k", "l", "m"})
        assert with_junk == average_precision(list("axb"), {"a", "b"})
        assert with_junk < 1

    def test_junk_that_is_not_in_the_ranking(self):
        assert average_precision(list("axb"), {"a", "b"}, {"j"}) == average_precision(list("axb"), {"a", "b"})

    def test_a_positive_that_is_not_in_the_ranking_is_never_found(self):
        assert average_precision(list("ab"), {"a", "b", "c", "d"}) == 0.5

    @given(st.integers(1, 20), st.integers(0, 40))
    def test_perfect_and_worst(self, positives, others):
        right = [f"right {number}" for number in range(positives)]
        wrong = [f"wrong {number}" for number in range(others)]
        assert average_precision(right + wrong, right) == pytest.approx(1)
        worst = average_precision(wrong + right, right)
        for _ in range(5):
            ranking = random.Random(positives * 41 + others).sample(right + wrong, positives + others)
            assert worst - 1e-12 <= average_precision(ranking, right) <= 1 + 1e-12

    def test_takes_any_iterables(self):
        assert average_precision(iter("axb"), iter("ab"), iter("j")) == average_precision(list("axb"), {"a", "b"}, {"j"})

    def test_refuses_no_positives(self):
        with pytest.raises(ValueError, match="at least one positive"):
            average_precision(["a"], [])

    def test_refuses_a_name_that_is_both(self):
        with pytest.raises(ValueError, match="'b' is both positive and junk"):
            average_precision(["a"], {"a", "b"}, {"b", "c"})

    @pytest.mark.parametrize("ranking", ["axa", "axbx", "ajbj"])
    def test_refuses_a_name_that_stands_twice(self, ranking):
        with pytest.raises(ValueError, match=f"'{ranking[-1]}' twice"):
            average_precision(list(ranking), {"a", "b"}, {"j"})


class TestMeanAveragePrecision:
    def test_is_the_mean(self):
        rankings = {"one": ["a", "x"], "two": ["x", "a"], "three": ["j", "x", "b", "a"]}
        truth = {"one": ({"a"}, set()), "two": ({"a"}, set()), "three": ({"a", "b"}, {"j"})}
        expected = math.fsum(average_precision(rankings[query], *truth[query]) for query in truth) / 3
        assert mean_average_precision(rankings, truth) == pytest.approx(expected)
        assert mean_average_precision(dict(reversed(rankings.items())), truth) == pytest.approx(expected)

    def test_refuses_no_queries(self):
        with pytest.raises(ValueError, match="no query"):
            mean_average_precision({}, {})

    def test_refuses_a_query_without_a_ranking(self):
        with pytest.raises(ValueError, match="2 queries have no ranking, 'two'"):
            mean_average_precision({"one": []}, {"one": ({"a"}, ()), "two": ({"a"}, ()), "three": ({"a"}, ())})

    def test_refuses_a_ranking_without_ground_truth(self):
        with pytest.raises(ValueError, match="1 queries have no ground truth, 'two'"):
            mean_average_precision({"one": [], "two": []}, {"one": ({"a"}, ())})
