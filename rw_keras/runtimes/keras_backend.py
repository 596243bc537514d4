"""Which backend Keras runs on, also where Keras is not loaded: that takes seconds, and loads the backend."""

from __future__ import annotations

import json
import os
import pathlib
import sys

# The backends that descriptors are computed on. Each is a runtime of the same name.
BACKENDS = ("tensorflow", "jax", "torch")
# The name of the runtime that is the Keras model itself, on whichever backend Keras runs.
KERAS = "keras"


def backend() -> str:
    """The backend that Keras runs on, or would, were it loaded now: `KERAS_BACKEND`, else what `keras.json` says, else TensorFlow.

    Raises:
        ValueError: for a backend that descriptors are not computed on.
    """
    loaded = getattr(sys.modules.get("keras"), "backend", None)
    found = loaded.backend() if hasattr(loaded, "backend") else os.environ.get("KERAS_BACKEND") or _configured()
    if found not in BACKENDS:
        raise ValueError(
            f"Keras runs on {found!r}, and descriptors are computed on {', '.join(BACKENDS)} only; set KERAS_BACKEND to one of "
            "these before Keras is imported."
        )
    return found


def _configured():
    home = pathlib.Path(os.environ.get("KERAS_HOME") or pathlib.Path("~/.keras").expanduser())
    try:
        return json.loads((home / "keras.json").read_text("utf8"))["backend"]
    except (OSError, ValueError, TypeError, KeyError):
        return BACKENDS[0]


def settled_runtime_name(name: str) -> str:
    """The name of a runtime with `"keras"` replaced by the backend's.

    Raises:
        ValueError: for the name of a backend that Keras does not run on.
    """
    if name == KERAS:
        return backend()
    if name in BACKENDS and name != backend():
        raise ValueError(
            f'runtime="{name}" is Keras on {name}, but it runs on {backend()}; set KERAS_BACKEND={name} before Keras is imported, '
            f'or take runtime="{KERAS}", the backend that it runs on.'
        )
    return name
