"""What an index holds, asked for by names and positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from rw_keras.retrieval.filters import Within, passing
from rw_keras.retrieval.regions import Regions


class Contents:
    """The rows of an index; see `rw_keras.retrieval.Index` for the attributes.

    Where an index is not at hand, to ask for several rows at once takes as long as to ask for one.
    """

    names: Sequence[str]
    descriptors: Any
    regions: Regions | None = None
    recipe: dict[str, Any] | None
    metadata: Mapping[str, list[Any]] = MappingProxyType({})

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"<Index of {len(self)} descriptors, {self.descriptors.shape[1]} dimensions>"

    @property
    def dimensions(self) -> int:
        """How many elements a descriptor has."""
        return int(self.descriptors.shape[1])

    def position(self, name: str) -> int:
        """Where a name stands, or a ValueError that says it does not."""
        raise NotImplementedError

    def positions(self, names: Sequence[str]) -> list[int | None]:
        """Where names stand, `None` for those that are not in the index."""

        def found(name):
            try:
                return self.position(name)
            except ValueError:
                return None

        return list(map(found, names))

    def named(self, positions: Sequence[int]) -> list[str]:
        """The names at positions."""
        return [self.names[position] for position in positions]

    def metadata_of(self, positions: Sequence[int]) -> list[dict[str, Any]]:
        """Column -> value, of the rows at positions."""
        return [{column: values[position] for column, values in self.metadata.items()} for position in positions]

    def passing(self, within: Within | None) -> Any:
        """A filter as the searcher takes it: a mask of the rows that pass, `None` for all. It may be given as `within` again.

        Raises:
            ValueError: for one that does not fit.
        """
        return passing(within, self.names, self.position, self.metadata)
