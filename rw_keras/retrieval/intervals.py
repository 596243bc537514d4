"""How sure a mean over queries is: bootstrap intervals over landmarks, of one method and of the difference between two."""

import collections
import dataclasses
import math
from collections.abc import Callable, Hashable, Mapping

import numpy as np

LandmarkOf = Callable[[str], Hashable] | Mapping[str, Hashable]


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval, of `bootstrap`. As text: `0.612 (95 % interval 0.503 to 0.701)`.

    Attributes:
        mean: over all queries.
        low, high: the interval's ends.
        level: the confidence level.
        queries, landmarks: how many it is over.
    """

    mean: float
    low: float
    high: float
    level: float
    queries: int
    landmarks: int

    def __str__(self):
        return f"{self.mean:.3f} ({100 * self.level:g} % interval {self.low:.3f} to {self.high:.3f})"


@dataclasses.dataclass(frozen=True)
class Difference(Interval):
    """A mean difference with its confidence interval, of `paired_difference`.

    As text: `+0.002 (95 % interval -0.010 to +0.013: no difference shown)`.
    """

    @property
    def significant(self) -> bool:
        """Whether a difference is shown: the interval leaves zero out, and there are landmarks enough to say so.

        Enough: that all of them should agree by chance, each as likely to go either way, is rarer than `1 - level`. At
        95 % six are, five are not.
        """
        return self._enough and not self.low <= 0 <= self.high

    @property
    def _enough(self):
        return 2 * 0.5**self.landmarks <= 1 - self.level

    def __str__(self):
        if not self._enough:
            verdict = f"{self.landmarks} landmarks are too few to show a difference"
        elif not self.significant:
            verdict = "no difference shown"
        else:
            verdict = "better" if self.mean > 0 else "worse"
        mean, low, high = (f"{round(number, 3) + 0.0:+.3f}" for number in (self.mean, self.low, self.high))  # + 0.0: no "-0.000"
        return f"{mean} ({100 * self.level:g} % interval {low} to {high}: {verdict})"


def landmark_by_name(query: str) -> str:
    """The landmark a query's name tells: all before the last "_" ("all_souls_1" -> "all_souls"), or the name where it has none.

    A name with a "/" has its folder as its landmark.
    """
    return query.rpartition("/")[0] or query.rpartition("_")[0] or query


def bootstrap(
    scores: Mapping[str, float],
    landmark_of: LandmarkOf = landmark_by_name,
    *,
    level: float = 0.95,
    rounds: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Confidence interval of a mean over queries, an mAP for one, by the bootstrap over landmarks.

    The queries of one landmark share their positives, so they rise and fall together and count for less than as many landmarks:
    landmarks are drawn with replacement, each with all its queries, and the mean of a draw is over all queries in it.

    The plain percentile interval is too short where landmarks are few, so this one is widened to what Student's t asks for
    (the "expanded percentile interval" of Hesterberg, The American Statistician 69, 2015). In a simulation the plain one of 95 %
    missed the true mean in 10 % of cases with 11 landmarks and 16 % with 6; this one in 6 % and 8 %. So it is still a rough
    one, and with fewer than 5 only the range that the landmarks' own means span: with 3, it missed in 24 %.

    Example:
        >>> print(bootstrap({"keble_1": 0.9, "keble_2": 0.8, "balliol_1": 0.4, "balliol_2": 0.5, "ashmolean_1": 0.6}))
        0.640 (95 % interval 0.450 to 0.850)

    Args:
        scores: query -> score, as of `average_precisions`.
        landmark_of: query -> landmark, a function or a mapping. Default: `landmark_by_name`, which fits queries named as those
            of Oxford5k and Paris6k; `landmarks(ground_truth)` fits any protocol, and the revisited sets need it.
        level: the confidence level.
        rounds: how many draws.
        seed: for the draws; the same gives the same interval.

    Raises:
        ValueError: with fewer than two landmarks, a score that is not finite, a query without a landmark, or a level or
            rounds out of range.
    """
    return Interval(*_resampled(scores, landmark_of, level, rounds, seed))


