import math
import statistics

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from rw_keras.retrieval import Difference, Interval, bootstrap, intervals, landmark_by_name, paired_difference


def expanded_level(level, count):
    """The level at which a percentile interval is as wide as Student's t asks for."""
    widened = math.sqrt(count / (count - 1)) * scipy.stats.t.ppf((1 + level) / 2, count - 1)
    return 1 - 2 * scipy.stats.norm.sf(widened)


def by_hand(scores, landmark_of, level, rounds, seed):
    """Landmarks drawn one round after another, their queries written out; -> mean, low, high."""
    generator = np.random.default_rng(seed)
    groups = {}
    for query in sorted(scores):
        groups.setdefault(landmark_of(query), []).append(scores[query])
    groups = list(groups.values())
    means = []
    for _ in range(rounds):
        drawn = generator.integers(len(groups), size=len(groups))
        means.append(np.mean([score for place in drawn for score in groups[place]]))
    tail = (1 - expanded_level(level, len(groups))) / 2
    return [np.mean(list(scores.values())), np.quantile(means, tail), np.quantile(means, 1 - tail)]


def ends(interval):
    return [interval.mean, interval.low, interval.high]


def made_up(seed, landmarks=11, queries=5, spread=0.15):
    """Scores of queries whose landmarks differ, around 0.6."""
    generator = np.random.default_rng(seed)
    centres = 0.6 + generator.normal(0, spread, landmarks)
    return {
        f"landmark_{place}_{query}": float(centre + generator.normal(0, 0.1))
        for place, centre in enumerate(centres)
        for query in range(1, queries + 1)
    }


class TestLandmarkByName:
    @pytest.mark.parametrize(
        ("query", "landmark"),
        [
            ("all_souls_1", "all_souls"),
            ("keble_5", "keble"),
            ("paris_defense_000605", "paris_defense"),
            ("01a_book/001.jpg", "01a_book"),
            ("set/01a_book/a_1.jpg", "set/01a_book"),
            ("100000.jpg", "100000.jpg"),
        ],
    )
    def test_names(self, query, landmark):
        assert landmark_by_name(query) == landmark


