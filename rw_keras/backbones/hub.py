"""KerasHub's networks, by the name of a preset or by an instance: photos of any size in, a feature map out.

`build_descriptor("hub:dinov2_small")` takes a preset by its name, `"hub:path/to/folder"` one that `save_to_preset` wrote, and
`hub(backbone, converter)` an instance. Needs the extra `hub`. The presets' weights come from KerasHub's own download.
"""

from __future__ import annotations

import os
import pathlib
import re
from typing import Any

import keras

from rw_keras.backbones.registry import LICENCES
from rw_keras.backbones.sizes import photo_model
from rw_keras.backbones.vit import transformer_of
from rw_keras.files import extra

PREFIX = "hub:"
# Where a network can be cut. "auto": "joint" where there is one, else "map".
LAYERS = ("map", "joint", "auto")

# How a preset's name begins -> the licence of its weights, as their publishers state it.
_LICENCES = {
    "dinov2_": "Apache-2.0; Meta",
    "dinov3_": "DINOv3 License, https://ai.meta.com/resources/models-and-libraries/dinov3-license; Meta",
    "clip_vit_base_patch": "MIT; OpenAI",
    "clip_vit_large_patch": "MIT; OpenAI",
    "clip_vit_": "MIT; LAION",
    "siglip": "Apache-2.0; Google",
    "vit_": "Apache-2.0; Google",
}


def hub(backbone: keras.Model, converter: Any, layer: str = "map", name: str | None = None) -> keras.Model:
    """One of KerasHub's networks as a backbone for `build_descriptor`.

    Input: RGB photos `(B, H, W, 3)`, 0..255, of any size of at least a patch, or of what a convolutional network takes. The
    converter's scale and offset are in the network, its resizing is not. For a transformer each side is resized to the nearest
    multiple of the patch. Output: the map `(B, h, w, C)` after the last layer of the network, signed as it is there; or, with
    `layer="joint"`, the pooled embedding `(B, 1, 1, D)`, a map of one cell, which a text's is compared with.

    Args:
        backbone: a `keras_hub.models.Backbone`, or a vision encoder of CLIP or SigLIP: DINOv2 with and without registers, DINOv3,
            SigLIP, CLIP, ViT; or a convolutional one that ends in one map. The weights are shared, but for those of a transformer's
            patches, and of a convolutional network that was built for one size, which are copied.
        converter: its `keras_hub.layers.ImageConverter`; `None` for a network that takes RGB 0..255.
        layer: "map"; "joint" (CLIP's projection, SigLIP's attention pooling); "auto": "joint" where there is one, else "map".
        name: the network's name. Default: "hub_" and the backbone's class.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: for a network that is none of these, a converter that does more than scale, or a network without `layer`.

    Example:

    >>> backbone = keras_hub.models.DINOV2Backbone.from_preset("dinov2_small")
    >>> converter = keras_hub.layers.DINOV2ImageConverter.from_preset("dinov2_small")
    >>> model = rw_keras.build_descriptor(rw_keras.backbones.hub(backbone, converter), method="class_token")
    """
    name = name or f"hub_{type(backbone).__name__}"
    _check_layer(layer)
    if getattr(backbone, "data_format", None) == "channels_first":
        raise ValueError(f'The network {name!r} has channels first; build it with data_format="channels_last".')
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            f"The network {name!r} takes channels last, but Keras is set to {keras.config.image_data_format()}; call "
            'keras.config.set_image_data_format("channels_last") first.'
        )
    rescale = _rescaling(converter, name)
    photos = keras.Input((None, None, 3), name="photos")
    transformer = transformer_of(backbone)
    pools = transformer is not None and transformer.pool is not None
    if layer == "auto":
        layer = "joint" if pools else "map"
    if layer == "joint" and not pools:
        raise ValueError(
            f"The network {name!r} has no embedding that it shares with text; take CLIP or SigLIP, or another method than joint."
        )
    if transformer is not None:
        return photo_model(photos, transformer.outputs(photos, rescale, layer), name)
    features = _of_any_size(backbone, name)(rescale(photos))
    # A name that is the same in every process.
    return photo_model(photos, keras.layers.Activation("linear", dtype=features.dtype, name="map")(features), name)


