"""rw_keras: Keras layers that turn any photo into one global descriptor for instance retrieval.

Everything here is loaded when it is first used: `import rw_keras`, and `rw_keras.retrieval`, load no TensorFlow.
"""

import importlib

__version__ = "0.1.0"

_HOMES = {
    "build_descriptor": "descriptor",
    "describe": "extraction",
    "export_saved_model": "export",
    "fit_whitening": "whitening",
    "load_model": "descriptor",
    "save_whitening": "whitening",
}
_MODULES = ("backbones", "datasets", "images", "layers", "methods", "retrieval")

__all__ = [*_HOMES, *_MODULES]


def __getattr__(name):
    if name in _HOMES:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})
