"""Models as flags say, or as an index was made. Keras is loaded when one is built, and not before."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rw_keras.commands.model_flags import FILES, OF_THE_MODEL
from rw_keras.commands.parser import UsageError

if TYPE_CHECKING:
    import keras


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


def check_recipe(name: str, recipe: Mapping[str, Any]) -> None:
    """Refuses a recipe whose fields are of other kinds than a model writes; their values are looked at as the model is built."""
    if not isinstance(recipe, Mapping):
        raise ValueError(f"{name} is damaged: its recipe is {recipe!r}; make it again with `rw-keras index`.")
    kinds = {
        "whitening": (dict, type(None)),
        "min_side": int,
        "max_side": (int, type(None)),
        "backbone": str,
        "method": str,
        "scales": list,
    }
    for field, kind in kinds.items():
        if field in recipe and not isinstance(recipe[field], kind):
            raise ValueError(f"{name} is damaged: its recipe has {field} {recipe[field]!r}; make it again with `rw-keras index`.")


def new_model(values: Namespace) -> keras.Model:
    """The model of a .keras file, or one built as the flags of `model_flags.add_new_model` say."""
    load_keras_quietly()
    from rw_keras.model.build import build_descriptor, multi_scale

    if values.model is not None:
        return _saved_model(values.model)
    model = build_descriptor(
        values.backbone,
        weights=values.weights or "imagenet",
        levels=values.levels,
        shrinkage=values.shrinkage,
        whitening=values.whitening or "auto",
        whiten=values.whiten_on,
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
    from rw_keras.model.build import build_descriptor, multi_scale

    if values.model is not None:
        return _saved_model(values.model)
    whitening = recipe.get("whitening") or {}
    try:
        model = build_descriptor(
            recipe["backbone"],
            weights=values.weights or "imagenet",
            layer=recipe["layer"],
            method=recipe["method"],
            levels=recipe["levels"] or 3,
            components=whitening.get("components"),
            shrinkage=whitening.get("shrinkage", 0.0),
            whitening=(values.whitening or "auto") if whitening else None,
            whiten=recipe.get("whiten", "regions"),
        )
        return multi_scale(model, recipe["scales"]) if "scales" in recipe else model
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"the model that made the index is not one that its recipe can build; pass it with --model ({error})"
        ) from error


def _saved_model(path):
    from rw_keras.model.build import load_model

    model = load_model(path)
    if "min_side" not in getattr(model, "recipe", {}):
        raise ValueError(f"{path} holds the model {model.name!r}, which is none that rw_keras.build_descriptor made")
    return model


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
