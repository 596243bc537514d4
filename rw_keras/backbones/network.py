"""From what a user names or hands over to a network: photos in, one feature map out, channels last."""

import hashlib
import json
import os
from typing import Any

import keras

from rw_keras.backbones.hub import PREFIX, preset
from rw_keras.backbones.keras_alone import keras_alone
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
# Activations that look at no axis, by the names they have in a configuration.
_OF_EACH_VALUE = (
    "elu exponential gelu hard_sigmoid hard_silu leaky_relu linear mish relu relu6 selu sigmoid silu softplus softsign tanh"
).split()
# Layers without a data format that would leave permutations between those that have one.
_TURNED_WITH_THEIR_NEIGHBOURS = (
    keras.layers.Add,
    keras.layers.BatchNormalization,
    keras.layers.Concatenate,
    keras.layers.ELU,
    keras.layers.LeakyReLU,
    keras.layers.Multiply,
    keras.layers.ReLU,
)


def network(backbone: str | keras.Model, weights: str | os.PathLike[str] | None, layer: str | None) -> tuple[keras.Model, str]:
    """The network that `build_descriptor(backbone, weights=, layer=)` stands on.

    Args:
        backbone: a name in `BACKBONES`, in any case, "hub:" and a preset of KerasHub, or a `keras.Model` that ends in a feature
            map.
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


def non_negative(features: keras.KerasTensor) -> keras.KerasTensor:
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


def name_of_own(network: keras.Model) -> str:
    """What a recipe calls a user's own network. Its name alone could be that of a network of this package."""
    return f"{network.name} {digest_of_stages(network.inputs, network.outputs)}"


@keras_alone()
def digest_of_stages(start: Any, end: Any) -> str:
    """A short hash of what stands between two tensors: functions, and networks, of one name may do different things."""
    stages = [[type(stage).__name__, _without_names(stage.get_config())] for stage in keras.Model(start, end).operations]
    return hashlib.sha256(json.dumps(stages, sort_keys=True, default=lambda value: type(value).__name__).encode()).hexdigest()[:12]


