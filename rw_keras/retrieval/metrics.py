"""How good a ranking is: the Oxford protocol."""

from collections.abc import Collection, Iterable, Mapping


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
    positives, junk = set(positives), set(junk)
    if not positives:
        raise ValueError("Average precision needs at least one positive; leave a query without any out.")
    if positives & junk:
        raise ValueError(f"{sorted(positives & junk)[0]!r} is both positive and junk; take it out of one of the two.")
    seen = set()
    found, rank, area, old_recall, old_precision = 0, 0, 0.0, 0.0, 1.0
    for name in ranking:
        if name in seen:
            raise ValueError(f"The ranking holds {name!r} twice; a name may stand in it once.")
        seen.add(name)
        if name in junk:
            continue
        rank += 1
        found += name in positives
        recall, precision = found / len(positives), found / rank
        area += (recall - old_recall) * (old_precision + precision) / 2
        old_recall, old_precision = recall, precision
    return area


def mean_average_precision(
    rankings: Mapping[str, Iterable[str]], ground_truth: Mapping[str, tuple[Collection[str], Collection[str]]]
) -> float:
    """Mean over the queries of `average_precision`.

    Args:
        rankings: query -> names, best first.
        ground_truth: query -> (positives, junk).

    Returns:
        A number from 0 to 1.

    Raises:
        ValueError: when the two do not hold the same queries, or there are none.
    """
    if not ground_truth:
        raise ValueError("There is no query in the ground truth to take the mean over.")
    for here, there, what in ((ground_truth, rankings, "ranking"), (rankings, ground_truth, "ground truth")):
        missing = [query for query in here if query not in there]
        if missing:
            raise ValueError(f"{len(missing)} queries have no {what}, {missing[0]!r} first; give both the same queries.")
    return sum(average_precision(rankings[query], *truth) for query, truth in ground_truth.items()) / len(ground_truth)