class TestBootstrap:
    @pytest.mark.parametrize(("landmarks", "level"), [(2, 0.95), (5, 0.8), (6, 0.95), (11, 0.95), (11, 0.5), (40, 0.99)])
    def test_is_the_loop(self, landmarks, level):
        scores = {query: score for place, (query, score) in enumerate(made_up(1, landmarks).items()) if place % 7}
        measured = bootstrap(scores, level=level, rounds=600, seed=5)
        assert ends(measured) == pytest.approx(by_hand(scores, landmark_by_name, level, 600, 5), abs=1e-12)
        assert (measured.level, measured.queries, measured.landmarks) == (level, len(scores), landmarks)
        assert measured.low < measured.mean < measured.high

    def test_draws_in_pieces_are_the_same_draws(self):
        scores = made_up(2, landmarks=3000, queries=1)
        measured = bootstrap(scores, rounds=900)  # 2.7 million numbers, more than fit one piece
        assert ends(measured) == pytest.approx(by_hand(scores, landmark_by_name, 0.95, 900, 0), abs=1e-12)

    @pytest.mark.parametrize("landmarks", [6, 11, 60])
    def test_is_scipys_where_landmarks_are_of_one_size(self, landmarks):
        scores = made_up(3, landmarks)
        means = np.reshape(list(scores.values()), (landmarks, 5)).mean(1)
        theirs = scipy.stats.bootstrap(
            (means,),
            np.mean,
            confidence_level=expanded_level(0.95, landmarks),
            n_resamples=40_000,
            method="percentile",
            random_state=np.random.default_rng(8),
        ).confidence_interval
        measured = bootstrap(scores, rounds=40_000)
        width = theirs.high - theirs.low
        assert measured.low == pytest.approx(theirs.low, abs=0.02 * width)
        assert measured.high == pytest.approx(theirs.high, abs=0.02 * width)

    @pytest.mark.parametrize("landmarks", [2, 3, 4])
    def test_of_few_landmarks_is_what_their_means_span(self, landmarks):
        scores = made_up(4, landmarks)
        means = np.reshape(list(scores.values()), (landmarks, 5)).mean(1)
        assert ends(bootstrap(scores))[1:] == pytest.approx([min(means), max(means)])

    @pytest.mark.slow
    def test_holds_the_mean_as_often_as_it_says(self):
        held = dict.fromkeys((6, 11, 30), 0)
        for landmarks in held:
            for seed in range(500):
                interval = bootstrap(made_up(seed, landmarks), rounds=500, seed=seed)
                held[landmarks] += interval.low <= 0.6 <= interval.high
        # Three standard errors of 500 cases are 3 %; a plain percentile interval would hold it 420 and 450 times.
        assert held[6] >= 445
        assert held[11] >= 460
        assert 460 <= held[30] <= 490

    @pytest.mark.parametrize(
        ("level", "freedom", "student"),
        # As printed in tables of Student's t.
        [
            (0.5, 1, 1.0),
            (0.95, 1, 12.706),
            (0.95, 2, 4.303),
            (0.99, 4, 4.604),
            (0.95, 10, 2.228),
            (0.9, 30, 1.697),
            (0.999, 120, 3.373),
        ],
    )
    def test_width_is_students(self, level, freedom, student):
        widened = -statistics.NormalDist().inv_cdf(intervals._tail(level, freedom + 1))
        assert widened == pytest.approx(math.sqrt((freedom + 1) / freedom) * student, rel=3e-4)

    def test_queries_of_one_landmark_are_not_independent(self):
        scores = made_up(5, spread=0.2)
        over_landmarks, over_queries = bootstrap(scores), bootstrap(scores, lambda query: query)
        assert over_landmarks.mean == over_queries.mean
        assert over_landmarks.high - over_landmarks.low > 1.5 * (over_queries.high - over_queries.low)
        assert (over_landmarks.landmarks, over_queries.landmarks) == (11, 55)

    def test_five_times_the_same_query_adds_nothing(self):
        once = made_up(6, queries=1)
        often = {f"{query[:-1]}{copy}": score for query, score in once.items() for copy in range(5)}
        assert ends(bootstrap(once)) == pytest.approx(ends(bootstrap(often)))

    @given(st.permutations(sorted(made_up(7, landmarks=4, queries=2))))
    def test_order_does_not_count(self, queries):
        scores = made_up(7, landmarks=4, queries=2)
        assert bootstrap({query: scores[query] for query in queries}, rounds=50) == bootstrap(scores, rounds=50)

    def test_seed_counts(self):
        scores = made_up(8)
        assert bootstrap(scores) == bootstrap(scores, seed=0)
        assert bootstrap(scores) != bootstrap(scores, seed=1)

    def test_takes_a_mapping_and_any_landmarks(self):
        scores = made_up(9)
        numbers = {query: int(query.split("_")[1]) for query in scores}
        assert bootstrap(scores, numbers) == bootstrap(scores, numbers.get)
        assert bootstrap(scores, numbers).landmarks == 11

    @given(
        st.dictionaries(
            st.sampled_from([f"{name}_{query}" for name in "abcdef" for query in range(3)]), st.floats(0, 1), min_size=4
        ),
        st.floats(0.5, 0.99),
    )
    def test_lies_among_the_scores(self, scores, level):
        if len({landmark_by_name(query) for query in scores}) < 2:
            return
        measured = bootstrap(scores, level=level, rounds=200)
        assert min(scores.values()) - 1e-12 <= measured.low <= measured.high <= max(scores.values()) + 1e-12
        wider = bootstrap(scores, level=(1 + level) / 2, rounds=200)
        assert wider.low <= measured.low <= measured.high <= wider.high

    def test_text(self):
        assert str(Interval(0.61234, 0.5031, 0.70149, 0.95, 55, 11)) == "0.612 (95 % interval 0.503 to 0.701)"
        assert str(Interval(0.5, 0.4, 0.6, 0.995, 55, 11)) == "0.500 (99.5 % interval 0.400 to 0.600)"

    def test_refuses_one_landmark(self):
        with pytest.raises(ValueError, match="All 2 queries are of one landmark, 'keble', and an interval takes two or more"):
            bootstrap({"keble_1": 0.5, "keble_2": 0.6})

    def test_refuses_no_query(self):
        with pytest.raises(ValueError, match="no query"):
            bootstrap({})

    @pytest.mark.parametrize("score", [math.nan, math.inf])
    def test_refuses_what_is_no_score(self, score):
        with pytest.raises(ValueError, match=f"score of 'b_1' is {score}; leave queries without positives out"):
            bootstrap({"a_1": 0.5, "b_1": score})

    def test_refuses_a_query_without_a_landmark(self):
        with pytest.raises(ValueError, match="no landmark for the query 'b_1'"):
            bootstrap({"a_1": 0.5, "b_1": 0.5}, {"a_1": "a"})

    @pytest.mark.parametrize("level", [0, 1, 95])
    def test_refuses_another_level(self, level):
        with pytest.raises(ValueError, match=f"level is {level}; pass one between 0 and 1"):
            bootstrap(made_up(0), level=level)

    def test_refuses_no_rounds(self):
        with pytest.raises(ValueError, match="rounds is 0"):
            bootstrap(made_up(0), rounds=0)


