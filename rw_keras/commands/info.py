"""rw-keras info NAME: what the index NAME holds, and how it was made."""

from __future__ import annotations

import json
import textwrap
from argparse import Namespace

from rw_keras.commands.models import recipe_of_index
from rw_keras.commands.parser import Parser, UsageError
from rw_keras.commands.programs import DONE
from rw_keras.files import printable
from rw_keras.model.recipe import provenance_in_words

_WIDTH, _TITLES = 100, 16


def define(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.switch("json", "Print it as JSON.")


def run(values: Namespace) -> int:
    """Runs the command and returns its exit status."""
    if len(values.arguments) != 1:
        raise UsageError(f"info takes one index, NAME, but got {len(values.arguments)} arguments")
    from rw_keras.retrieval import places

    (name,) = values.arguments
    found, name = places.summary(name), places.shown(name)
    recipe_of_index(name, found.about.get("recipe"))
    try:
        print(json.dumps(_plain(name, found)) if values.json else "\n".join(_lines(name, found)))
    except (AttributeError, KeyError, TypeError) as error:  # fields of other kinds than are written
        raise ValueError(f"{name} is damaged: {error}; make it again with `rw-keras index`.") from error
    return DONE


def _plain(name, found):
    about = found.about
    fields = ("format", "dimensions", "dtype", "preset", "recipe", "regions", "search", "described_with", "versions")
    counts = {field: getattr(found, field) for field in ("photos", "left_out", "unread", "added_by_hand", "excluded")}
    rest = {field: about.get(field) for field in (*fields, "source", "settings", "searcher")}
    return {"index": name, **counts, **rest, "metadata": found.metadata, "bytes": found.bytes}


def _lines(name, found):
    yield printable(name)
    for title, words in _rows(found):
        wrapped = textwrap.wrap(printable(words), _WIDTH - _TITLES, break_long_words=False, break_on_hyphens=False) or [""]
        yield from (f"  {title if not number else '':{_TITLES - 2}s}{line}" for number, line in enumerate(wrapped))


def _rows(found):
    """(title, words) of all that is known."""
    about = found.about
    yield "photos", f"{found.photos:,}"
    if found.left_out:
        yield "left out", f"{found.left_out:,}, which cannot be read"
    if found.unread:
        yield "unread", f"{found.unread:,} of the photos, which could not be read the last time; their descriptors were kept"
    if found.added_by_hand:
        yield "added by hand", f"{found.added_by_hand:,} of the photos, which are not from the source"
    if found.excluded:
        yield "excluded", f"{found.excluded:,} names, which updates leave out; `rw-keras index --take_back NAME` takes one back"
    yield "descriptors", f"{about['dimensions']:,} dimensions, {about['dtype']}"
    yield "regions", _regions_in_words(about.get("regions"))
    if about.get("preset"):
        yield "preset", about["preset"]
    yield from _recipe_rows(about.get("recipe"))
    if about.get("search"):
        yield "searched", _search_in_words(about["search"])
    for made in about.get("described_with") or ():
        yield "described by", f"{made.get('runtime')} in {made.get('computes_in', 'float32')}, precision {made.get('precision')}"
    if about.get("versions"):
        yield "versions", ", ".join(f"{package} {version}" for package, version in about["versions"].items())
    if about.get("source"):
        yield "source", about["source"]
    yield from (about.get("settings") or {}).items()
    if found.metadata:
        yield "metadata", ", ".join(f"{column} (of {count:,} photos)" for column, count in found.metadata.items())
    searcher = about.get("searcher") or {}
    if searcher.get("name"):
        given = "".join(f", {name} {value}" for name, value in (searcher.get("parameters") or {}).items())
        yield "searcher", f"{searcher['name']}{given}"
    if about.get("kept_by"):
        yield "kept by", about["kept_by"]
        return
    yield "on disk", ", ".join(f"{kind} {_size(size)}" for kind, size in found.bytes.items() if size) or "nothing"
    yield "format", f"{about['format']}"


def _regions_in_words(regions):
    return f"vectors of {regions['dimensions']:,} dimensions, {regions['dtype']}" if regions else "none are kept"


def _search_in_words(search):
    rerank, expand = search.get("rerank"), search.get("expand")
    smoothed = f", smoothed over {search['smooth']} neighbours" if search.get("smooth") else ""
    alpha = f", alpha {search['alpha']:g}" if expand and search.get("alpha") else ""
    return "; ".join(
        [
            f"the best {rerank:,} in order by their regions{smoothed}" if rerank else "without re-ranking",
            f"expanded over {expand} photos{alpha}" if expand else "without expansion",
        ]
    )


def _recipe_rows(recipe):
    if not recipe:
        yield "recipe", "not known"
        return
    yield "network", f"{recipe.get('backbone')}, layer {recipe.get('layer')}"
    yield "method", f"{recipe.get('method')}" + (f", levels {recipe['levels']}" if recipe.get("levels") else "")
    yield from _whitening_rows(recipe)
    yield "scales", ", ".join(map(_short, recipe["scales"])) if recipe.get("scales") else "1"
    yield "max_side", f"{recipe['max_side']} pixels" if recipe.get("max_side") else "photos at their own size"


def _whitening_rows(recipe):
    learned = recipe.get("whitening")
    if not learned:
        yield "whitening", "none"
        return
    of = "global vectors" if recipe.get("whiten") == "global" else "regions"
    components = f"{learned['components']} components, " if learned.get("components") else ""
    yield "whitening", f"of {of}, {components}shrinkage {_short(learned.get('shrinkage', 0.0))}"
    yield "  learned on", provenance_in_words(learned)


def _short(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _size(count):
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if count >= 10 or unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return None
