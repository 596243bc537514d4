"""rw_keras: Keras layers that turn any photo into one global descriptor for instance retrieval.

Everything here is loaded when it is first used: `import rw_keras`, and `rw_keras.retrieval`, load no TensorFlow. Where Keras is
loaded already, the layers and the descriptor model are registered at once, so that `keras.saving.load_model` finds them; else as
soon as the layers are loaded.

An independent implementation of K. Liao, B. Fan, Y. Zheng, G. Lin and C. Cao, "Image Retrieval Based on the Weighted and Regional
Integration of CNN Features", KSII Transactions on Internet and Information Systems 16(3), 894-907, 2022
(https://doi.org/10.3837/tiis.2022.03.008).
"""

import importlib
import importlib.machinery
import sys
from typing import TYPE_CHECKING, Any

from rw_keras import _moved

if TYPE_CHECKING:
    from rw_keras import backbones, cluster, datasets, evaluation, layers, methods, photos, retrieval, runtimes, views
    from rw_keras.description.describe import describe
    from rw_keras.description.extract import extract
    from rw_keras.description.learning import fit_whitening
    from rw_keras.export import export_litert, export_onnx, export_openvino, export_saved_model
    from rw_keras.model.build import build_descriptor, load_model
    from rw_keras.model.descriptor_model import DescriptorModel
    from rw_keras.model.scales import multi_scale
    from rw_keras.model.whitening import save_whitening

__version__ = "0.1.0"

_HOMES = {
    "DescriptorModel": "model.descriptor_model",
    "build_descriptor": "model.build",
    "describe": "description.describe",
    "export_litert": "export",
    "export_onnx": "export",
    "export_openvino": "export",
    "export_saved_model": "export",
    "extract": "description.extract",
    "fit_whitening": "description.learning",
    "load_model": "model.build",
    "multi_scale": "model.scales",
    "save_whitening": "model.whitening",
}  # where each function lives; the other public names are modules
__all__ = [
    "DescriptorModel",
    "backbones",
    "build_descriptor",
    "cluster",
    "datasets",
    "describe",
    "evaluation",
    "export_litert",
    "export_onnx",
    "export_openvino",
    "export_saved_model",
    "extract",
    "fit_whitening",
    "layers",
    "load_model",
    "methods",
    "multi_scale",
    "photos",
    "retrieval",
    "runtimes",
    "save_whitening",
    "views",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    elif name in __all__:
        value = importlib.import_module(f"{__name__}.{name}")
    elif name in _moved.MOVED:
        return _moved.moved(name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name.startswith("__")), *__all__})


class _LayersFinder:
    """Finds `rw_keras.layers` as ever, and lets the descriptor model be loaded after it: layers know of no model."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname != f"{__name__}.layers":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        load = spec.loader.exec_module

        def load_both(module):
            load(module)
            importlib.import_module(f"{__name__}.model.descriptor_model")

        spec.loader.exec_module = load_both
        return spec


_moved.install()
if not any(type(finder).__name__ == _LayersFinder.__name__ for finder in sys.meta_path):
    sys.meta_path.insert(0, _LayersFinder())
if sys.modules.get("keras") is not None:
    importlib.import_module(f"{__name__}.layers")
