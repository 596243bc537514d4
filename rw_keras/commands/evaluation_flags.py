"""Flags of the programs that evaluate."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from rw_keras.commands import model_flags
from rw_keras.commands.parser import Parser, UsageError, one_of, or_none, text, whole_number

# Those of `rw_keras.evaluation.protocol`, whose import takes long.
MISSING = ("refuse", "drop_queries", "allow")


def add_evaluation(parser: Parser, qe: Sequence[int]) -> None:
    """All that an evaluation of one model takes.

    Args:
        parser: the program's.
        qe: the query expansions that it measures by default.
    """
    add_photos_and_truth(parser)
    parser.flag("qe", "Query expansion over so many vectors, the query among them; 1 is none.", whole_number(1), qe, repeat=True)
    words = "Put so many of the first photos in the order of their regions, before an expansion. Default: the preset's."
    parser.flag("rerank", words, or_none(whole_number(1)))
    add_smooth(parser)
    add_missing(parser)
    add_cache(parser, "descriptors")
    parser.switch("per_query", "Print every query's average precision.")
    parser.section("The model")
    model_flags.add_preset(parser, "paper's parts")
    parser.flag("weights", "The network's weights: `imagenet` or a file.", text("FILE"), "imagenet")
    parser.flag("layer", "The layer to cut the network at. Default: the network's own.", text("NAME"))
    words = (
        "What the whitening is learned on, another set than the one tested: a folder of photos, or a file of "
        "rw_keras.save_whitening; `auto`: the one that ships with the package; `none`: no whitening."
    )
    parser.flag("whitening", words, text("PATH"), "auto")
    model_flags.add_parts(parser)
    model_flags.add_max_side(parser, None)


def add_smooth(parser: Parser) -> None:
    """The flag `--smooth`, which goes with `--rerank`."""
    words = "Average the scores of re-ranked photos over so many neighbours: 9, or none. Default: the same."
    parser.flag("smooth", words, or_none(whole_number(1)))


def rerank_of(values: Namespace, usual: Mapping[str, Any]) -> Any:
    """The `Rerank` that `--rerank` and `--smooth` ask for; where they are not given, that of `usual`, an index's or a preset's."""
    from rw_keras.retrieval.rerank import Rerank

    given = {flag: getattr(values, flag) for flag in ("rerank", "smooth") if flag in values.given}
    found = Rerank.of_defaults({**usual, **given})
    if given.get("smooth") and found is None:
        raise UsageError(
            f"--smooth {given['smooth']} averages the scores of re-ranked photos; give --rerank a number, or leave --smooth out"
        )
    return found


def add_photos_and_truth(parser: Parser) -> None:
    """The flags `--photos` and `--ground_truth`."""
    parser.flag("photos", "Folder of the photos, and those below it.", text("FOLDER"), required=True)
    words = "Folder of the *_query.txt, *_good.txt, *_ok.txt, *_junk.txt."
    parser.flag("ground_truth", words, text("FOLDER"), required=True)


def add_missing(parser: Parser) -> None:
    """The flag `--missing`, before: `--allow_missing` and `--drop_incomplete`."""
    words = (
        "Where photos of the ground truth are not there: refuse; drop_queries: leave out the queries that have any of them; allow: "
        "leave out the photos alone."
    )
    earlier = {"allow_missing": "allow", "drop_incomplete": "drop_queries"}
    parser.flag("missing", words, one_of(MISSING, "WHAT"), "refuse", earlier=earlier)


def add_cache(parser: Parser, kept: str) -> None:
    """The flag `--cache`, of a program that keeps such things between runs."""
    words = f"Folder that keeps {kept} between runs; empty: nothing is kept."
    parser.flag("cache", words, text("FOLDER"), ".rw_keras_cache")