def preset(name: str, weights: str | os.PathLike[str] | None = "imagenet", layer: str | None = None) -> keras.Model:
    """The network of a preset of KerasHub.

    Args:
        name: the preset's name, such as "dinov2_small", or whatever else `keras_hub.models.Backbone.from_preset` takes: a folder,
            or an address such as "hf://...".
        weights: "imagenet" for the preset's own, whatever they were learned on, or `None` for random ones.
        layer: see `hub`. Default: "map".

    Raises:
        ImportError: where KerasHub is not installed; it says what to install.
        FileNotFoundError: when there is no such preset, or it cannot be fetched.
        ValueError: as `hub`, and for other `weights`.
    """
    if weights is not None and weights != "imagenet":
        raise ValueError(
            f"A preset of KerasHub has its own weights, but got weights={os.fspath(weights)!r}; load them into the backbone, and "
            "pass rw_keras.backbones.hub(backbone, converter)."
        )
    _check_layer(layer or "map")  # before weights are fetched
    backbone, converter = load(name, "Backbone", load_weights=weights is not None), load(name, "ImageConverter")
    return hub(backbone, converter, layer or "map", re.sub(r"[^A-Za-z0-9_.-]", "_", pathlib.PurePath(name).name) or None)


def load(name: str, kind: str, **arguments: Any) -> Any:
    """A part of a preset of KerasHub.

    Args:
        name: see `preset`.
        kind: "Backbone", "ImageConverter", or another class of `keras_hub.models` or `keras_hub.layers` with `from_preset`.
        arguments: of `from_preset`.

    Raises:
        ImportError, FileNotFoundError: as `preset`.
    """
    with extra("hub"):
        import keras_hub
    part = getattr(keras_hub.models, kind, None) or getattr(keras_hub.layers, kind)
    try:
        return part.from_preset(name, **arguments)
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # of a download, of a folder, of a name: KerasHub has no class for them
        reason = str(error).strip().partition("\n")[0]
        raise FileNotFoundError(
            f"KerasHub has no {kind} of the preset {name!r}, or it could not be fetched ({reason}); take a name that "
            "keras_hub.models.Backbone.presets lists, or the folder of a preset that was fetched where that is possible."
        ) from error


def _check_layer(layer):
    if layer not in LAYERS:
        raise ValueError(f"A network of KerasHub is cut at one of {', '.join(LAYERS)}, but got layer={layer!r}.")


def licence_of(backbone: str) -> str:
    """The licence of the published weights of a network, by the name that a recipe knows it by; "not known" where it is not."""
    if not backbone.startswith(PREFIX):
        return LICENCES.get(backbone, "not known: it is the user's own network")
    preset = backbone.removeprefix(PREFIX)
    return next((words for start, words in _LICENCES.items() if preset.startswith(start)), "not known")


def _rescaling(converter, name):
    """What a converter does to photos, but for resizing."""
    if converter is None:
        return lambda photos: photos
    from keras_hub.layers import ImageConverter

    if not isinstance(converter, ImageConverter) or type(converter).call is not ImageConverter.call:
        raise ValueError(
            f"The converter of {name!r}, {type(converter).__name__}, does more than to resize and scale; put its steps and the "
            "backbone into a keras.Model of photos (None, None, 3), and pass that."
        )
    scale = 1.0 if converter.scale is None else converter.scale
    offset = 0.0 if converter.offset is None else converter.offset
    return keras.layers.Rescaling(scale, offset, dtype="float32", name="preprocessing")


def _of_any_size(backbone, name):
    """A convolutional network that takes photos of any size: itself, or one built anew with its weights."""
    outputs = getattr(backbone, "outputs", None) or []
    if not isinstance(backbone, keras.Model) or len(outputs) != 1 or len(outputs[0].shape) != 4:
        found = ", ".join(str(tuple(output.shape)) for output in outputs) or "no symbolic output"
        raise ValueError(
            f"The network {name!r} ({type(backbone).__name__}) gives {found}, and neither one feature map (batch, height, width, "
            "channels) nor tokens of DINOv2, DINOv3, SigLIP, CLIP or ViT; build a keras.Model that ends in a map, with "
            "rw_keras.layers.TokensToMap for tokens, and pass that."
        )
    if tuple(backbone.inputs[0].shape[1:]) == (None, None, 3):
        return backbone
    config = backbone.get_config()
    field = "image_shape" if "image_shape" in config else "input_shape"
    try:
        anew = type(backbone).from_config({**config, field: (None, None, 3)})
        anew.set_weights(backbone.get_weights())
    except Exception as error:  # whatever a network says that has one size
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"The network {name!r} cannot be built for photos of any size: {reason}") from error
    return anew
