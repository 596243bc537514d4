"""The text part of CLIP and SigLIP: words into the space of the photos."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np

from rw_keras.backbones.hub import load

# KerasHub's class of a network -> that of what turns words into its tokens.
_PREPROCESSORS = {"CLIPBackbone": "CLIPPreprocessor", "SigLIPBackbone": "SigLIPPreprocessor"}


class TextPart:
    """Turns a text into a vector of the space that a network shares with photos, see `rw_keras.backbones.hub`'s layer "joint".

    Args:
        backbone: KerasHub's CLIP or SigLIP, both parts of it.
        preprocessor: its `CLIPPreprocessor` or `SigLIPPreprocessor`, with a tokenizer.

    Raises:
        ValueError: for a network without a text part.
    """

    def __init__(self, backbone: keras.Model, preprocessor: Any) -> None:
        if type(backbone).__name__ not in _PREPROCESSORS:
            raise ValueError(f"{type(backbone).__name__} has no text part; take one of {', '.join(_PREPROCESSORS)}.")
        tokens = keras.Input((None,), dtype="int32", name="token_ids")
        # A model of its own, which does not hold the part for photos.
        self._model = keras.Model(tokens, backbone.get_text_embeddings(tokens))
        self._preprocessor = preprocessor

    @classmethod
    def of_preset(cls, name: str) -> TextPart:
        """The text part of a preset, which `build_descriptor("hub:NAME")` takes by the same name; kept for the next time.

        Raises:
            ImportError, FileNotFoundError: as `rw_keras.build_descriptor("hub:NAME")`.
            ValueError: for a network without a text part.
        """
        return _of_preset(cls, name)

    def __call__(self, text: str) -> np.ndarray:
        """The vector `(D,)` of a text, float32, of unit length.

        Raises:
            ValueError: for an empty text.
        """
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f'A text to search with is some words, such as "a red telephone box", but got {text!r}.')
        # The preprocessor asks for photos, too.
        asked = self._preprocessor({"prompts": [text], "images": np.zeros((1, 1, 1, 3), "float32")})
        found = keras.ops.convert_to_numpy(self._model(keras.ops.convert_to_tensor(asked["token_ids"]), training=False))[0]
        return (found / np.linalg.norm(found)).astype("float32")


@functools.lru_cache(maxsize=2)
def _of_preset(cls, name):
    backbone = load(name, "Backbone")
    kind = type(backbone).__name__
    return cls(backbone, load(name, _PREPROCESSORS[kind]) if kind in _PREPROCESSORS else None)
