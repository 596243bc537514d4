"""rw-keras merge NAME NAME ... -o NAME: join indices of one recipe into a new one; they stay as they are."""

from __future__ import annotations

from argparse import Namespace

from rw_keras.commands.parser import Parser, UsageError, text
from rw_keras.commands.programs import DONE


def define(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.flag("output", "The index to write: a folder.", text("NAME"), short="o")


def run(values: Namespace) -> int:
    """Runs the command and returns its exit status."""
    if len(values.arguments) < 2:
        raise UsageError(f"merge takes two indices or more, but got {len(values.arguments)} arguments")
    if not values.output:
        raise UsageError("merge needs -o NAME, the index to write")
    from rw_keras.retrieval.exchange import merge

    print(f"{values.output}: {merge(values.arguments, values.output)} photos of {len(values.arguments)} indices")
    return DONE
