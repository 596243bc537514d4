"""The entry point of `rw-keras`: the command line that every command shares."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from rw_keras.commands import (
    check,
    demo,
    duplicates,
    evaluate,
    export,
    export_vectors,
    index,
    info,
    merge,
    networks,
    presets,
    pull,
    push,
    runtimes,
    search,
    serve,
)
from rw_keras.commands.parser import Parser, UsageError
from rw_keras.commands.programs import DONE, USAGE, finish

_USAGE = """rw-keras: find photos of the same thing.

  rw-keras index PHOTOS -o NAME      describe photos into the index NAME, or bring it up to date
  rw-keras search NAME PHOTO         find the photos of the index NAME that show what PHOTO shows
  rw-keras info NAME                 what the index NAME holds, and how it was made
  rw-keras duplicates NAME           photos of the index NAME that are almost the same
  rw-keras evaluate NAME --labels X  how well the index NAME finds what the labels X say is shown
  rw-keras check NAME                compare all of the index NAME with its checksums
  rw-keras merge NAME NAME -o NAME   join indices of one recipe into a new one
  rw-keras export-vectors NAME FILE  write the descriptors of NAME to a .npy or .parquet file
  rw-keras push NAME URL             bring Milvus, or object storage, to what the index NAME holds
  rw-keras pull URL NAME             and back: the index at URL into the new folder NAME
  rw-keras presets                   whole recipes by name: what --preset takes
  rw-keras networks                  the networks that --backbone takes, with sizes and licences
  rw-keras runtimes                  what computes the network, and how fast it is on this machine
  rw-keras export PATH               write a model that serves: SavedModel, ONNX, OpenVINO, LiteRT
  rw-keras serve NAME                search the index NAME in a browser, and over HTTP
  rw-keras demo                      try it on ten photos that need no download

`rw-keras COMMAND --help` lists a command's flags; `rw-keras --version` prints the version.

Exit codes: 0 done; 1 it could not be done, one line says why; 2 the command line is wrong; 3 done,
but photos that could not be read were left out; 130 interrupted; 141 nobody reads the output any
more, as after `| head`.
"""

# Each has `define(parser)`, `run(values)`, and a docstring that is its help.
COMMANDS: dict[str, ModuleType] = {
    "index": index,
    "search": search,
    "info": info,
    "duplicates": duplicates,
    "evaluate": evaluate,
    "check": check,
    "merge": merge,
    "export-vectors": export_vectors,
    "push": push,
    "pull": pull,
    "presets": presets,
    "networks": networks,
    "runtimes": runtimes,
    "export": export,
    "serve": serve,
    "demo": demo,
}
# Names that commands had, which go on working for one release.
_EARLIER = {"engines": "runtimes"}


def main() -> NoReturn:
    """Runs the command of `sys.argv` and exits."""
    arguments = sys.argv[1:]
    words = "an index keeps what was finished, anything else was not written"
    finish("rw-keras", lambda: run(arguments), lambda: _flags(arguments), words)


def run(arguments: Sequence[str]) -> int:
    """Runs the command in `arguments` and returns its exit status.

    Raises:
        UsageError: when the command line is wrong.
    """
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_USAGE, end="")
        return DONE if arguments else USAGE
    if arguments[0] == "--version":
        import importlib.metadata

        print(importlib.metadata.version("rw_keras"))
        return DONE
    command, rest = arguments[0], arguments[1:]
    if command in _EARLIER:
        print(f"`rw-keras {command}` is called `rw-keras {_EARLIER[command]}` now.", file=sys.stderr)
        command = _EARLIER[command]
    if command not in COMMANDS:
        close = difflib.get_close_matches(command, COMMANDS, 1)
        nearest = f"did you mean {close[0]}? The commands are" if close else "choose one of"
        raise UsageError(f"there is no command {command!r}; {nearest} {', '.join(COMMANDS)}")
    parser, commands = _parsers()
    values = parser.parse_args([command, *rest])
    if values.help:
        print(commands[command].format_help(), end="")
        return DONE
    return COMMANDS[command].run(values)


def _parsers():
    """The parser of all commands, and command -> its own."""
    parser = argparse.ArgumentParser("rw-keras", add_help=False, allow_abbrev=False)
    subparsers = parser.add_subparsers(dest="command", prog="rw-keras", parser_class=Parser)
    commands = {}
    for name, module in COMMANDS.items():
        commands[name] = subparsers.add_parser(name, description=module.__doc__)
        module.define(commands[name])
    return parser, commands


def _flags(arguments):
    """The flags of the command in `arguments`."""
    command = _EARLIER.get(arguments[0], arguments[0]) if arguments else None
    return _parsers()[1][command].flags() if command in COMMANDS else {}