class TestPairedDifference:
    def test_of_a_method_with_itself_is_nothing(self):
        difference = paired_difference(made_up(1), made_up(1))
        assert ends(difference) == [0, 0, 0]
        assert not difference.significant
        assert str(difference) == "+0.000 (95 % interval +0.000 to +0.000: no difference shown)"

    def test_is_the_loop_over_differences(self):
        method, baseline = made_up(1), made_up(2)
        differences = {query: method[query] - baseline[query] for query in method}
        measured = paired_difference(method, dict(reversed(baseline.items())), level=0.9, rounds=600, seed=3)
        assert ends(measured) == pytest.approx(by_hand(differences, landmark_by_name, 0.9, 600, 3), abs=1e-12)
        assert ends(measured) == ends(bootstrap(differences, level=0.9, rounds=600, seed=3))
        turned = paired_difference(baseline, method, level=0.9, rounds=600, seed=3)
        assert [turned.mean, turned.low, turned.high] == pytest.approx([-measured.mean, -measured.high, -measured.low])

    def test_a_mean_difference_of_chance_is_no_result(self):
        baseline = made_up(3)
        noise = np.random.default_rng(4).normal(0, 0.03, 55)
        method = {query: score + change for (query, score), change in zip(baseline.items(), noise - noise.mean() + 0.002)}
        difference = paired_difference(method, baseline)
        assert difference.mean == pytest.approx(0.002)
        assert difference.low < 0 < difference.high
        assert not difference.significant
        assert str(difference).startswith("+0.002 (95 % interval -0.0")
        assert str(difference).endswith(": no difference shown)")

    def test_a_small_difference_everywhere_is_one(self):
        baseline = made_up(3)
        changes = np.random.default_rng(4).normal(0.02, 0.01, 55)
        method = {query: score + change for (query, score), change in zip(baseline.items(), changes)}
        better, worse = paired_difference(method, baseline), paired_difference(baseline, method)
        assert better.significant
        assert worse.significant
        assert str(better).startswith("+0.0")
        assert str(better).endswith(": better)")
        assert str(worse).startswith("-0.0")
        assert str(worse).endswith(": worse)")
        assert bootstrap(method).low < bootstrap(baseline).high  # which the two intervals do not show

    @pytest.mark.parametrize(
        ("landmarks", "level", "enough"), [(5, 0.95, False), (6, 0.95, True), (7, 0.99, False), (8, 0.99, True)]
    )
    def test_takes_landmarks_enough(self, landmarks, level, enough):
        baseline = made_up(5, landmarks)
        difference = paired_difference({query: score + 0.1 for query, score in baseline.items()}, baseline, level=level)
        assert difference.low > 0
        assert difference.significant == enough
        assert str(difference).endswith(": better)" if enough else f": {landmarks} landmarks are too few to show a difference)")

    def test_is_seldom_shown_where_there_is_none(self):
        shown = 0
        for seed in range(500):
            shown += paired_difference(made_up(seed), made_up(seed + 10_000), rounds=500).significant
        assert 5 <= shown <= 40  # 25 are what 95 % stands for, 50 what a plain percentile interval would show

    def test_text_has_no_negative_zero(self):
        assert str(Difference(-0.0001, -0.0104, 0.0126, 0.95, 55, 11)) == (
            "+0.000 (95 % interval -0.010 to +0.013: no difference shown)"
        )

    def test_landmarks_can_be_given(self):
        method, baseline = made_up(1), made_up(2)
        numbers = {query: int(query.split("_")[1]) for query in method}
        assert paired_difference(method, baseline, numbers).landmarks == 11

    def test_refuses_different_queries(self):
        with pytest.raises(ValueError, match="1 queries are not in the baseline, 'b_1' first"):
            paired_difference({"a_1": 0.5, "b_1": 0.5}, {"a_1": 0.5})
        with pytest.raises(ValueError, match="1 queries are not in the method, 'b_1' first"):
            paired_difference({"a_1": 0.5}, {"a_1": 0.5, "b_1": 0.5})
