"""Models as flags say, or as an index was made. Keras is loaded when one is built, and not before."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rw_keras.commands.model_flags import FILES, OF_THE_MODEL, PARTS
from rw_keras.commands.parser import UsageError
from rw_keras.model.presets import PRESETS
from rw_keras.model.recipe import Recipe, max_side_of

if TYPE_CHECKING:
    import keras

    from rw_keras.runtimes import Describer

# What `--whitening` takes in place of a file.
NO_WHITENING = "none"


def check_model_flags(values: Namespace) -> None:
    """Refuses flags that say what a saved model says itself, and those of a whitening where there is to be none."""
    for flag in (*OF_THE_MODEL, "weights", "whitening"):
        if values.model is not None and flag in values.given:
            raise UsageError(f"--{flag} does not go with --model: a saved model has its own")
    if values.whitening == NO_WHITENING:
        for flag in values.given & {"shrinkage", "components"}:
            raise UsageError(f"--{flag} {getattr(values, flag)} is of a whitening, and does not go with --whitening none")


def take_files(values: Namespace, about: Mapping[str, Any] | None) -> dict[str, str]:
    """Takes files that an index was made with, where the flags name none.

    Args:
        values: the flags, which get them.
        about: the fields of the index, `None` where there is none yet.

    Returns:
        Flag -> absolute path of those that count.
    """
    noted = (about or {}).get("settings") or {}
    for flag in FILES:
        if flag not in values.given and "model" not in values.given and noted.get(flag):
            setattr(values, flag, noted[flag])
    named = {flag: getattr(values, flag) for flag in FILES if getattr(values, flag)}
    return {flag: path if path == NO_WHITENING else os.path.abspath(path) for flag, path in named.items()}


def recipe_of_index(name: str, made: Mapping[str, Any] | None) -> Recipe:
    """The recipe of the index `name`, or a ValueError that says the index is damaged; its values show as a model is built."""
    return Recipe.from_dict(made, f"{name} is damaged: its recipe")


def new_model(values: Namespace, usual: str = "recommended") -> keras.Model:
    """The model of a .keras file, or one built as the flags of `model_flags.add_new_model` say.

    Args:
        values: the flags. One that was not given is a part of the preset.
        usual: the preset to take where none is given; a line on standard error says so.

    Raises:
        UsageError: for parts that do not go together.
    """
    load_keras_quietly()
    from rw_keras.model.build import load_descriptor

    if values.model is not None:
        return load_descriptor(values.model)
    model = whitened_model(values, values.preset or usual)
    if values.preset is None:
        print(f"rw-keras: the preset is {model.preset.name}; --preset paper is the publication's own.", file=sys.stderr)
    return model


def whitened_model(values: Namespace, preset: str | None, known: Mapping[str, Any] | None = None) -> keras.Model:
    """`build`, for a model that is used as it is: one that keeps some components of a whitening has to have one."""
    from rw_keras.model.recipe import whitening_layer

    if preset in PRESETS and values.whitening == NO_WHITENING:
        components = {**PRESETS[preset].parts, **(known or {})}["components"]
        if components is not None:
            raise UsageError(
                f"--whitening none does not go with the preset {preset}, which keeps the {components} strongest components of a "
                "whitening; choose another preset"
            )
    model = build(values, preset, values.whitening or "auto", known)
    layer = whitening_layer(model)
    if layer.components is not None and not layer.adapted:
        raise ValueError(
            f"no whitening that ships fits this model, so there are no {layer.components} strongest components to keep; pass one "
            "with --whitening, or choose a preset or parts that keep all dimensions"
        )
    return model


def build(values: Namespace, preset: str | None, whitening: str, known: Mapping[str, Any] | None = None) -> keras.Model:
    """The model of a preset with the parts that flags give.

    Args:
        values: the flags of `model_flags.add_parts`, and `weights`; one `layer` too, where the program has it.
        preset: the preset's name. `None`, or a name that only a later version knows: none.
        whitening: a file, "auto" or "none".
        known: parts that take the preset's place where no flag does.

    Raises:
        UsageError: for parts that do not go together.
    """
    from rw_keras import methods
    from rw_keras.model.build import build_descriptor

    parts = {**(known or {}), **{part: getattr(values, part) for part in (*PARTS, "layer") if part in values.given}}
    preset = preset if preset in PRESETS else None
    method = {**(PRESETS[preset].parts if preset else {"method": "rw"}), **parts}["method"]
    if "levels" in values.given and method != "auto" and methods.resolve(method, values.levels)[2] is None:
        raise UsageError(f"--levels {values.levels} does not go with the method {method}, which has no regional grid")
    whitening = None if whitening == NO_WHITENING else whitening
    return build_descriptor(preset=preset, weights=values.weights or "imagenet", whitening=whitening, **parts)


def model_of(recipe: Mapping[str, Any], values: Namespace, preset: str | None = None) -> keras.Model:
    """The model that made an index: of a .keras file, or built as the index's recipe says.

    Args:
        recipe: the index's.
        values: the flags of `model_flags.add_model` and `add_weights`.
        preset: the one that the index notes.

    Raises:
        ValueError: when the recipe is of a model that cannot be built from it.
    """
    load_keras_quietly()
    from rw_keras.model.build import from_recipe, load_descriptor

    if values.model is not None:
        return load_descriptor(values.model)
    try:
        files = {"weights": values.weights or "imagenet", "whitening": values.whitening or "auto"}
        return from_recipe(recipe, **files, preset=preset)
    except ValueError as error:
        raise ValueError(
            f"the model that made the index is not one that its recipe can build; pass it with --model ({error})"
        ) from error


def describer_of(recipe: Recipe, values: Namespace) -> keras.Model | Describer:
    """What describes a query: the model that made an index, on the runtime asked for; without Keras after its first use.

    Args:
        recipe: the index's.
        values: the flags of `model_flags.add_model`, `add_weights` and `runtime_flags.add_runtime`.

    Raises:
        ValueError: see `model_of`.
    """
    from rw_keras import runtimes
    from rw_keras.runtimes.keras_backend import backend, settled_runtime_name

    plain = (settled_runtime_name(values.runtime), values.precision) == (backend(), "exact")
    size = runtimes.usual_size(max_side_of(recipe), recipe.get("min_side", 1))
    if not plain and not values.given & set(FILES):
        found = runtimes.load_cached(recipe, values.runtime, values.precision, size=size)
        if found is not None:
            return found
    model = model_of(recipe, values)
    return model if plain else runtimes.load(model, values.runtime, values.precision, size=size)


def load_keras_quietly() -> None:
    """Imports Keras and its backend without TensorFlow's start-up lines, which no setting of its own keeps back."""
    error_stream = os.dup(2)
    silence = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(silence, 2)
        import keras
        from absl import logging

        logging.use_absl_handler()
        logging.set_verbosity(logging.WARNING)  # exports tell every step

        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.config.list_physical_devices()  # looks for a GPU, and says so where there is none
    finally:
        os.dup2(error_stream, 2)
        os.close(error_stream)
        os.close(silence)
