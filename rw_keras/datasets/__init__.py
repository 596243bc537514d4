"""Data sets: the embedded photos, folders laid out as Oxford5k and Paris6k, and builders for tensorflow-datasets.

`oxford5k`, `paris6k`, `oxford100k`, `oxford105k`, `paris106k`, `roxford5k` and `rparis6k` are loaded when they are first used, for
they need tensorflow-datasets (`pip install "rw_keras[datasets]"`). Loading one registers its builder:

    import tensorflow_datasets as tfds
    from rw_keras.datasets import oxford5k

    photos = tfds.load("oxford5k", split="index")
"""

import importlib
from typing import Any

from rw_keras.datasets import oxford, revisited
from rw_keras.datasets.folder import PhotoSet, read_folder
from rw_keras.photos import embedded as photos

_BUILDERS = ("oxford100k", "oxford105k", "oxford5k", "paris106k", "paris6k", "roxford5k", "rparis6k")
# Not the builders: `import *` is to work without tensorflow-datasets.
__all__ = ["PhotoSet", "oxford", "photos", "read_folder", "revisited"]


def __getattr__(name: str) -> Any:
    if name not in _BUILDERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_BUILDERS})
