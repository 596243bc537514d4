"""rw-keras duplicates NAME: photos of the index NAME that are almost the same, the most alike first."""

from __future__ import annotations

import json
import sys
from argparse import Namespace

from rw_keras.commands.parser import Parser, UsageError, number
from rw_keras.commands.programs import DONE
from rw_keras.files import printable


def define(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.flag("threshold", "The lowest cosine of two photos that are almost the same.", number(0, 1), 0.95)
    parser.switch("groups", "Print groups in place of pairs.")
    parser.switch("json", "Print them as JSON.")


def run(values: Namespace) -> int:
    """Runs the command and returns its exit status."""
    if len(values.arguments) != 1:
        raise UsageError(f"duplicates takes one index, NAME, but got {len(values.arguments)} arguments")
    from rw_keras.retrieval import Index
    from rw_keras.retrieval.places import shown

    (name,) = values.arguments
    found = Index.open(name).near_duplicates(values.threshold, groups=values.groups)
    if values.json:
        pairs = found if values.groups else [{"photos": [one, other], "cosine": score} for one, other, score in found]
        print(json.dumps(pairs))
        return DONE
    count = 0
    for count, one in enumerate(found, 1):
        if values.groups:
            print(("\n" if count > 1 else "") + "\n".join(map(printable, one)))
        else:
            print(f"{one[2]:6.3f}  {printable(one[0])}  {printable(one[1])}")
    if not count:
        print(f"{shown(name)}: no two photos have a cosine of {values.threshold:g} or more", file=sys.stderr)
    return DONE
