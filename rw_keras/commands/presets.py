"""rw-keras presets: what --preset takes, and what each makes."""

from __future__ import annotations

import json
import textwrap
from argparse import Namespace

from rw_keras.commands.parser import Parser
from rw_keras.commands.programs import DONE, refuse_arguments
from rw_keras.model.presets import PRESETS

_WIDTH, _NAMES = 100, 14


def define(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.switch("json", "Print the presets as JSON, all that is in them.")


def run(values: Namespace) -> int:
    """Runs the command and returns its exit status."""
    refuse_arguments("presets", values)
    if values.json:
        print(json.dumps([preset.to_dict() for preset in PRESETS.values()]))
        return DONE
    for name, preset in PRESETS.items():
        for number, line in enumerate(textwrap.wrap(preset.words, _WIDTH - _NAMES)):
            print(f"{name if not number else '':{_NAMES}s}{line}")
    return DONE
