"""What a table is, and how its cells are written."""

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence

import numpy as np

from rw_keras.retrieval import Interval, landmark_by_name, paired_difference

# Where there is no value.
NONE = "–"


@dataclasses.dataclass(frozen=True)
class Point:
    """A row as it is drawn: its label, the value published, what was measured, and as what."""

    label: str
    published: float | None
    measured: dict[str, Interval]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text, with its notes, and what is drawn of it.

    Attributes:
        name: of its files.
        title: above it.
        columns: their heads.
        rows: of text.
        notes: sentences below it.
        points: the rows that have a value to draw.
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    points: Sequence[Point] = ()

    def markdown(self) -> str:
        """Title, table and notes."""
        lines = [f"# {self.title}", "", _line(self.columns), _line(["---"] * len(self.columns)), *map(_line, self.rows), ""]
        return "\n".join([*lines, *(f"{note}\n" for note in self.notes)])

    def csv(self) -> str:
        """The table alone."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.columns, *self.rows])
        return text.getvalue()


def digits(value: float | None) -> str:
    """A value with three digits behind the point."""
    return NONE if value is None else f"{value:.3f}"


def signed(value: float) -> str:
    """A difference with its sign; there is no "-0.000"."""
    return f"{round(value, 3) + 0.0:+.3f}"


def mean_and_interval(found: Interval) -> list[str]:
    """A mean, and its interval."""
    return [f"{found.mean:.3f}", f"{found.low:.3f} to {found.high:.3f}" if found.low == found.low else "one landmark"]


def compared(scores: Mapping[str, float], base: Mapping[str, float]) -> str:
    """A paired difference with its interval and verdict, in few words."""
    if len({landmark_by_name(query) for query in scores}) < 2:
        return f"{signed(np.mean([scores[query] - base[query] for query in scores]))} (one landmark)"
    difference = paired_difference(scores, base)
    verdict = "no difference shown" if not difference.significant else "better" if difference.mean > 0 else "worse"
    return f"{signed(difference.mean)} ({signed(difference.low)} to {signed(difference.high)}), {verdict}"


def _line(cells):
    return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"
