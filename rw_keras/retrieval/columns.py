"""Columns of metadata: from a CSV file into an index, and conditions on them in words."""

from __future__ import annotations

import csv
import os
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from rw_keras.retrieval import places
from rw_keras.retrieval.conditions import SYMBOLS, AllOf, Comparison, typed

# The column of names; without one of these titles the first column is.
_NAME_TITLES = ("name", "photo", "file", "path")


def read_columns(path: str | os.PathLike[str], names: Collection[str] | None = None) -> dict[str, dict[str, Any]]:
    """Reads the metadata of photos from a CSV file whose first line has the titles.

    A column titled "name", "photo", "file" or "path" has the names, else the first one. Values that are whole or decimal numbers in
    all of a column are numbers; empty ones are `None`.

    Args:
        path: the file, in UTF-8.
        names: the names that photos have; a file that names none of them is refused. Optional.

    Returns:
        Column -> name -> value.

    Raises:
        ValueError: when the file holds no such table, names a photo twice, or names none of `names`.
        OSError: when it cannot be read.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            lines = [line for line in csv.reader(file) if line]
    except csv.Error as error:
        raise ValueError(f"{path} cannot be read as CSV: {error}.") from error
    if len(lines) < 2 or len(lines[0]) < 2 or len(set(lines[0])) < len(lines[0]):
        raise ValueError(f"{path} is no table; the first line has different titles, one of them of the names, and others follow.")
    titles, rows = lines[0], lines[1:]
    place = next((titles.index(title) for title in _NAME_TITLES if title in titles), 0)
    for number, row in enumerate(rows, 2):
        if len(row) != len(titles):
            raise ValueError(f"Row {number} of {path} has {len(row)} values for {len(titles)} titles; give one for each.")
    named = [row[place] for row in rows]
    if len(set(named)) < len(named):
        twice = next(name for name in named if named.count(name) > 1)
        raise ValueError(f"{path} names {twice!r} twice; give each photo one row.")
    if names is not None and not any(name in names for name in named):
        raise ValueError(
            f"{path} names none of the photos; its {titles[place]!r} is {named[0]!r}, a photo's name {next(iter(names))!r}."
        )
    return {title: dict(zip(named, typed([row[column] for row in rows]))) for column, title in enumerate(titles) if column != place}


def add_columns(folder: places.Place, columns: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes columns into an index: a column that is there gets the values that are given, and keeps its others.

    Args:
        folder: the index, or its address.
        columns: column -> name -> value.

    Raises:
        ValueError: when another process writes the index.
    """
    found = places.about(folder)
    with places.writer(folder, found["recipe"], found["dimensions"]) as writer:
        writer.update_metadata(columns)
        writer.finish()


def condition(texts: Iterable[str], columns: Collection[str]) -> Any:
    """What `Index.search` takes as `within`, of words: what names begin with, or conditions such as `city=Oxford` and `year>=2005`.

    Args:
        texts: the words; all of them must hold.
        columns: those of the index's metadata. A text before whose operator no title stands is what names begin with.

    Raises:
        ValueError: for several texts of which one is no condition, or a comparison of words with a number.
    """
    texts = list(texts)
    if not texts:
        return None
    parsed = [_parsed(text, columns) for text in texts]
    if len(texts) == 1 and parsed[0] is None:
        return texts[0]
    conditions: dict[str, list[Comparison]] = {}
    for text, found in zip(texts, parsed):
        if found is None:
            titles = ", ".join(columns) or "none"
            raise ValueError(f"{text!r} is no condition on a column such as city=Oxford; the index's columns are: {titles}")
        conditions.setdefault(found[0], []).append(found[1])
    return {title: AllOf(tuple(parts)) for title, parts in conditions.items()}


def _parsed(text, columns):
    """(column, comparison) of a condition, `None` where it is none."""
    places = [(text.find(symbol), -len(symbol), symbol) for symbol in SYMBOLS if symbol in text]
    if not places:
        return None
    place, _, symbol = min(places)
    title, wanted = text[:place].strip(), text[place + len(symbol) :].strip()
    return (title, Comparison(symbol, wanted)) if title in columns else None
