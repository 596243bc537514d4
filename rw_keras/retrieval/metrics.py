"""How good a ranking is: the protocols of Oxford5k and Paris6k, revisited Oxford and Paris, INSTRE, and Holidays.

A protocol is its ground truth: query -> (positives, junk). Junk is taken out of a ranking; what is neither is wrong. All of them
share `average_precision`, as their own evaluation programs do.
"""

import collections
import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping, Sequence

GroundTruth = Mapping[str, tuple[Collection[str], Collection[str]]]
RevisitedLabels = Mapping[str, tuple[Collection[str], Collection[str], Collection[str]]]

# In the revisited sets two queries of one landmark share at least 0.54 of their labelled photos, two of different ones at most
# 0.10.
_ONE_LANDMARK = 1 / 3


def average_precision(ranking: Iterable[str], positives: Collection[str], junk: Collection[str] = ()) -> float:
    """Average precision of one ranking, as the evaluation program of Oxford5k and Paris6k computes it.

    Junk is taken out of the ranking first. The result is the area under the precision-recall curve by the trapezoidal
    rule, from precision 1 at recall 0: at each positive, `(recall - old_recall) * (old_precision + precision) / 2`.
    A positive that the ranking does not hold counts as never found.

    Args:
        ranking: names, best first.
        positives: names that are right: `good` and `ok` together.
        junk: names that count neither way.

    Returns:
        A number from 0 to 1.

    Raises:
        ValueError: without positives, with a name that is both, or that the ranking holds twice.
    """
    return area(*_ranks(ranking, positives, junk))


def precision_at(ranking: Iterable[str], positives: Collection[str], junk: Collection[str] = (), k: int = 10) -> float:
    """Precision among the first `k` of one ranking, as the evaluation program of revisited Oxford and Paris computes it.

    Junk is taken out first. Where the last positive stands before rank `k`, precision is taken there: a query with three
    positives can reach 1 at `k = 10`. A positive that the ranking does not hold counts as never found.

    Args:
        ranking: names, best first.
        positives: names that are right.
        junk: names that count neither way.
        k: how many to look at, at least 1.

    Returns:
        A number from 0 to 1.

    Raises:
        ValueError: when `k` is less than 1, and as `average_precision`.
    """
    return precision(*_ranks(ranking, positives, junk), checked_k(k))


def recall_at(ranking: Iterable[str], positives: Collection[str], junk: Collection[str] = (), k: int = 10) -> float:
    """Recall among the first `k` of one ranking: the share of the positives that stand there. Junk is taken out first.

    A query with more than `k` positives cannot reach 1.

    Args:
        ranking, positives, junk, k: see `precision_at`.

    Returns:
        A number from 0 to 1.

    Raises:
        ValueError: as `precision_at`.
    """
    return recall(*_ranks(ranking, positives, junk), checked_k(k))


def average_precisions(rankings: Mapping[str, Iterable[str]], ground_truth: GroundTruth) -> dict[str, float]:
    """The `average_precision` of every query: what `bootstrap` and `paired_difference` take.

    Args:
        rankings: query -> names, best first.
        ground_truth: query -> (positives, junk).

    Returns:
        query -> a number from 0 to 1, in the ground truth's order.

    Raises:
        ValueError: when the two do not hold the same queries, or there are none, and as `average_precision`.
    """
    _check_queries(rankings, ground_truth)
    return {query: average_precision(rankings[query], *truth) for query, truth in ground_truth.items()}


def mean_average_precision(rankings: Mapping[str, Iterable[str]], ground_truth: GroundTruth) -> float:
    """Mean over the queries of `average_precision`.

    Args:
        rankings: query -> names, best first.
        ground_truth: query -> (positives, junk).

    Returns:
        A number from 0 to 1.

    Raises:
        ValueError: when the two do not hold the same queries, or there are none.
    """
    return _mean(average_precisions(rankings, ground_truth))


@dataclasses.dataclass(frozen=True)
class Revisited:
    """What `revisited` measured at one level. Queries without a positive at that level are not in it.

    Attributes:
        level: "easy", "medium" or "hard".
        average_precisions: query -> AP.
        precisions: k -> {query: precision at k}.
        landmarks: query -> landmark, for `bootstrap` and `paired_difference`; see `landmarks`.
    """

    level: str
    average_precisions: dict[str, float]
    precisions: dict[int, dict[str, float]]
    landmarks: dict[str, str]

    @property
    def mean_average_precision(self) -> float:
        return _mean(self.average_precisions)

    @property
    def mean_precision(self) -> dict[int, float]:
        """k -> mP@k."""
        return {k: _mean(precisions) for k, precisions in self.precisions.items()}


