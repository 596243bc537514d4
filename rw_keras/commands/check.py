"""rw-keras check NAME: read all of the index NAME and compare it with its checksums.

Exit codes: 0 it is as it was written; 1 it is damaged, with the files and the photos that are
concerned.
"""

from __future__ import annotations

import dataclasses
import json
from argparse import Namespace

from rw_keras.commands.parser import Parser, UsageError
from rw_keras.commands.programs import DONE, FAILED
from rw_keras.files import printable


def define(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.switch("json", "Print what was found as JSON.")


def run(values: Namespace) -> int:
    """Runs the command and returns its exit status."""
    if len(values.arguments) != 1:
        raise UsageError(f"check takes one index, NAME, but got {len(values.arguments)} arguments")
    from rw_keras.retrieval import places

    (name,) = values.arguments
    found, name = places.check(name), places.shown(name)
    if values.json:
        print(json.dumps([dataclasses.asdict(damage) for damage in found]))
    elif not found:
        print(f"{name}: no damage found")
    for damage in () if values.json else found:
        print(f"{name}: {damage.file}: {printable(damage.what)}")
        for photo in damage.photos:
            print(f"  {printable(photo)}")
    return FAILED if found else DONE
