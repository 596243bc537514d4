"""Rules of evaluation programs that others have published, step by step."""


def published_average_precision(ranks, count):
    """The trapezoidal rule of the revisited sets and of Holidays: `ranks` of the positives from 0, `count` of them in all."""
    area = 0
    step = 1 / count
    for found, rank in enumerate(ranks):
        left = 1 if rank == 0 else found / rank
        right = (found + 1) / (rank + 1)
        area += (left + right) * step / 2
    return area
