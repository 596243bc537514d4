"""rw-keras export PATH: write a model that serves.

PATH: a version folder, such as serving/rw_vgg16/1, or a file.
"""

from __future__ import annotations

import os
from argparse import Namespace

from rw_keras.commands import model_flags
from rw_keras.commands.models import check_model_flags, new_model
from rw_keras.commands.parser import Parser, UsageError, one_of
from rw_keras.commands.programs import DONE
from rw_keras.files import checked_path
from rw_keras.model.presets import default_max_side

# Format -> the function of `rw_keras.export` that writes it, and the flags that go with it.
_FORMATS = {
    "saved_model": ("export_saved_model", ("max_side", "dtype", "batching")),
    "onnx": ("export_onnx", ()),
    "openvino": ("export_openvino", ("int8",)),
    "litert": ("export_litert", ("int8",)),
}


def define(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.flag("format", "What to write: saved_model, onnx, openvino or litert.", one_of(_FORMATS), "saved_model")
    words = "What a SavedModel keeps its weights as: float32, float16 or bfloat16."
    parser.flag("dtype", words, one_of(("float32", "float16", "bfloat16")), "float32")
    parser.switch("int8", "Keep the weights of OpenVINO or LiteRT in 8 bits.")
    parser.switch("batching", "Write TF Serving's batching parameters into the SavedModel.")
    model_flags.add_new_model(parser)


def run(values: Namespace) -> int:
    """Runs the command and returns its exit status."""
    check_model_flags(values)
    if len(values.arguments) != 1:
        raise UsageError(f"export takes one PATH, but got {len(values.arguments)} arguments")
    (path,) = values.arguments
    name, takes = _FORMATS[values.format]
    given = {flag: getattr(values, flag) for flag in ("max_side", "dtype", "int8", "batching") if flag in values.given}
    superfluous = [flag for flag in given if flag not in takes]
    if superfluous:
        raise UsageError(f"--{superfluous[0]} does not go with --format {values.format}")
    if os.path.exists(checked_path(path)):
        raise FileExistsError(f"{path} exists already; choose another name, or the next version's folder")
    model = new_model(values)
    if "max_side" in takes:
        given.setdefault("max_side", default_max_side(model))
    from rw_keras import export

    getattr(export, name)(model, path, **given)
    print(f"{path}: {model.name}, {model.output_shape[-1]} dimensions")
    return DONE
