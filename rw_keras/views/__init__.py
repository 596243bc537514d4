"""What a person looks at: why a photo is described as it is, pictures of that, contact sheets, pages.

Each module is loaded when it is first used.
"""

import importlib
from types import ModuleType

__all__ = ["contact_sheet", "explain", "plot", "result_page"]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
