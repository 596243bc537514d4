import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from published_rules import published_average_precision

from rw_keras.datasets.oxford import read_ground_truth
from rw_keras.retrieval import (
    average_precision,
    average_precisions,
    folder_ground_truth,
    holidays_ground_truth,
    landmark_by_name,
    landmarks,
    mean_average_precision,
    precision_at,
)


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


class TestPrecisionAt:
    @pytest.mark.parametrize(
        ("ranking", "k", "precision"),
        [
            ("abxyz", 1, 1.0),
            ("abxyz", 5, 1.0),  # the last positive stands at 2
            ("axbyz", 5, 2 / 3),
            ("axbyz", 2, 1 / 2),
            ("xyabz", 1, 0.0),
            ("xyabz", 3, 1 / 3),
            ("axyz", 10, 1 / 10),  # b is never found
            ("", 5, 0.0),
        ],
    )
    def test_by_hand(self, ranking, k, precision):
        assert precision_at(list(ranking), {"a", "b"}, (), k) == pytest.approx(precision, abs=1e-15)

    def test_junk_is_as_if_it_were_not_there(self):
        assert precision_at(list("jakxlb"), {"a", "b"}, {"j", "k", "l"}, 3) == precision_at(list("axb"), {"a", "b"}, (), 3) == 2 / 3

    def test_ten_by_default(self):
        ranking = [str(number) for number in range(30)]
        assert precision_at(ranking, {"0", "5", "10", "29"}) == 2 / 10

    @pytest.mark.parametrize("k", [0, -1, 1.5])
    def test_refuses_another_k(self, k):
        with pytest.raises(ValueError, match=f"k is {k}; pass a whole number"):
            precision_at(["a"], {"a"}, (), k)

    def test_refuses_no_positives(self):
        with pytest.raises(ValueError, match="at least one positive"):
            precision_at(["a"], [])


class TestAveragePrecisions:
    def test_is_each_query_in_the_ground_truths_order(self):
        rankings = {"two": ["x", "a"], "one": ["j", "a"]}
        truth = {"one": ({"a"}, {"j"}), "two": ({"a"}, set())}
        measured = average_precisions(rankings, truth)
        assert list(measured.items()) == [("one", 1.0), ("two", 0.25)]
        assert mean_average_precision(rankings, truth) == 0.625

    def test_refuses_different_queries(self):
        with pytest.raises(ValueError, match="1 queries have no ranking, 'two'"):
            average_precisions({"one": []}, {"one": ({"a"}, ()), "two": ({"a"}, ())})


class TestFolders:
    NAMES = ("cup/1.jpg", "cup/2.jpg", "cup/3.jpg", "in/depth/1.jpg", "in/depth/2.jpg", "in/1.jpg", "alone/1.jpg", "4.jpg", "5.jpg")

    def test_class_is_the_folder(self):
        truth = folder_ground_truth(self.NAMES)
        assert truth == {
            "cup/1.jpg": ({"cup/2.jpg", "cup/3.jpg"}, {"cup/1.jpg"}),
            "cup/2.jpg": ({"cup/1.jpg", "cup/3.jpg"}, {"cup/2.jpg"}),
            "cup/3.jpg": ({"cup/1.jpg", "cup/2.jpg"}, {"cup/3.jpg"}),
            "in/depth/1.jpg": ({"in/depth/2.jpg"}, {"in/depth/1.jpg"}),
            "in/depth/2.jpg": ({"in/depth/1.jpg"}, {"in/depth/2.jpg"}),
        }

    def test_queries_apart(self):
        truth = folder_ground_truth(iter(self.NAMES), iter(["cup/query.jpg", "cup/1.jpg"]))
        assert truth == {
            "cup/query.jpg": ({"cup/1.jpg", "cup/2.jpg", "cup/3.jpg"}, {"cup/query.jpg"}),
            "cup/1.jpg": ({"cup/2.jpg", "cup/3.jpg"}, {"cup/1.jpg"}),
        }

    def test_the_query_itself_counts_neither_way(self):
        truth = folder_ground_truth(self.NAMES)
        ranking = ["cup/1.jpg", "5.jpg", "cup/2.jpg", "alone/1.jpg", "cup/3.jpg"]
        expected = published_average_precision([1, 3], 2)
        assert average_precisions({query: ranking for query in truth}, truth)["cup/1.jpg"] == pytest.approx(expected)
        assert average_precision(ranking[1:], *truth["cup/1.jpg"]) == pytest.approx(expected)

    @pytest.mark.parametrize("query", ["alone/1.jpg", "4.jpg", "mug/1.jpg"])
    def test_refuses_a_query_without_a_class(self, query):
        with pytest.raises(ValueError, match=f"No photo shares a folder with the query '{query}'"):
            folder_ground_truth(self.NAMES, ["cup/1.jpg", query])

    def test_refuses_a_flat_folder(self):
        with pytest.raises(ValueError, match="No two of the 2 photos share a folder"):
            folder_ground_truth(["1.jpg", "2.jpg"])


