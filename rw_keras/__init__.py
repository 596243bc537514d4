"""rw_keras: Keras layers that turn any photo into one global descriptor for instance retrieval.

Everything here is loaded when it is first used: `import rw_keras`, and `rw_keras.retrieval`, load no TensorFlow. Where Keras is
loaded already, the layers are registered at once, so that `keras.saving.load_model` finds them.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rw_keras import backbones, datasets, engines, explain, images, layers, methods, plot, retrieval
    from rw_keras.descriptor import build_descriptor, load_model, multi_scale
    from rw_keras.export import export_litert, export_onnx, export_openvino, export_saved_model
    from rw_keras.extraction import describe, extract
    from rw_keras.whitening import fit_whitening, save_whitening

__version__ = "0.1.0"

_HOMES = {
    "build_descriptor": "descriptor",
    "describe": "extraction",
    "export_litert": "export",
    "export_onnx": "export",
    "export_openvino": "export",
    "export_saved_model": "export",
    "extract": "extraction",
    "fit_whitening": "whitening",
    "load_model": "descriptor",
    "multi_scale": "descriptor",
    "save_whitening": "whitening",
}  # where each function lives; the other public names are modules
__all__ = [
    "backbones",
    "build_descriptor",
    "datasets",
    "describe",
    "engines",
    "explain",
    "export_litert",
    "export_onnx",
    "export_openvino",
    "export_saved_model",
    "extract",
    "fit_whitening",
    "images",
    "layers",
    "load_model",
    "methods",
    "multi_scale",
    "plot",
    "retrieval",
    "save_whitening",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    elif name in __all__:
        value = importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name.startswith("__")), *__all__})


if sys.modules.get("keras") is not None:
    importlib.import_module(f"{__name__}.layers")
