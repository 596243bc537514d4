"""rw-keras search NAME PHOTO: find the photos of the index NAME that show what PHOTO, a file or a URL, shows, best first.

In an index of CLIP or SigLIP, also words: rw-keras search NAME --text WORDS.
"""

from __future__ import annotations

import json
import os
from argparse import Namespace

from rw_keras import storage
from rw_keras.commands import model_flags, runtime_flags
from rw_keras.commands.evaluation_flags import add_smooth, rerank_of
from rw_keras.commands.models import check_model_flags, describer_of, load_keras_quietly, recipe_of_index, take_files
from rw_keras.commands.parser import Parser, UsageError, number, one_of, or_none, text, whole_number
from rw_keras.commands.programs import DONE
from rw_keras.files import file_to_write, inside, printable, written_whole
from rw_keras.model.recipe import max_side_of


def define(parser: Parser) -> None:
    """Adds the command's flags."""
    words = 'Search with words in place of PHOTO, such as "a red telephone box": in an index of CLIP or SigLIP, method joint.'
    parser.flag("text", words, text("WORDS"))
    parser.flag("box", "The part of PHOTO that is asked for, in its pixels.", text("x1,y1,x2,y2"))
    parser.flag("k", "How many hits.", whole_number(1), 10)
    words = "Put so many of the best photos in order by their regions. Default: as the index was made for, see `rw-keras info`."
    parser.flag("rerank", words, or_none(whole_number(1)))
    add_smooth(parser)
    words = "4: also find what PHOTO shows lying on its side or upside down, in four times the network's time."
    parser.flag("orientations", words, one_of(("1", "4"), "1|4"), "1")
    parser.flag("expand", "Query expansion over so many photos, the query among them; 1: none.", whole_number(1))
    parser.flag("alpha", "Goes with --expand: weigh each photo by its cosine to this power.", number(0), 0.0)
    words = (
        "Only photos whose names begin with this; or a condition on a column, such as city=Oxford or year>=2005. May be repeated."
    )
    parser.flag("within", words, text("TEXT"), [], repeat=True)
    parser.flag("min_score", "Leave out hits with a lower cosine.", number())
    words = "What searches: numpy, faiss-flat, faiss-hnsw, faiss-ivfpq. Default: what the index was saved with."
    parser.flag("searcher", words, text("NAME"), earlier=["engine"])
    parser.switch("json", "Print the hits as JSON.")
    parser.section("Pages of the hits")
    parser.flag("html", "A page to write.", text("FILE"))
    parser.flag("sheet", "A picture to write.", text("FILE"))
    parser.flag("photos", "Where the photos lie. Default: their location at index time.", text("FOLDER"))
    parser.section("The model, where the index does not say it")
    model_flags.add_model(parser)
    model_flags.add_weights(parser)
    parser.section("The computation")
    runtime_flags.add_runtime(parser, earlier=["network_engine"])


def run(values: Namespace) -> int:
    """Runs the command and returns its exit status."""
    check_model_flags(values)
    if values.text is not None:
        return _search_text(values)
    if len(values.arguments) != 2:
        raise UsageError(f"search takes an index and a photo, NAME PHOTO, but got {len(values.arguments)} arguments")
    if "alpha" in values.given and (values.expand or 1) == 1:
        raise UsageError(
            f"--alpha {values.alpha:g} weighs what --expand averages; give --expand a number above 1, or leave --alpha out"
        )
    box = _box(values.box)
    from rw_keras.photos.reading import read_image
    from rw_keras.photos.remote import opened
    from rw_keras.retrieval import Index, columns, places

    name, photo = values.arguments
    about = places.about(name)
    take_files(values, about)
    usual = (about or {}).get("search") or {}
    if "expand" not in values.given and usual.get("expand"):
        values.expand, values.alpha = usual["expand"], usual.get("alpha") or 0.0
    asked = rerank_of(values, usual if (about or {}).get("regions") else {**usual, "rerank": None})
    if values.rerank is not None and about is not None and not about.get("regions"):
        raise ValueError(
            f"{places.shown(name)} keeps no vectors of regions, and you asked for --rerank {values.rerank}; leave it out, or make "
            "the index again with --regions int8 and --force"
        )
    _check_to_write(values)
    index = Index.open(name, searcher=values.searcher)
    recipe = _recipe(places.shown(name), index)
    read_image(opened(photo), box, max_side_of(recipe))  # before seconds are spent on the network
    model = describer_of(recipe, values)
    within = columns.condition(values.within, index.metadata)
    options = {"within": within, "min_score": values.min_score, "alpha": values.alpha, "orientations": int(values.orientations)}
    if values.given & {"rerank", "smooth"}:  # else `search_photo` does as the index was made for
        options["rerank"] = asked
    hits = index.search_photo(model, photo, box, values.k, values.expand, **options)
    # An expansion ranks all photos again, by cosine.
    measure = "cosine" if asked is None or (values.expand or 1) > 1 else "score"
    if values.html or values.sheet:
        _show(name, photo, box, hits, measure, asked, values)
    _print(hits, measure, values)
    return DONE


