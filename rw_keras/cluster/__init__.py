"""Many machines: photos are described on a Ray cluster into the same index as on one machine.

`extract` runs it. Everything here is loaded when it is first used; Ray itself comes with `pip install "rw_keras[ray]"`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rw_keras.cluster.describing import Describing, Settings
    from rw_keras.cluster.running import extract

_HOMES = {"Describing": "describing", "Settings": "describing", "extract": "running"}
__all__ = ["Describing", "Settings", "extract"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
