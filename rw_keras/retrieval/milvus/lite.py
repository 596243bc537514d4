"""Files of milvus-lite, which one process may open at a time: each is closed when its last connection in this process ends."""

from __future__ import annotations

import logging
import os
import threading

_lock = threading.Lock()
# Path -> how many connections of this process there are; those that were open already are somebody else's to close.
_connections: dict[str, int] = {}


def open_file(path: str) -> None:
    """Opens a file, or counts one more connection to it. The package milvus-lite has to be installed.

    Raises:
        OSError: when it cannot be opened.
    """
    from milvus_lite.server_manager import server_manager_instance as manager

    path = os.path.abspath(path)
    if not os.path.isdir(os.path.dirname(path)):
        raise OSError("the folder that it is to lie in is not there")
    with _lock:
        if path not in _connections and path not in getattr(manager, "_servers", {}):
            logging.getLogger("milvus_lite.server_manager").setLevel(logging.CRITICAL)  # it logs a trace, and raises nothing
            if manager.start_and_get_uri(path) is None:
                raise OSError("milvus-lite cannot open it; another process may have it open, and only one can at a time")
            _connections[path] = 0
        if path in _connections:
            _connections[path] += 1


def close_file(path: str) -> None:
    """Counts one connection less, and closes the file after the last."""
    from milvus_lite.server_manager import server_manager_instance as manager

    path = os.path.abspath(path)
    with _lock:
        if path in _connections:
            _connections[path] -= 1
            if not _connections[path]:
                del _connections[path]
                manager.release_server(path)
