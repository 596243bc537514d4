"""rw-keras evaluate NAME --labels LABELS: how well the index NAME finds photos of the same thing, by labels of your own. With
several NAMEs each is compared with the first, so that you can choose between presets.

LABELS is one of

  folders      each photo's folder is what it shows: every photo is asked for the others there
  FILE.csv     a table with the titles query and positives, and perhaps junk and box: names of
               photos, with | between several
  FOLDER       *_query.txt, *_good.txt, *_ok.txt, *_junk.txt, as those of Oxford5k

mAP is the mean average precision; mP@k the precision among the first k, or up to the last right photo; recall@k the share of the
right photos among the first k. Intervals are of 95 %, over the things that are shown.
"""

from __future__ import annotations

import json
import math
from argparse import Namespace
from collections.abc import Iterator

from rw_keras.commands import model_flags, runtime_flags
from rw_keras.commands.evaluation_flags import add_missing, add_smooth, rerank_of
from rw_keras.commands.models import check_model_flags, describer_of, recipe_of_index, take_files
from rw_keras.commands.parser import Parser, UsageError, number, or_none, text, whole_number
from rw_keras.commands.programs import DONE
from rw_keras.files import printable


def define(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.flag("labels", "What the photos show: folders, a CSV file, or a folder of ground truth.", text("LABELS"), required=True)
    parser.flag("k", "Ranks to take precision and recall at.", whole_number(1), (1, 5, 10), repeat=True)
    default = "Default: as the index is searched."
    parser.flag("rerank", f"Put so many of the first photos in the order of their regions. {default}", or_none(whole_number(1)))
    add_smooth(parser)
    parser.flag("expand", f"Query expansion over so many photos, the query among them; 1: none. {default}", whole_number(1))
    parser.flag("alpha", f"Goes with --expand: weigh each photo by its cosine to this power. {default}", number(0))
    parser.flag("queries", "Ask so many of the queries, evenly spread. Default: all.", whole_number(1))
    add_missing(parser)
    parser.flag("photos", "Where the photos of queries with a box lie. Default: their location at index time.", text("FOLDER"))
    parser.switch("per_query", "Print every query's scores.")
    parser.switch("json", "Print all as JSON.")
    parser.section("The model, where the index does not say it")
    model_flags.add_model(parser)
    model_flags.add_weights(parser)
    parser.section("The computation")
    runtime_flags.add_runtime(parser, earlier=[])


def run(values: Namespace) -> int:
    """Runs the command and returns its exit status."""
    check_model_flags(values)
    if not values.arguments:
        raise UsageError("evaluate takes an index, NAME, or several, but got 0 arguments")
    from rw_keras.evaluation.index_evaluation import evaluate_index

    opened = {name: _open(name, values) for name in values.arguments}
    _check_same_queries({name: labels for name, (_, labels, _) in opened.items()})
    found = {}
    for name, (index, labels, searched) in opened.items():
        model = _model(name, index, Namespace(**vars(values))) if labels.to_describe else None
        found[name] = evaluate_index(index, labels, k=dict.fromkeys(values.k), model=model, **searched)
    if values.json:
        print(json.dumps([_as_json(name, found, opened[name][1], values) for name in found]))
    else:
        print("\n\n".join("\n".join(_table(name, found, opened[name][1], values)) for name in found))
    return DONE


def _open(name, values):
    """An index, its labels, and how it is to be searched: all that can be refused before it is."""
    from rw_keras.evaluation.labels import read_labels
    from rw_keras.retrieval import Index, places

    places.check_folder(name, "evaluate")
    index = Index.load(name, "numpy")
    searched = _searched(index, values)
    photos = values.photos or (places.about(name) or {}).get("source")
    labels = read_labels(values.labels, index, photos=photos, missing=values.missing)
    return index, labels if values.queries is None else labels.some(values.queries), searched


def _searched(index, values):
    """How an index is searched: as the flags say, else as its own defaults."""
    usual = dict(index.search_defaults)
    if index.regions is None:
        usual["rerank"] = None
    rerank = rerank_of(values, usual)
    if rerank is not None:
        index.check_rerank(rerank)
    given = {flag: getattr(values, flag) for flag in ("expand", "alpha") if flag in values.given}
    found = {"expand": None, "alpha": 0.0, **usual, **given}
    expanded = (found["expand"] or 1) > 1
    if given.get("alpha") and not expanded:
        raise UsageError(
            f"--alpha {given['alpha']:g} weighs what --expand averages; give --expand a number above 1, or leave --alpha out"
        )
    return {
        "rerank": rerank,
        "expand": found["expand"] if expanded else None,
        "alpha": float(found["alpha"] or 0.0) if expanded else 0.0,
    }


def _model(name, index, values):
    from rw_keras.retrieval import places

    if index.recipe is None:
        raise ValueError(f"{name} does not say what model made it, so queries with a box, or of other photos, cannot be described")
    take_files(values, places.about(name))
    return describer_of(recipe_of_index(name, index.recipe), values)


def _check_same_queries(labels):
    """Refuses indices that are asked different queries: their difference would be of another set."""
    first, *others = labels
    for name in others:
        apart = labels[first].queries.keys() ^ labels[name].queries.keys()
        if apart:
            raise ValueError(
                f"{len(apart)} queries are asked of {first} or of {name} alone, {min(apart)!r} first; compare indices of the same "
                "photos"
            )


def _table(name, found, labels, values) -> Iterator[str]:
    measured = found[name]
    queries, landmarks = len(measured.landmarks), len(set(measured.landmarks.values()))
    yield f"{printable(name)}: {measured.photos} photos, {queries} queries of {landmarks} landmarks"
    yield _in_words(measured.searched)
    if labels.absent:
        yield f"{labels.absent} photos that the labels name are not there, and {len(labels.skipped)} queries are left out"
    yield ""
    yield f"{'':10s}  {'mean':>6s}  " + ("95 % interval" if landmarks > 1 else "(no interval: one landmark)")
    first = next(iter(found))
    for measure in measured.scores:
        here = measured.interval(measure)
        line = f"{measure:10s}  {here.mean:6.4f}  " + (f"{here.low:.3f} to {here.high:.3f}" if landmarks > 1 else "")
        if name != first and landmarks > 1:
            line += f"   over {printable(first)}: {measured.difference(found[first], measure)}"
        yield line.rstrip()
    if values.per_query:
        yield ""
        yield "  ".join([*(f"{measure:>9s}" for measure in measured.scores), "query"])
        for query in measured.landmarks:
            yield "  ".join([*(f"{scores[query]:9.4f}" for scores in measured.scores.values()), printable(query)])


def _in_words(searched):
    parts = [f"re-ranked {searched['rerank']}" if searched["rerank"] else "not re-ranked"]
    if searched["smooth"]:
        parts.append(f"smoothed over {searched['smooth']}")
    parts.append(f"expanded over {searched['expand']}" if searched["expand"] else "not expanded")
    if searched["alpha"]:
        parts.append(f"alpha {searched['alpha']:g}")
    return ", ".join(parts)


def _as_json(name, found, labels, values):
    measured, first = found[name], next(iter(found))
    measures = {}
    for measure in measured.scores:
        measures[measure] = _ends(measured.interval(measure))
        if name != first and len(set(measured.landmarks.values())) > 1:
            difference = measured.difference(found[first], measure)
            measures[measure]["difference"] = {**_ends(difference), "significant": difference.significant}
    about = {
        "index": name,
        "photos": measured.photos,
        "queries": len(measured.landmarks),
        "landmarks": len(set(measured.landmarks.values())),
        "left_out": list(labels.skipped),
        **measured.searched,
        "measures": measures,
    }
    return {**about, "per_query": measured.scores} if values.per_query else about


def _ends(interval):
    """A mean and the ends of its interval, which are `null` where there is none."""
    return {key: None if math.isnan(value := getattr(interval, key)) else value for key in ("mean", "low", "high")}