def revisited(
    rankings: Mapping[str, Iterable[str]], labels: RevisitedLabels, level: str = "medium", k: Iterable[int] = (1, 5, 10)
) -> Revisited:
    """mAP and mP@k by the protocol of revisited Oxford and Paris (Radenovic et al., CVPR 2018).

    Easy: easy photos are right, hard ones count neither way. Medium: easy and hard ones are right. Hard: hard photos are
    right, easy ones count neither way. Junk never counts. A query without a positive at a level is left out of its means.

    Example:
        >>> rankings = {"q1": ["a", "x", "b"], "q2": ["x", "c", "j"]}
        >>> labels = {"q1": (["a"], ["b"], []), "q2": ([], ["c"], ["j"])}
        >>> revisited(rankings, labels, "hard").average_precisions
        {'q1': 0.25, 'q2': 0.25}
        >>> revisited(rankings, labels, "easy").mean_precision
        {1: 1.0, 5: 1.0, 10: 1.0}

    Args:
        rankings: query -> names, best first; the published sets keep their query photos out of the index.
        labels: query -> (easy, hard, junk).
        level: "easy", "medium" or "hard".
        k: the ranks to take precision at.

    Raises:
        ValueError: when a ranking holds the name of a query, when no query has a positive at this level, and as
            `revisited_ground_truth`, `average_precisions` and `precision_at`.
    """
    ground_truth = revisited_ground_truth(labels, level)
    _check_queries(rankings, labels)
    cuts = [checked_k(cut) for cut in k]
    found = {}
    for query, truth in ground_truth.items():
        ranking = list(rankings[query])
        held = next((name for name in ranking if name in labels), None)
        if held is not None:
            raise ValueError(f"The ranking of {query!r} holds the query {held!r}; leave the query photos out of the index.")
        found[query] = _ranks(ranking, *truth)
    return Revisited(
        level,
        {query: area(*one) for query, one in found.items()},
        {cut: {query: precision(*one, cut) for query, one in found.items()} for cut in cuts},
        {query: landmark for query, landmark in landmarks(labels).items() if query in found},
    )


def revisited_ground_truth(labels: RevisitedLabels, level: str) -> dict[str, tuple[set[str], set[str]]]:
    """The ground truth of one level of revisited Oxford and Paris; see `revisited`.

    Args:
        labels: query -> (easy, hard, junk).
        level: "easy", "medium" or "hard".

    Returns:
        query -> (positives, junk), without the queries that have no positive at this level.

    Raises:
        ValueError: when the level is another, a query's labels are not three lists, a name is in two of them, or no query
            is left.
    """
    if level not in ("easy", "medium", "hard"):
        raise ValueError(f'level is {level!r}; pass "easy", "medium" or "hard".')
    ground_truth = {}
    for query, lists in labels.items():
        if isinstance(lists, Mapping) or len(lists) != 3:
            raise ValueError(f"The labels of {query!r} are not three lists; pass (easy, hard, junk).")
        easy, hard, junk = map(set, lists)
        twice = easy & hard | easy & junk | hard & junk
        if twice:
            raise ValueError(f"{min(twice)!r} has two labels for the query {query!r}; take it out of one of easy, hard, junk.")
        positives = {"easy": easy, "medium": easy | hard, "hard": hard}[level]
        if positives:
            ground_truth[query] = positives, (easy | hard | junk) - positives
    if not ground_truth:
        raise ValueError(f"None of the {len(labels)} queries has a positive at the level {level!r}; pass labels that have some.")
    return ground_truth


def folder_ground_truth(names: Iterable[str], queries: Iterable[str] | None = None) -> dict[str, tuple[set[str], set[str]]]:
    """Ground truth of photos sorted into folders, as INSTRE's are: what lies in the query's own folder is right.

    The query itself counts neither way, so it may be in the index or not. AP is that of `average_precision`, as in INSTRE's own
    evaluation program. A photo in no folder belongs to no class: it is wrong for every query.

    Example:
        >>> folder_ground_truth(["cup/1.jpg", "cup/2.jpg", "key/1.jpg", "other.jpg"])
        {'cup/1.jpg': ({'cup/2.jpg'}, {'cup/1.jpg'}), 'cup/2.jpg': ({'cup/1.jpg'}, {'cup/2.jpg'})}

    Args:
        names: the photos that are ranked, as "folder/photo.jpg"; the folder is all before the last "/".
        queries: the queries, named likewise, among `names` or not. Default: every photo that is not alone in its folder.

    Returns:
        query -> (positives, junk).

    Raises:
        ValueError: when a query of `queries` has no photo in its folder but itself, or no two photos share a folder.
    """
    names = list(names)
    classes = collections.defaultdict(set)
    for name in names:
        classes[name.rpartition("/")[0]].add(name)
    classes.pop("", None)
    ground_truth = {}
    for query in names if queries is None else queries:
        positives = classes.get(query.rpartition("/")[0], set()) - {query}
        if positives:
            ground_truth[query] = positives, {query}
        elif queries is not None:
            raise ValueError(f"No photo shares a folder with the query {query!r}; name both as folder/photo.jpg, or leave it out.")
    if not ground_truth:
        raise ValueError(
            f"No two of the {len(names)} photos share a folder; name them as folder/photo.jpg, the folder their class."
        )
    return ground_truth


