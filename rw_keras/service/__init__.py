"""A search service over indices: HTTP, JSON, metrics, and a page that a person can use. `rw-keras serve NAME` starts it.

`create_app` makes the application, for a server of one's own; `Client` asks a service from Python. Both are loaded when they are
first used, and need `pip install "rw_keras[serve]"`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rw_keras.files import extra

if TYPE_CHECKING:
    from rw_keras.service.app import create_app
    from rw_keras.service.client import Client, ServiceError
    from rw_keras.service.settings import Settings

__all__ = ["Client", "ServiceError", "Settings", "create_app"]

_HOMES = {"Client": "client", "ServiceError": "client", "Settings": "settings", "create_app": "app"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with extra("serve"):
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
