"""What a served model is, in plain values."""

from __future__ import annotations

from typing import Any

import keras

from rw_keras.backbones import licence_of
from rw_keras.model.recipe import recipe
from rw_keras.runtimes import cache
from rw_keras.runtimes.keras_backend import backend


def model_card(model: keras.Model, **more: Any) -> dict[str, Any]:
    """What a served model is, as plain values: its recipe with all digests, versions, and the licence of its weights."""
    made = recipe(model)
    return {
        "model": model.name,
        "dimensions": model.output_shape[-1],
        "recipe": made,
        **more,
        "versions": {
            "rw_keras": cache.version("rw_keras"),
            "keras": keras.__version__,
            backend(): cache.version(backend()),
        },
        "licence_of_the_weights": licence_of(made["backbone"]),
        "licence_of_the_code": "Apache-2.0",
    }
