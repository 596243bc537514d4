"""rw-keras demo: index ten photos that need no download, search harder views of them, and draw the result."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from typing import Any

from rw_keras.commands.models import load_keras_quietly
from rw_keras.commands.parser import Parser, one_of, text
from rw_keras.commands.programs import DONE, refuse_arguments
from rw_keras.model.presets import PRESETS

# The embedded photos are small; at this size the demo takes a minute or so on two old cores.
_MAX_SIDE = 384


def define(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.flag("output", "The picture to write.", text("FILE"), "rw_keras_demo.png", short="o")
    words = "What is shown beside the plain sum. Default: rw with shrinkage 0.2."
    parser.flag("preset", words, one_of(PRESETS))
    parser.switch("json", "Print the figures as JSON.")


def run(values: Namespace) -> int:
    """Runs the command and returns its exit status."""
    refuse_arguments("demo", values)
    result = demo(values.output, values.preset)
    print(json.dumps(result) if values.json else _table(result))
    return DONE


def _table(result):
    lines = [
        f"{result['photos']} photos, {result['queries']} queries: halves, perspectives, rotated, blurred, compressed, dimmed views",
        "",
        "                              mAP   first hit right",
    ]
    lines += [f"{name:28s}{m['map']:6.3f}   {m['right']} of {result['queries']}" for name, m in result["measured"].items()]
    lines += [
        "",
        "A smoke test: ten photos are told apart by nearly anything. rw is whitened with shrinkage 0.2;"
        if "rw" in result["measured"]
        else "A smoke test: ten photos are told apart by nearly anything;",
        "expansion (QE) averages the query with its first hit.",
        f"picture: {result['picture']}",
    ]
    return "\n".join(lines)


def demo(picture: str | os.PathLike[str], preset: str | None = None) -> dict[str, Any]:
    """Indexes the embedded photos, searches with harder views of them, and writes a contact sheet to `picture`.

    Args:
        picture: the file to write.
        preset: what describes the photos, beside the plain sum. Default: "rw" with shrinkage 0.2.

    Returns:
        Counts, and for each method the mAP and how many first hits are right, as plain values.

    Raises:
        ValueError: for a picture's name that has no ending of a picture.
        OSError: when its folder is not there, or it cannot be written.
    """
    from rw_keras.views.contact_sheet import Hit, Row, check_picture, contact_sheet

    check_picture(picture)
    load_keras_quietly()
    from rw_keras.model.build import build_descriptor
    from rw_keras.photos import embedded
    from rw_keras.retrieval import Index, mean_average_precision

    photos, queries = embedded.load()
    truth = {name: (query.positives, ()) for name, query in queries.items()}
    measured, rankings = {}, {}
    # The shipped whitening was learned from few photos, and says that this shrinkage serves it best.
    shown = build_descriptor(preset=preset) if preset else build_descriptor(method="rw", shrinkage=0.2)
    best = preset or "rw"
    for name, model, expansions in (
        (best, shown, {best: None, f"{best} + QE": 2}),
        ("plain sum", build_descriptor(method="sum", whitening=None), {"plain sum (baseline)": None}),
    ):
        index = Index(photos, _describe(model, photos.values(), None, f"{name}: photos"))
        views, boxes = [query.photo for query in queries.values()], [query.box for query in queries.values()]
        vectors = dict(zip(queries, _describe(model, views, boxes, f"{name}: queries")))
        for words, expand in expansions.items():
            rankings[words] = {query: index.search(vector, len(index), expand) for query, vector in vectors.items()}
            ranked = {query: [hit for hit, _ in hits] for query, hits in rankings[words].items()}
            right = sum(hits[0] in queries[query].positives for query, hits in ranked.items())
            measured[words] = {"map": mean_average_precision(ranked, truth), "right": right}
    telling = _most_telling(rankings[best], queries)
    rows = [
        Row(
            queries[name].photo,
            name,
            queries[name].box,
            [Hit(photos[hit], hit, score, hit in queries[name].positives) for hit, score in rankings[best][name][:4]],
        )
        for name in telling
    ]
    contact_sheet(rows, f"{best}: harder views of ten photos, and what they find").save(picture)
    return {"photos": len(photos), "queries": len(queries), "measured": measured, "picture": str(picture)}


def _describe(model, images, boxes, words):
    import numpy as np

    from rw_keras.description.describe import describe_each

    described = describe_each(model, list(images), boxes, max_side=_MAX_SIDE, progress=words)
    return np.stack([vector[0] for _, vector, _ in described])


def _most_telling(rankings, queries):
    """One query a kind of view: the one whose lead over the next photo is smallest."""
    hardest = {}
    for name in queries:
        kind = name.rpartition(", ")[2]
        lead = rankings[name][0][1] - rankings[name][1][1]
        if kind not in hardest or lead < hardest[kind][0]:
            hardest[kind] = (lead, name)
    return [name for _, name in hardest.values()]
