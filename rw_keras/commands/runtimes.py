"""rw-keras runtimes: what can compute the network on this machine, how fast, how exactly.

It says what --runtime auto takes, and why.
"""

from __future__ import annotations

import dataclasses
import json
from argparse import Namespace

from rw_keras.commands import model_flags, runtime_flags
from rw_keras.commands.models import check_model_flags, new_model
from rw_keras.commands.parser import Parser
from rw_keras.commands.programs import DONE, refuse_arguments
from rw_keras.model.presets import default_max_side


def define(parser: Parser) -> None:
    """Adds the command's flags."""
    runtime_flags.add_precision(parser)
    parser.switch("force", "Measure again.", earlier=["anew"])
    parser.switch("json", "Print the table as JSON.")
    model_flags.add_new_model(parser)


def run(values: Namespace) -> int:
    """Runs the command and returns its exit status."""
    check_model_flags(values)
    refuse_arguments("runtimes", values)
    model = new_model(values)
    from rw_keras import runtimes
    from rw_keras.model.recipe import smallest_side

    max_side = values.max_side or default_max_side(model)
    size = runtimes.usual_size(max_side, smallest_side(model))
    choice = runtimes.choose(model, values.precision, size, anew=values.force)
    print(json.dumps(dataclasses.asdict(choice)) if values.json else choice)
    return DONE
