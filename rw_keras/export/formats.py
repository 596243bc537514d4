"""Exports by the names that Keras has for them."""

from __future__ import annotations

import inspect
import os
from typing import Any

import keras

from rw_keras.export.converted import export_litert, export_onnx, export_openvino
from rw_keras.export.saved_model import export_saved_model

# As `keras.Model.export` calls them.
FORMATS = {
    "tf_saved_model": export_saved_model,
    "onnx": export_onnx,
    "openvino": export_openvino,
    "litert": export_litert,
}


def export_model(
    model: keras.Model,
    path: str | os.PathLike[str],
    format: str = "tf_saved_model",
    verbose: bool | None = None,
    input_signature: Any = None,
    **options: Any,
) -> None:
    """`DescriptorModel.export`."""
    if format not in FORMATS:
        raise ValueError(f"A descriptor model is exported as one of {', '.join(FORMATS)}, but got format={format!r}.")
    export = FORMATS[format]
    if input_signature is not None:
        raise ValueError(
            f"What an exported descriptor model takes is settled, see rw_keras.{export.__name__}; leave input_signature out, or "
            "build a keras.Model of your own around the model, and export that."
        )
    known = [name for name, one in inspect.signature(export).parameters.items() if one.kind is one.KEYWORD_ONLY]
    unknown = [name for name in options if name not in known]
    if unknown:
        words = f"takes {', '.join(known)}" if known else "takes no options"
        raise ValueError(f"format={format!r} {words}, but got {unknown[0]}={options[unknown[0]]!r}.")
    export(model, path, **options)
    if verbose:
        print(f"{model.name} was written to {os.fspath(path)} as {format}.")
