"""rw-keras networks [PATTERN]: the networks that --backbone takes, such as those like "resnet*", with what is known of each."""

from __future__ import annotations

import json
from argparse import Namespace

from rw_keras.commands.models import load_keras_quietly
from rw_keras.commands.parser import Parser, UsageError
from rw_keras.commands.programs import DONE


def define(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.switch("json", "Print the table as JSON.")


def run(values: Namespace) -> int:
    """Runs the command and returns its exit status."""
    if len(values.arguments) > 1:
        raise UsageError(f"networks takes one PATTERN, but got {len(values.arguments)} arguments")
    load_keras_quietly()
    from rw_keras import backbones

    found = backbones.list(*values.arguments)
    print(json.dumps([network.to_dict() for network in found]) if values.json else found)
    return DONE
