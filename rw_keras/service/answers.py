"""What answers are made of: JSON, addresses of photos, and what is known of a hit."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from fastapi.responses import Response

from rw_keras.service.problems import ProblemError
from rw_keras.service.served import ServedIndex, State


class Json(Response):
    """An answer in JSON, of plain values. It is ASCII, so that names that are no UTF-8 travel as lone surrogates."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def name_of(path: bytes) -> str:
    """The name of a photo in the percent-encoded part of an address.

    Raises:
        ProblemError: 404 for what no photo is called.
    """
    name = os.fsdecode(unquote_to_bytes(path))
    if not name or "\0" in name:
        raise ProblemError(404, "No photo is called so.")
    return name


def address(name: str, index: str, thumbnail: bool = False) -> str:
    """The address of a photo's file on this service, or of its thumbnail."""
    path = quote(os.fsencode(name), safe="/") + ("/thumbnail" if thumbnail else "")
    return f"/v1/photos/{path}?index={quote(os.fsencode(index), safe='')}"


def photo(served: ServedIndex, name: str) -> dict[str, Any]:
    """What an answer says of a photo: see `rw_keras.service.schemas.Photo`. Reads the head of its file, the first time."""
    size = served.photos.size(name) if served.source is not None else None
    return {
        "name": name,
        "size": None if size is None else list(size),
        "photo": None if size is None else address(name, served.name),
        "thumbnail": None if size is None else address(name, served.name, thumbnail=True),
    }


def metadata(state: State, positions: Sequence[int]) -> list[dict[str, Any]]:
    """Column -> value of photos; a number that JSON has no word for is null."""
    return [
        {column: None if isinstance(value, float) and not _is_finite(value) else value for column, value in found.items()}
        for found in state.index.metadata_of(positions)
    ]


def _is_finite(value):
    return value - value == 0


def about(served: ServedIndex, max_k: int, can_write: bool) -> dict[str, Any]:
    """What an answer says of an index: see `rw_keras.service.schemas.IndexAbout`."""
    state, index = served.state, served.state.index
    rerank = index.default_rerank
    return {
        "name": served.name,
        "photos": state.photos,
        "dimensions": index.dimensions,
        "generation": state.about.get("generation"),
        "recipe": index.recipe,
        "preset": state.about.get("preset"),
        "metadata": state.columns,
        "rerank": None if rerank is None else {"count": rerank.count, "smooth": rerank.smooth},
        "expand": index.search_defaults.get("expand"),
        "has_regions": index.regions is not None,
        "has_photos": served.has_photos,
        "can_write": can_write and served.has_photos,
        "max_k": max_k,
    }


def chosen(indexes: Mapping[str, ServedIndex], name: str | None) -> ServedIndex:
    """The index that is asked for; by default the first.

    Raises:
        ProblemError: 404 where there is none of that name.
    """
    if name is None:
        return next(iter(indexes.values()))
    if name not in indexes:
        raise ProblemError(404, f"There is no index {name[:80]!r} here; there is {listed(indexes)}.")
    return indexes[name]


def listed(names: Iterable[str]) -> str:
    """Names in words."""
    return ", ".join(map(repr, names))
