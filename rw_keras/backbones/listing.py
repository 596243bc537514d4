"""The networks there are, as a table."""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from typing import Any

from rw_keras.backbones.registry import BACKBONES, FACTS, LICENCES, Facts


@dataclasses.dataclass(frozen=True)
class Network:
    """A row of `rw_keras.backbones.list()`. A number that its registration does not say is `None`.

    Attributes:
        name: what `rw_keras.build_descriptor` takes.
        channels: of its map, and so the dimensions of an unwhitened descriptor.
        stride: pixels a side that a cell of the map stands for.
        smallest_side: the fewest pixels a side that a photo may have.
        licence: of the published weights.
        measured: where its retrieval quality with this package was measured; `None`: nowhere.
    """

    name: str
    channels: int | None
    stride: int | None
    smallest_side: int | None
    licence: str
    measured: str | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        return dataclasses.asdict(self)


class Networks(tuple[Network, ...]):
    """Rows of `Network`; as text, a table."""

    __slots__ = ()

    def __str__(self) -> str:
        titles = ("name", "channels", "stride", "smallest side", "quality measured in", "licence of the weights")
        rows = [
            (row.name, *map(_in_words, (row.channels, row.stride, row.smallest_side)), row.measured or "not measured", row.licence)
            for row in self
        ]
        widths = [max(map(len, column)) for column in zip(titles, *rows)]
        numbers = (1, 2, 3)
        return "\n".join(
            "  ".join(
                text.rjust(width) if column in numbers else text.ljust(width)
                for column, (text, width) in enumerate(zip(row, widths))
            ).rstrip()
            for row in (titles, *rows)
        )

    __repr__ = __str__


def list_networks(pattern: str = "*") -> Networks:
    """The networks that `rw_keras.build_descriptor` knows by name, by name. Builds none.

    Args:
        pattern: names to show, such as "resnet*"; in any case.

    Returns:
        A tuple of `Network`, which prints as a table.

    Raises:
        ValueError: when no name is like `pattern`.

    Example:

    >>> rw_keras.backbones.list("vgg*")[0].channels
    512
    """
    found = []
    for name in sorted(fnmatch.filter(BACKBONES, pattern.lower()), key=_with_numbers):
        facts = FACTS.get(name, Facts())
        found.append(
            Network(name, facts.channels, facts.stride, facts.smallest_side, LICENCES.get(name, "not known"), facts.measured)
        )
    if not found:
        raise ValueError(f"There is no network like {pattern!r}; choose among {', '.join(BACKBONES)}.")
    return Networks(found)


def _with_numbers(name):
    """A key to sort names by, in which resnet50 comes before resnet101."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _in_words(value):
    return "-" if value is None else str(value)