def _by_name(name, weights, layer):
    if name.lower().startswith(PREFIX):
        of_hub = name[len(PREFIX) :]
        if os.path.isdir(of_hub):  # the same network from every working directory
            of_hub = os.path.abspath(of_hub)
        return preset(of_hub, weights, layer), PREFIX + of_hub
    key = name.lower()
    if key not in BACKBONES:
        raise ValueError(
            f"There is no backbone {name!r}; choose one of {', '.join(BACKBONES)}, hub:NAME for a preset "
            "of KerasHub, or pass a keras.Model that ends in a feature map."
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
    if _convolves_channels_first(model):
        raise _out_of_reach(model.name, "and is no functional model")
    photos = keras.Input((None, None, 3), name="photos")
    return keras.Model(photos, model(photos), name=model.name)


def _channels_last(model):
    """The model with the channels last throughout; one that is so already is returned as it is.

    On a processor TensorFlow computes convolutions of channels first with oneDNN alone, so a model that holds some would
    run on some machines only.
    """
    if len(model.inputs) != 1 or len(model.outputs[0].shape) != 4:
        return model
    takes_first = tuple(model.inputs[0].shape[1:]) == (3, None, None)
    if not takes_first and (tuple(model.inputs[0].shape[1:]) != (None, None, 3) or not _convolves_channels_first(model)):
        return model
    rebuilding = _Rebuilding(model.name)
    photos = keras.Input((None, None, 3), name="photos")
    features = rebuilding.last(rebuilding.run(model, rebuilding.first(photos))) if takes_first else rebuilding.run(model, photos)
    return keras.Model(photos, features, name=model.name)


def _convolves_channels_first(stage):
    """Whether a stage of a network, or a layer inside it, is a convolution of channels first."""
    stages = stage._flatten_layers() if isinstance(stage, keras.layers.Layer) else [stage]
    return any(
        getattr(below, "data_format", None) == "channels_first" and any("Conv" in kind.__name__ for kind in type(below).__mro__)
        for below in stages
    )


def _out_of_reach(network, place):
    return ValueError(
        f"The backbone {network!r} holds convolutions of channels first {place}, so they cannot be rebuilt with channels last, and "
        'TensorFlow computes them on some machines only; build it with data_format="channels_last".'
    )


class _Rebuilding:
    """Builds a network anew, each of Keras' own layers of channels first as its twin of channels last.

    A twin stands between two permutations, and permutations that undo each other are left out: a usual network is left
    with none. Weights have the same layout in both data formats; a twin has a copy of them. Every other layer stays.
    """

    def __init__(self, network):
        self._network = network
        self._twins = {}  # by the layer's identity, since a layer may be called twice
        self._permuted = {}  # by a tensor's identity, the same in the other data format

    def run(self, model, tensor):
        return model._run_through_graph(tensor, operation_fn=lambda layer: layer, call_fn=self._call)

    def first(self, tensor):
        return self._permute(tensor, (3, 1, 2), "first")

    def last(self, tensor):
        return self._permute(tensor, (2, 3, 1), "last")

    def _permute(self, tensor, order, end):
        if id(tensor) not in self._permuted:
            # A name of Keras' choice could be that of a layer of the network.
            name = f"channels_{end}_{len(self._permuted) // 2}"
            other = keras.layers.Permute(order, dtype=tensor.dtype, name=name)(tensor)
            self._permuted[id(tensor)], self._permuted[id(other)] = other, tensor
        return self._permuted[id(tensor)]

    def _call(self, layer, *arguments, **named):
        tensors = keras.tree.flatten(arguments)
        maps = all(isinstance(tensor, keras.KerasTensor) and len(tensor.shape) == 4 for tensor in tensors)
        if maps and (_has_data_format(layer) or (_goes_along(layer) and any(id(tensor) in self._permuted for tensor in tensors))):
            return self._call_twin(layer, arguments, named)
        if not _convolves_channels_first(layer):
            return layer(*arguments, **named)
        if isinstance(layer, keras.Model) and getattr(layer, "outputs", None):
            if id(layer) not in self._twins:
                inner = keras.Model(layer.inputs[0], layer.outputs[0]) if isinstance(layer, keras.Sequential) else layer
                taken = keras.tree.map_structure(lambda like: keras.Input(like.shape[1:], dtype=like.dtype), inner.input)
                self._twins[id(layer)] = keras.Model(taken, self.run(inner, taken), name=layer.name)
            return self._twins[id(layer)](*arguments, **named)
        raise _out_of_reach(self._network, f"in its layer {layer.name!r} ({type(layer).__name__})")

    def _call_twin(self, layer, arguments, named):
        if id(layer) not in self._twins:
            self._twins[id(layer)] = _twin(layer)
        twin, activation = self._twins[id(layer)]
        found = twin(*keras.tree.map_structure(self.last, arguments), **named)
        twin.set_weights(layer.get_weights())
        found = self.first(found) if len(found.shape) == 4 else found
        return found if activation is None else activation(found)


def _twin(layer):
    """A layer for channels last, and the activation that has to see channels first after it, or `None`."""
    config, activation = layer.get_config(), None
    config.update({key: "zeros" for key in config if key.endswith("_initializer")})  # its weights are copied
    if config.get("data_format") == "channels_first":
        config["data_format"] = "channels_last"
    elif "axis" in config:
        config["axis"] = (0, 3, 1, 2)[config["axis"]]
    if not isinstance(layer, keras.layers.Activation) and config.get("activation", "linear") not in _OF_EACH_VALUE:
        config["activation"] = "linear"
        activation = keras.layers.Activation(layer.activation, dtype=layer.dtype_policy, name=f"{layer.name}_along_an_axis")
    return type(layer).from_config(config), activation


def _has_data_format(layer):
    """Whether it is one of Keras' own layers, set to channels first."""
    own = isinstance(layer, keras.layers.Layer) and type(layer).__module__.startswith("keras.")
    if not own or getattr(layer, "data_format", None) != "channels_first":
        return False
    return "data_format" in layer.get_config()  # else it is Keras' setting, and no argument of the layer


def _goes_along(layer):
    """Whether a layer without a data format can be turned with its neighbours."""
    if type(layer) is keras.layers.Activation:
        return layer.get_config()["activation"] in _OF_EACH_VALUE
    return type(layer) in _TURNED_WITH_THEIR_NEIGHBOURS


def _without_names(config):
    """A configuration without what Keras numbers anew in every process, and without what changes no digit."""
    if isinstance(config, dict):
        left_out = ("name", "trainable", "dtype", "inbound_nodes", "input_layers", "output_layers", "build_config")
        return {key: _without_names(value) for key, value in config.items() if key not in left_out}
    if isinstance(config, (list, tuple)):
        return [_without_names(value) for value in config]
    return config
