"""Data sets: the embedded photos, folders laid out as Oxford5k and Paris6k, and builders for tensorflow-datasets.

`oxford5k`, `paris6k`, `oxford100k`, `oxford105k`, `paris106k`, `roxford5k` and `rparis6k` all name the module `builders`, which is
loaded when one is first used, because it needs tensorflow-datasets (`pip install "rw_keras[datasets]"`). It registers the sets:

    import tensorflow_datasets as tfds
    from rw_keras.datasets import oxford5k

    photos = tfds.load("oxford5k", split="index")
"""

import importlib
from typing import Any

from rw_keras.datasets import oxford, revisited
from rw_keras.datasets.folder import PhotoSet, read_folder
from rw_keras.photos import embedded as photos

_SETS = ("oxford100k", "oxford105k", "oxford5k", "paris106k", "paris6k", "roxford5k", "rparis6k")
# Not the builders: `import *` is to work without tensorflow-datasets.
__all__ = ["PhotoSet", "oxford", "photos", "read_folder", "revisited"]


def __getattr__(name: str) -> Any:
    if name not in (*_SETS, "builders"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.builders")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SETS})