def _search_text(values):
    """Searches with words; the model is not needed, only its text part."""
    if len(values.arguments) != 1:
        raise UsageError(f"search --text takes an index alone, NAME, but got {len(values.arguments)} arguments")
    of_photos = {"box", "rerank", "smooth", "orientations", "expand", "alpha", "html", "sheet", "photos"}
    others = sorted(values.given & (of_photos | {"model", "weights", "whitening", "runtime", "precision"}))
    if others:
        raise UsageError(f"--{others[0]} goes with a photo, not with --text; leave it out")
    load_keras_quietly()
    from rw_keras.retrieval import Index, columns, places
    from rw_keras.retrieval.photo_searching import text_vector

    (name,) = values.arguments
    index = Index.open(name, searcher=values.searcher)
    recipe = _recipe(places.shown(name), index)
    within = columns.condition(values.within, index.metadata)
    vector = text_vector(recipe, values.text)
    _print(index.search(vector, values.k, within=within, min_score=values.min_score), "cosine", values)
    return DONE


def _recipe(name, index):
    """The recipe of an index; a ValueError where it has none."""
    if index.recipe is None:
        raise ValueError(f"{name} does not say what model made it; search it from Python with Index.search")
    return recipe_of_index(name, index.recipe)


def _print(hits, measure, values):
    if values.json:
        print(json.dumps([{"rank": rank, "name": hit, measure: score} for rank, (hit, score) in enumerate(hits, 1)]))
        return
    print(f"rank  {measure:>6s}  photo")
    for rank, (hit, score) in enumerate(hits, 1):
        print(f"{rank:4d}  {score:6.3f}  {printable(hit)}")


def _box(given):
    if given is None:
        return None
    try:
        box = tuple(float(corner) for corner in given.split(","))
    except ValueError:
        box = ()
    if len(box) != 4:
        raise UsageError(f"--box takes four numbers x1,y1,x2,y2, but got {given!r}")
    return box


def _check_to_write(values):
    """Says so when `--html` or `--sheet` cannot be written: a page is no reason to make a folder."""
    from rw_keras.views.contact_sheet import check_picture

    for flag in ("html", "sheet"):
        path = getattr(values, flag)
        if path:
            file_to_write(path, f"--{flag} {path}")
    if values.sheet:
        check_picture(values.sheet)


def _show(name, photo, box, hits, measure, rerank, values):
    """Writes the pages that `--html` and `--sheet` ask for."""
    from rw_keras.retrieval import places
    from rw_keras.views.result_page import result_page, search_sheet

    folder = values.photos or (places.about(name) or {}).get("source")
    joined = storage.inside if storage.is_url(folder) else inside
    found = [(rank, hit, score, folder and joined(folder, hit)) for rank, (hit, score) in enumerate(hits, 1)]
    if values.html:
        options = {"index": places.shown(name), "k": values.k, "expansion": values.expand or "none"}
        if rerank is not None:
            options["re-ranked"] = rerank
        if values.alpha:
            options["alpha"] = values.alpha
        if values.orientations != "1":
            options["orientations"] = values.orientations
        folder = os.path.dirname(os.path.abspath(values.html))
        page = result_page(photo, box, found, folder=folder, options=options, measure=measure)
        with written_whole(values.html) as file:
            file.write(page.encode("utf8"))
    if values.sheet:
        search_sheet(photo, box, found, measure=measure).save(values.sheet)
