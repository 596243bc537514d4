"""The folder in which runtimes keep what they have built, checked and measured.

Everything in it can be made again, so what cannot be read counts as not there. Files appear whole or not at all.
"""

import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import re
from collections.abc import Callable
from typing import Any

from rw_keras.files import written_whole
from rw_keras.runtimes.keras_backend import backend

# Part of every key: what an older or newer version of this package has written is another file.
FORMAT = 1


def folder() -> pathlib.Path:
    """`rw_keras/engines` in `$XDG_CACHE_HOME`, or in `~/.cache`."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return pathlib.Path(home, "rw_keras", "engines")  # as earlier versions call it, whose files go on being used


def key(*values: Any) -> str:
    """A short name for plain values."""
    text = json.dumps([FORMAT, *values], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def version(package: str) -> str | None:
    """The version of an installed distribution, without importing it; `None` where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def read_json(name: str) -> dict[str, Any]:
    """What a JSON file of the folder holds; nothing where it is not there, or cut short."""
    try:
        found = json.loads((folder() / name).read_text("utf8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(name: str, values: dict[str, Any]) -> None:
    with written_whole(folder() / name) as file:
        file.write(json.dumps(values, indent=1).encode("utf8"))


def built(stem: str, suffixes: tuple[str, ...]) -> list[pathlib.Path] | None:
    """The files of a network that was built, where all of them are as long as they were written; else `None`."""
    sizes = read_json(f"{stem}.json")
    paths = [folder() / f"{stem}{suffix}" for suffix in suffixes]
    for path, suffix in zip(paths, suffixes):
        if not path.is_file() or path.stat().st_size != sizes.get(suffix):
            return None
    return paths


def build(stem: str, suffixes: tuple[str, ...], make: Callable[[], tuple[bytes, ...]]) -> list[pathlib.Path]:
    """The files of a network: those of an earlier build, or what `make` returns, one content a suffix."""
    paths = built(stem, suffixes)
    if paths is not None:
        return paths
    contents = make()
    paths = [folder() / f"{stem}{suffix}" for suffix in suffixes]
    try:
        for path, content in zip(paths, contents):
            with written_whole(path) as file:
                file.write(content)
        # Last: without it the others do not count.
        write_json(f"{stem}.json", {suffix: len(content) for suffix, content in zip(suffixes, contents)})
    except OSError as error:
        raise OSError(
            f"The runtime's files cannot be written to {folder()} ({error}); set XDG_CACHE_HOME to a folder that can be written."
        ) from error
    return paths


@functools.cache
def machine() -> dict[str, Any]:
    """What times and digits depend on: the processor, how many of its cores this process may use, and versions of packages."""
    packages = ("rw_keras", backend(), "openvino", "nncf", "ncnn", "numpy")
    return {
        "processor": _processor(),
        "cores": cores(),
        "versions": {package: version(package) for package in packages if version(package)},
    }


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor():
    """The processor's name; on Linux with a hash of its features, since a virtual machine may call all of a maker's the same."""
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    fields = {}
    for field in ("model name", "cpu family", "model", "flags", "Features"):
        found = re.search(rf"^{field}\s*:\s*(.*)$", text, re.MULTILINE)
        fields[field] = found.group(1).strip() if found else ""
    features = hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:8]
    return f"{fields['model name'] or platform.machine()} ({features})"