def holidays_ground_truth(names: Iterable[str]) -> dict[str, tuple[set[str], set[str]]]:
    """Ground truth of INRIA Holidays from its file names: photo 124501.jpg is of group 1245, whose query is 124500.jpg.

    The query itself, first hit of its own ranking, counts neither way. With `average_precision` this is what the set's own
    program, holidays_map.py, computes. Groups without their query, or without another photo, are left out.

    Example:
        >>> holidays_ground_truth(["100000.jpg", "100001.jpg", "100100.jpg", "100101.jpg"])["100100.jpg"]
        ({'100101.jpg'}, {'100100.jpg'})

    Args:
        names: the photos that are ranked; folder and ending do not count.

    Returns:
        query -> (positives, junk).

    Raises:
        ValueError: when a name is not a number, or no query is left.
    """
    groups = collections.defaultdict(dict)
    for name in names:
        number = name.rpartition("/")[2].partition(".")[0]
        if not (number.isascii() and number.isdecimal()):
            raise ValueError(f"{name!r} is not named as the photos of Holidays are, 100000.jpg for one; leave other photos out.")
        group, place = divmod(int(number), 100)
        if place in groups[group]:
            raise ValueError(f"{groups[group][place]!r} and {name!r} are one photo of Holidays; keep one of them.")
        groups[group][place] = name
    ground_truth = {
        group[0]: ({name for place, name in group.items() if place}, {group[0]})
        for group in groups.values()
        if 0 in group and len(group) > 1
    }
    if not ground_truth:
        raise ValueError("No query of Holidays (100000.jpg, 100100.jpg, ...) has another photo of its group; pass all photos.")
    return ground_truth


def landmarks(ground_truth: Mapping[str, tuple[Collection[str], ...]]) -> dict[str, str]:
    """Which queries are of one landmark, by the photos they share: for `bootstrap` and `paired_difference`.

    Two queries are of one landmark when at least a third of the photos that either one's lists name are in both's, and so on from
    query to query. Names do not tell: in the revisited sets bodleian_000132 asks for the Radcliffe Camera, and oxford_002985
    for All Souls. There this finds the 11 landmarks of either set.

    Args:
        ground_truth: query -> lists of names: (positives, junk), or (easy, hard, junk).

    Returns:
        query -> landmark, named after the first of its queries.
    """
    photos = {query: frozenset().union(*lists) or frozenset([query]) for query, lists in ground_truth.items()}
    first = {}  # set of photos -> the first set found of its landmark
    holders = collections.defaultdict(list)
    for one in dict.fromkeys(photos.values()):
        first[one] = one
        for other in dict.fromkeys(holder for photo in one for holder in holders[photo]):
            if len(one & other) >= _ONE_LANDMARK * len(one | other):
                mine, its = first[one], first[other]
                first.update({each: its for each, landmark in first.items() if landmark == mine})
        for photo in one:
            holders[photo].append(one)
    names = {}
    return {query: names.setdefault(first[one], query) for query, one in photos.items()}


def _ranks(ranking, positives, junk):
    """The ranks, from 1 and with junk taken out, at which positives stand; and how many positives there are."""
    positives, junk = set(positives), set(junk)
    if not positives:
        raise ValueError("Average precision needs at least one positive; leave a query without any out.")
    if positives & junk:
        raise ValueError(f"{min(positives & junk)!r} is both positive and junk; take it out of one of the two.")
    ranks, rank, seen = [], 0, set()
    for name in ranking:
        if name in seen:
            raise ValueError(f"The ranking holds {name!r} twice; a name may stand in it once.")
        seen.add(name)
        if name not in junk:
            rank += 1
            if name in positives:
                ranks.append(rank)
    return ranks, len(positives)


def area(ranks: Sequence[int], positives: int) -> float:
    """`average_precision` of a query by the ranks at which it finds positives.

    Args:
        ranks: from 1, ascending, with junk taken out.
        positives: how many there are, 1 or more.
    """
    # Recall changes at positives only, so the trapezoids between them have no width.
    return math.fsum(
        ((found / (rank - 1) if rank > 1 else 1.0) + (found + 1) / rank) / 2 / positives for found, rank in enumerate(ranks)
    )


def precision(ranks: Sequence[int], positives: int, k: int) -> float:
    """`precision_at` by the ranks at which a query finds positives; see `area`."""
    cut = min(ranks[-1], k) if len(ranks) == positives else k
    return sum(rank <= cut for rank in ranks) / cut


def recall(ranks: Sequence[int], positives: int, k: int) -> float:
    """`recall_at` by the ranks at which a query finds positives; see `area`."""
    return sum(rank <= k for rank in ranks) / positives


def checked_k(k: int) -> int:
    """A number of ranks; a ValueError where it is less than 1, or no whole number."""
    if k < 1 or k != int(k):
        raise ValueError(f"k is {k!r}; pass a whole number of ranks, 1 or more.")
    return int(k)


def _check_queries(rankings, ground_truth):
    if not ground_truth:
        raise ValueError("There is no query in the ground truth to take the mean over.")
    for here, there, what in ((ground_truth, rankings, "ranking"), (rankings, ground_truth, "ground truth")):
        missing = [query for query in here if query not in there]
        if missing:
            raise ValueError(f"{len(missing)} queries have no {what}, {missing[0]!r} first; give both the same queries.")


def _mean(scores):
    return sum(scores.values()) / len(scores)
