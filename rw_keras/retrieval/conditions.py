"""Conditions on the values of a column: functions that can also be read, so that a database may evaluate them."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Sequence
from typing import Any

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
SYMBOLS = tuple(_OPERATORS)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A condition on the value of a column: called with a value, it says whether it holds.

    Numbers compare as numbers where both are such, all others as texts; `None` is a text of no characters, and unequal to any
    other.

    Attributes:
        symbol: `=`, `!=`, `<`, `<=`, `>` or `>=`.
        wanted: what a value is compared with.
    """

    symbol: str
    wanted: str

    @property
    def number(self) -> Any:
        """`wanted` as a number, where it is one."""
        return typed([self.wanted])[0]

    def __call__(self, value: Any) -> bool:
        compare, number = _OPERATORS[self.symbol], self.number
        if isinstance(value, (int, float)) and not isinstance(value, bool) and isinstance(number, (int, float)):
            return compare(value, number)
        if value is None:
            return self.symbol == "!=" if self.wanted else compare("", "")
        return compare(str(value), self.wanted)


@dataclasses.dataclass(frozen=True)
class AllOf:
    """Comparisons of one column, all of which must hold.

    Attributes:
        parts: the comparisons.
    """

    parts: tuple[Comparison, ...]

    def __call__(self, value: Any) -> bool:
        return all(holds(value) for holds in self.parts)


def typed(values: Sequence[str]) -> list[Any]:
    """Texts as whole numbers, or else as decimal ones, where all of them are; `None` for empty ones."""
    for kind in (int, float):
        try:
            return [None if value == "" else kind(value) for value in values]
        except ValueError:
            continue
    return [None if value == "" else value for value in values]
