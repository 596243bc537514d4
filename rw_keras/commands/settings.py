"""What an index says of how it was made, in the words of the command line, so that an update needs no flags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rw_keras.commands import runtime_flags
from rw_keras.model import presets


def known_settings(about: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that made an index, with their values.

    Args:
        about: the fields of the index (`rw_keras.retrieval.store.about`).

    Returns:
        Flag -> value, of those that the index knows.
    """
    recipe = about.get("recipe") or {}
    known = {flag: recipe[flag] for flag in ("backbone", "method", "levels", "max_side") if recipe.get(flag) is not None}
    if recipe:
        known["whiten_on"], known["scales"] = recipe.get("whiten", "regions"), recipe.get("scales")
        known["max_side"] = recipe.get("max_side")
        preset = about.get("preset")
        known["preset"] = None if preset is None else presets.base_name(preset)
    if recipe.get("whitening"):
        known["shrinkage"], known["components"] = recipe["whitening"].get("shrinkage", 0.0), recipe["whitening"].get("components")
    regions = about.get("regions") or {}
    known["regions"], known["region_components"] = regions.get("dtype"), regions.get("dimensions")
    last = (about.get("described_with") or [{}])[-1]
    if last.get("precision") in runtime_flags.PRECISIONS:  # that of a model under a mixed-precision policy is no flag's
        known["precision"] = last["precision"]
    if last.get("runtime") in runtime_flags.RUNTIMES:
        from rw_keras.runtimes.keras_backend import BACKENDS, KERAS  # loads what reads photos

        known["runtime"] = KERAS if last["runtime"] in BACKENDS else last["runtime"]
    return {**known, "dtype": about["dtype"]}


def check_flags(folder: str, known: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Says so when flags contradict an index.

    Args:
        folder: the index.
        known: what `known_settings` gave.
        given: flag -> value, of those that were given.

    Raises:
        ValueError: naming the flag, with both values. The runtime may be another one, since all keep the same promise.
    """
    for flag, value in given.items():
        if (flag, value) == ("method", "auto"):  # whether it is the index's shows when the recipes are compared
            continue
        if flag in known and flag != "runtime" and value != known[flag]:
            raise ValueError(
                f"the index {folder} has {flag} {_word(known[flag])}, and you asked for --{flag} {_word(value)}; leave the flag "
                "out, choose another name, or describe all photos again with --force"
            )


def _word(value):
    if value is None:
        return "none"
    return ",".join(f"{number:g}" for number in value) if isinstance(value, (list, tuple)) else str(value)