def published_holidays(ranking, query, group):
    """holidays_map.py: the query is ignored where it is ranked, and so takes no rank."""
    ranks, ignored = [], 0
    for rank, name in enumerate(ranking):
        if name == query:
            ignored = 1
        elif name in group:
            ranks.append(rank - ignored)
    return published_average_precision(ranks, len(group))


class TestHolidays:
    @given(st.lists(st.integers(1, 5), min_size=2, max_size=8), st.randoms(use_true_random=False))
    def test_is_the_published_rule(self, sizes, generator):
        names = [f"{1000 + group}{place:02d}.jpg" for group, size in enumerate(sizes) for place in range(size + 1)]
        truth = holidays_ground_truth(generator.sample(names, len(names)))
        assert set(truth) == {name for name in names if name.endswith("00.jpg")}
        rankings = {query: generator.sample(names, len(names)) for query in truth}
        expected = {query: published_holidays(rankings[query], query, {*self.group(names, query)}) for query in truth}
        assert average_precisions(rankings, truth) == pytest.approx(expected, abs=1e-12)
        assert len(set(landmarks(truth).values())) == len(sizes)

    def group(self, names, query):
        return [name for name in names if name[:4] == query[:4] and name != query]

    def test_folders_and_endings_do_not_count(self):
        assert holidays_ground_truth(["jpg/100000.jpg", "jpg/100002.jpeg", "100101", "100100"]) == {
            "jpg/100000.jpg": ({"jpg/100002.jpeg"}, {"jpg/100000.jpg"}),
            "100100": ({"100101"}, {"100100"}),
        }

    def test_groups_that_are_not_whole_are_left_out(self):
        assert list(holidays_ground_truth(["100000.jpg", "100101.jpg", "100102.jpg", "100200.jpg", "100201.jpg"])) == ["100200.jpg"]
        with pytest.raises(ValueError, match="No query of Holidays"):
            holidays_ground_truth(["100000.jpg", "100101.jpg"])

    @pytest.mark.parametrize("name", ["query.jpg", "100000a.jpg", "١٠٠٠٠٠.jpg", ""])
    def test_refuses_other_names(self, name):
        with pytest.raises(ValueError, match=f"'{name}' is not named as the photos of Holidays"):
            holidays_ground_truth(["100000.jpg", "100001.jpg", name])

    def test_refuses_one_photo_twice(self):
        with pytest.raises(ValueError, match=r"'a/100001\.jpg' and 'b/100001\.jpg' are one photo"):
            holidays_ground_truth(["100000.jpg", "a/100001.jpg", "b/100001.jpg"])


class TestLandmarks:
    def test_by_shared_photos(self):
        truth = {"keble_1": ("abcd", "j"), "keble_2": ("abc", ""), "other": ("xyz", "d"), "none": ("", ""), "none too": ("", "")}
        assert landmarks({query: tuple(map(list, lists)) for query, lists in truth.items()}) == {
            "keble_1": "keble_1",
            "keble_2": "keble_1",
            "other": "other",
            "none": "none",
            "none too": "none too",
        }

    def test_a_third_is_enough_and_less_is_not(self):
        assert len(set(landmarks({"one": (["a", "b"],), "two": (["b", "c"],)}).values())) == 1
        assert len(set(landmarks({"one": (["a", "b"],), "two": (["b", "c", "d"],)}).values())) == 2

    @given(st.permutations(["ab", "bc", "cd", "de", "xy", "yz"]))
    def test_goes_on_from_query_to_query(self, chain):
        found = landmarks({query: (list(query), []) for query in chain})
        by_letter = {query: found[query] for query in chain}
        assert len({by_letter[query] for query in ("ab", "bc", "cd", "de")}) == 1
        assert by_letter["xy"] == by_letter["yz"] != by_letter["ab"]
        assert all(landmark == next(query for query in chain if found[query] == landmark) for landmark in found.values())

    def test_of_folders_are_the_folders(self):
        truth = folder_ground_truth([f"{folder}/{number}" for folder in "abc" for number in range(4)])
        assert {query: landmark[0] for query, landmark in landmarks(truth).items()} == {query: query[0] for query in truth}

    @pytest.mark.photos
    @pytest.mark.parametrize(("name", "second"), [("roxford5k", "all_souls"), ("rparis6k", "paris_defense")])
    def test_of_the_published_labels(self, published_labels, name, second):
        _, labels = published_labels(name)
        found = landmarks(labels)
        queries = list(labels)
        # The first 55 are the original queries, five of each landmark after another; the others are new, three of each.
        for start, size in [*((start, 5) for start in range(0, 55, 5)), *((start, 3) for start in range(55, 70, 3))]:
            assert len({found[query] for query in queries[start : start + size]}) == 1
        assert len(set(found.values())) == 11
        assert found[queries[55]] == found[queries[0]]
        assert queries[55].startswith(second)

    @pytest.mark.photos
    def test_of_oxford5k_are_those_in_the_names(self, data_folder):
        truth = {name: (query.positives, query.junk) for name, query in read_ground_truth(data_folder / "oxford5k_part/gt").items()}
        found = landmarks(truth)
        assert {query: landmark_by_name(landmark) for query, landmark in found.items()} == {
            query: landmark_by_name(query) for query in truth
        }
        assert len(set(found.values())) == 6
