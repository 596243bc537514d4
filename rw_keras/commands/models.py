"""Models as flags say, or as an index was made. Keras is loaded when one is built, and not before."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rw_keras.commands.model_flags import FILES, OF_THE_MODEL
from rw_keras.commands.parser import UsageError
from rw_keras.model.recipe import Recipe, max_side_of

if TYPE_CHECKING:
    import keras

    from rw_keras.runtimes import Describer


def check_model_flags(values: Namespace) -> None:
    """Refuses flags that say what a saved model says itself."""
    for flag in (*OF_THE_MODEL, "weights", "whitening"):
        if values.model is not None and flag in values.given:
            raise UsageError(f"--{flag} does not go with --model: a saved model has its own")


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
    return {flag: os.path.abspath(getattr(values, flag)) for flag in FILES if getattr(values, flag)}


def recipe_of_index(name: str, made: Mapping[str, Any] | None) -> Recipe:
    """The recipe of the index `name`, or a ValueError that says the index is damaged; its values show as a model is built."""
    return Recipe.from_dict(made, f"{name} is damaged: its recipe")


def new_model(values: Namespace) -> keras.Model:
    """The model of a .keras file, or one built as the flags of `model_flags.add_new_model` say."""
    load_keras_quietly()
    from rw_keras.model.build import build_descriptor, load_descriptor, multi_scale

    if values.model is not None:
        return load_descriptor(values.model)
    model = build_descriptor(
        values.backbone,
        weights=values.weights or "imagenet",
        levels=values.levels,
        shrinkage=values.shrinkage,
        whitening=values.whitening or "auto",
        whiten_on=values.whiten_on,
    )
    return model if values.scales is None else multi_scale(model, values.scales)


def model_of(recipe: Mapping[str, Any], values: Namespace) -> keras.Model:
    """The model that made an index: of a .keras file, or built as the index's recipe says.

    Args:
        recipe: the index's.
        values: the flags of `model_flags.add_model` and `add_weights`.

    Raises:
        ValueError: when the recipe is of a model that cannot be built from it.
    """
    load_keras_quietly()
    from rw_keras.model.build import from_recipe, load_descriptor

    if values.model is not None:
        return load_descriptor(values.model)
    try:
        return from_recipe(recipe, weights=values.weights or "imagenet", whitening=values.whitening or "auto")
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

    plain = (values.runtime, values.precision) == ("tensorflow", "exact")
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
