"""rw-keras export-vectors NAME FILE: write the descriptors of the index NAME to a file for other tools.

FILE ends in .npy: an array of float32, with the names beside it in a JSON list; or in .parquet:
names, descriptors, metadata.
"""

from __future__ import annotations

from argparse import Namespace

from rw_keras.commands.parser import Parser, UsageError
from rw_keras.commands.programs import DONE


def define(parser: Parser) -> None:
    """It has no flags of its own."""


def run(values: Namespace) -> int:
    """Runs the command and returns its exit status."""
    if len(values.arguments) != 2:
        raise UsageError(f"export-vectors takes an index and a file, NAME FILE, but got {len(values.arguments)} arguments")
    from rw_keras.retrieval.exchange import export_vectors

    name, path = values.arguments
    print(f"{path}: {export_vectors(name, path)} descriptors of {name}")
    return DONE
