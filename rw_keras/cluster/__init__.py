"""Many machines: photos are described on a Ray cluster into the same index as on one machine.

`extract` runs it. Everything here is loaded when it is first used; Ray itself comes with `pip install "rw_keras[ray]"`.
"""

from typing import TYPE_CHECKING

from rw_keras._moved import lazy

if TYPE_CHECKING:
    from rw_keras.cluster.describing import Describing, Settings
    from rw_keras.cluster.running import extract

__all__ = ["Describing", "Settings", "extract"]

__getattr__ = lazy(__name__, Describing="describing", Settings="describing", extract="running")