def paired_difference(
    method: Mapping[str, float],
    baseline: Mapping[str, float],
    landmark_of: LandmarkOf = landmark_by_name,
    *,
    level: float = 0.95,
    rounds: int = 10_000,
    seed: int = 0,
) -> Difference:
    """Mean of `method` minus `baseline` over the same queries, with its interval by the bootstrap over landmarks.

    What is hard for both falls out, so this shows differences far smaller than the two intervals of `bootstrap` are wide; and it
    says where there is none to show.

    Example:
        >>> baseline = {f"landmark{number}_1": 0.5 for number in range(6)}
        >>> method = {query: score + change for (query, score), change in zip(baseline.items(), (0.02, -0.01, 0.01, 0, 0, -0.01))}
        >>> print(paired_difference(method, baseline))
        +0.002 (95 % interval -0.008 to +0.015: no difference shown)

    Args:
        method, baseline: query -> score, as of `average_precisions`, for the same queries.
        landmark_of, level, rounds, seed: see `bootstrap`.

    Returns:
        A `Difference`; positive where `method` is better.

    Raises:
        ValueError: when the two do not hold the same queries, and as `bootstrap`.
    """
    for here, there, name in ((method, baseline, "baseline"), (baseline, method, "method")):
        missing = [query for query in here if query not in there]
        if missing:
            raise ValueError(f"{len(missing)} queries are not in the {name}, {missing[0]!r} first; give both the same queries.")
    return Difference(*_resampled({query: method[query] - baseline[query] for query in method}, landmark_of, level, rounds, seed))


def _resampled(scores, landmark_of, level, rounds, seed):
    """The fields of an `Interval`."""
    if not 0 < level < 1:
        raise ValueError(f"level is {level!r}; pass one between 0 and 1, 0.95 for one.")
    if rounds < 1:
        raise ValueError(f"rounds is {rounds!r}; pass 1 or more.")
    if not scores:
        raise ValueError("There is no query to take the mean over; pass the scores of some.")
    for query, score in scores.items():
        if not math.isfinite(score):
            raise ValueError(f"The score of {query!r} is {score}; leave queries without positives out.")
    grouped = collections.defaultdict(list)
    for query in sorted(scores):
        grouped[_landmark(query, landmark_of)].append(scores[query])
    count = len(grouped)
    if count == 1:
        raise ValueError(
            f"All {len(scores)} queries are of one landmark, {next(iter(grouped))!r}, and an interval takes two or more; pass "
            "queries of others too, or a landmark_of that tells theirs apart."
        )
    sums = np.array([math.fsum(group) for group in grouped.values()])
    sizes = np.array([len(group) for group in grouped.values()])
    generator = np.random.default_rng(seed)
    means = np.empty(rounds)
    step = max(1, 2**20 // count)  # a few tens of megabytes at a time
    for start in range(0, rounds, step):
        drawn = generator.integers(count, size=(min(step, rounds - start), count))
        means[start : start + step] = sums[drawn].sum(1) / sizes[drawn].sum(1)
    tail = _tail(level, count)
    low, high = np.quantile(means, [tail, 1 - tail])
    return math.fsum(sums) / len(scores), float(low), float(high), level, len(scores), count


def _landmark(query, landmark_of):
    if not isinstance(landmark_of, Mapping):
        return landmark_of(query)
    if query not in landmark_of:
        raise ValueError(f"landmark_of has no landmark for the query {query!r}; give every query one.")
    return landmark_of[query]


def _tail(level, count):
    """The share of draws to leave out at either end, so that the interval is as wide as Student's t asks for `count` landmarks."""
    # Loaded here, since an index needs none of it; `scipy.stats` has the same functions, and takes four times as long to load.
    from scipy import special

    return special.ndtr(-math.sqrt(count / (count - 1)) * special.stdtrit(count - 1, (1 + level) / 2))
