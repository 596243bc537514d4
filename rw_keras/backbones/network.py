"""From what a user names or hands over to a network: photos in, one feature map out, channels last."""

import hashlib
import json

import keras

from rw_keras.backbones.registry import BACKBONES
from rw_keras.layers import GroupedConv2D

# Activations that give nothing below 0.
_NON_NEGATIVE = (keras.activations.relu, keras.activations.relu6, keras.activations.sigmoid, keras.activations.softplus)
# Layers known to give what their activation gives; one of a user's own may go on after it.
_ENDING_IN_THEIR_ACTIVATION = (
    keras.layers.Activation,
    keras.layers.Conv2D,
    keras.layers.Conv2DTranspose,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
    GroupedConv2D,
)


def network(backbone, weights, layer):
    """The network that `build_descriptor(backbone, weights=, layer=)` stands on.

    Args:
        backbone: a name in `BACKBONES`, in any case, or a `keras.Model` that ends in a feature map.
        weights: see `build_descriptor`; a model has its own.
        layer: the layer to cut it at, or `None` for the backbone's own choice.

    Returns:
        A functional `keras.Model` `(B, None, None, 3)` -> `(B, h, w, C)`, and the name that a recipe knows it by.

    Raises:
        ValueError: for what is no backbone, in a sentence that says why.
    """
    if isinstance(backbone, str):
        found, name = _by_name(backbone, weights, layer)
    elif not isinstance(backbone, keras.Model):
        raise ValueError(f"A backbone is a name or a keras.Model, but got {backbone!r}; choose one of {', '.join(BACKBONES)}.")
    elif weights != "imagenet":
        raise ValueError(f"weights={weights!r} does not go with a keras.Model as backbone: it has its weights already.")
    else:
        found = _of_model(backbone, layer)
        name = name_of_own(found)
        found = _channels_last(found)
    shapes = ", ".join(str(tuple(taken.shape)) for taken in found.inputs)
    if len(found.inputs) != 1 or tuple(found.inputs[0].shape[1:]) != (None, None, 3):
        raise ValueError(
            f"The backbone {found.name!r} takes {shapes}; it has to take photos of any size, (batch, None, None, 3) alone."
        )
    shape = found.outputs[0].shape
    if len(shape) != 4 or shape[-1] is None:
        raise ValueError(
            f"The backbone {found.name!r} ends in the shape {shape}, not in a feature map (batch, height, width, "
            "channels); cut it at its last convolution with `layer=`."
        )
    return found, name


def non_negative(features):
    """The map itself where its last activation leaves nothing below 0, else with a ReLU after it.

    The weights of places add channels up (formula 2), and those of channels count what is above 0 (formula 4): both
    mean activation by that, and have no meaning for a map with negative values, as swish, GELU or a normalisation leave
    it. A ReLU leaves a map that has none as it is.
    """
    last = features._keras_history.operation
    if isinstance(last, keras.layers.ReLU) and not last.negative_slope and not last.threshold:
        return features
    if type(last) in _ENDING_IN_THEIR_ACTIVATION and last.activation in _NON_NEGATIVE:
        return features
    return keras.layers.ReLU(dtype=features.dtype, name="rectified")(features)


def name_of_own(network):
    """What a recipe calls a user's own network. Its name alone could be that of a network of this package."""
    return f"{network.name} {digest_of_stages(network.inputs, network.outputs)}"


def digest_of_stages(start, end):
    """A short hash of what stands between two tensors: functions, and networks, of one name may do different things."""
    stages = [[type(stage).__name__, _without_names(stage.get_config())] for stage in keras.Model(start, end).operations]
    return hashlib.sha256(json.dumps(stages, sort_keys=True, default=lambda value: type(value).__name__).encode()).hexdigest()[:12]


def _by_name(name, weights, layer):
    key = name.lower()
    if key not in BACKBONES:
        raise ValueError(
            f"There is no backbone {name!r}; choose one of {', '.join(BACKBONES)}, or pass a keras.Model that ends in "
            "a feature map."
        )
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            f"The backbone {name!r} takes channels last, but Keras is set to {keras.config.image_data_format()}; call "
            'keras.config.set_image_data_format("channels_last") first.'
        )
    cut = {} if layer is None else {"layer": layer}
    return BACKBONES[key](weights=weights, **cut), key


def _of_model(model, layer):
    if len(getattr(model, "outputs", None) or [None]) > 1:
        raise ValueError(f"The backbone {model.name!r} has {len(model.outputs)} outputs; give one that ends in its map alone.")
    if getattr(model, "outputs", None):
        output = model.outputs[0] if layer is None else model.get_layer(layer).output
        photos = model.inputs[0] if len(model.inputs) == 1 else model.inputs
        return keras.Model(photos, output, name=model.name)
    if layer is not None:
        raise ValueError(f"The model {model.name!r} is no functional model, so it cannot be cut at layer={layer!r}.")
    photos = keras.Input((None, None, 3), name="photos")
    return keras.Model(photos, model(photos), name=model.name)


def _channels_last(model):
    """A model that takes and gives channels first, between two permutations; any other as it is."""
    if len(model.inputs) != 1 or tuple(model.inputs[0].shape[1:]) != (3, None, None) or len(model.outputs[0].shape) != 4:
        return model
    photos = keras.Input((None, None, 3), name="photos")
    features = model(keras.layers.Permute((3, 1, 2), dtype=photos.dtype, name="channels_first")(photos))
    return keras.Model(
        photos, keras.layers.Permute((2, 3, 1), dtype=features.dtype, name="channels_last")(features), name=model.name
    )


def _without_names(config):
    """A configuration without what Keras numbers anew in every process, and without what changes no digit."""
    if isinstance(config, dict):
        left_out = ("name", "trainable", "dtype", "inbound_nodes", "input_layers", "output_layers", "build_config")
        return {key: _without_names(value) for key, value in config.items() if key not in left_out}
    if isinstance(config, (list, tuple)):
        return [_without_names(value) for value in config]
    return config
