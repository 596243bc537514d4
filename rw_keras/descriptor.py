"""Building the one model: network, method, whitening. And its recipe, by which models are told apart."""

import hashlib
import json
import os
import re
import sys
from typing import Any

import keras

from rw_keras import layers, methods
from rw_keras import whitening as whitenings
from rw_keras.backbones import BACKBONES
from rw_keras.backbones.weights import digest


def build_descriptor(
    backbone: str | keras.Model = "vgg16",
    *,
    weights: str | os.PathLike[str] | None = "imagenet",
    layer: str | None = None,
    method: str | methods.Method = "rw",
    levels: int = 3,
    components: int | None = None,
    shrinkage: float = 0.0,
    whitening: str | os.PathLike[str] | None = "auto",
    name: str | None = None,
) -> layers.DescriptorModel:
    """Builds the model that turns photos into descriptors.

    The stages: the network with its preprocessing; the method (for `"rw"`: SpatialWeight, IDFChannelWeight,
    RegionalSumPooling); L2Norm, PCAWhiten, L2Norm on each region vector; their sum; L2Norm.

    Input: RGB photos `(B, H, W, 3)`, 0..255, uint8 or float, of any size the network takes (16 x 16 and up for
    VGG16). Output: `(B, components)` float32 of unit length (512 by default for VGG16); zero where the
    map is zero.

    Args:
        backbone: the name of a network ("vgg16"), or any `keras.Model` that ends in a feature map; such a model is
            given RGB 0..255 and does its own preprocessing.
        weights: "imagenet", the path of a file that holds them, or `None` for random ones.
        layer: the layer to cut the network at. Default: the network's own ("block5_conv3" for VGG16).
        method: a name in `rw_keras.methods.METHODS`, or a function from a feature map to region vectors `(B, R, C)`.
        levels: the number of scales of the regional grid. Default 3.
        components: how many dimensions the whitening keeps. Default: all.
        shrinkage: 0 to 1, see `PCAWhiten`. Default 0, the publication's; a whitening learned from few photos, as the
            shipped one is, does better with 0.2.
        whitening: the path of a file that `save_whitening` wrote; `"auto"`: the one that ships with the package where
            it fits this very model, else identity; `None`: identity. A line on standard error says which.
        name: the model's name.

    Returns:
        A functional `keras.Model` whose `recipe` says what it was made of.

    Raises:
        ValueError: for an argument out of range, or a whitening file that does not fit, naming the field that differs.
        FileNotFoundError: when the weights, or the whitening file, cannot be found.
    """
    network, backbone_name = _network(backbone, weights, layer)
    features = network.outputs[0]
    if name is not None and not re.fullmatch(r"[A-Za-z0-9.][A-Za-z0-9_.-]*", name):
        raise ValueError(f"A model's name is made of letters, digits, '_', '.' and '-', but got {name!r}.")
    if len(network.inputs) != 1 or tuple(network.inputs[0].shape[1:]) != (None, None, 3):
        shapes = ", ".join(str(tuple(taken.shape)) for taken in network.inputs)
        raise ValueError(
            f"The backbone {network.name!r} takes {shapes}; it has to take photos of any size, (batch, None, None, 3) alone."
        )
    if len(features.shape) != 4 or features.shape[-1] is None:
        raise ValueError(
            f"The backbone {network.name!r} ends in the shape {features.shape}, not in a feature map (batch, height, width, "
            "channels); cut it at its last convolution with `layer=`."
        )
    function, method_name, used_levels = methods.resolve(method, levels)
    regions = function(features)
    if len(getattr(regions, "shape", ())) != 3:
        raise ValueError(
            f"The method {method_name} returned {regions!r}; it has to return region vectors (batch, regions, channels)."
        )
    function_name = method_name.partition("(")[0].rpartition(".")[2]
    vectors = layers.L2Norm(name="region_norm")(regions)
    whiten = layers.PCAWhiten(components, shrinkage, name="whitening")
    vectors = layers.L2Norm(name="whitened_norm")(whiten(vectors))
    output = layers.L2Norm(name="descriptor")(layers.RegionSum(name="region_sum")(vectors))
    model = layers.DescriptorModel(
        network.input,
        output,
        name=name or re.sub(r"[^A-Za-z0-9_.-]", "", f"{function_name}_{network.name}"),
        recipe={
            "backbone": backbone_name,
            "layer": network.output_names[0],
            "method": method_name if method_name in methods.METHODS else f"{method_name} {_digest_of_stages(features, regions)}",
            "levels": used_levels,
            "min_side": _smallest_side(network),
            "whitening": None,
        },
    )
    _apply_whitening(model, whitening)
    return model


def load_model(path: str | os.PathLike[str]) -> keras.Model:
    """Loads a descriptor model that `model.save(path)` wrote: `keras.saving.load_model`, with the layers registered."""
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no model file {path}; write one with model.save.")
    try:
        return keras.saving.load_model(path)
    except Exception as error:  # Keras' own advice is about other formats
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"{path} cannot be loaded, it is no .keras file, is cut short, or holds layers that are not registered: {reason}"
        ) from error


def recipe(model: keras.Model) -> dict[str, Any]:
    """How a model makes its descriptors, as plain values: two models with the same recipe make the same ones.

    Args:
        model: any `keras.Model`; one of `build_descriptor` says more.

    Returns:
        A dictionary: backbone, layer, method, levels, min_side, `weights` (SHA-256 of everything but the whitening),
        and `whitening` (`None`, or what it was learned on, with components, shrinkage and SHA-256).
    """
    layer = _find_whitening(model)
    apart = {id(variable) for variable in layer.variables} if layer else set()
    known = dict(getattr(model, "recipe", None) or {"backbone": _name_of_own(model)})
    known["weights"] = digest(keras.ops.convert_to_numpy(v) for v in model.weights if id(v) not in apart)
    learned = {key: value for key, value in (known.get("whitening") or {}).items() if key != "photo_ids"}
    known["whitening"] = None
    if layer and layer.adapted:
        learned["components"], learned["shrinkage"] = layer.components, layer.shrinkage
        learned["digest"] = digest(keras.ops.convert_to_numpy(v) for v in layer.variables)
        known["whitening"] = learned
    return known


def whitening_layer(model: keras.Model) -> layers.PCAWhiten:
    """The `PCAWhiten` of a model, or a ValueError that says it has none."""
    layer = _find_whitening(model)
    if layer is None:
        raise ValueError(f"The model {model.name!r} has no PCAWhiten layer to learn; build it with rw_keras.build_descriptor.")
    return layer


def _find_whitening(model):
    return next((stage for stage in model.layers if isinstance(stage, layers.PCAWhiten)), None)


def _network(backbone, weights, layer):
    """The backbone as a functional model that ends in its map, and its name."""
    if isinstance(backbone, str):
        if backbone not in BACKBONES:
            raise ValueError(
                f"There is no backbone {backbone!r}; choose one of {', '.join(BACKBONES)}, or pass a keras.Model that ends in "
                "a feature map."
            )
        cut = {} if layer is None else {"layer": layer}
        return BACKBONES[backbone](weights=weights, **cut), backbone
    if not isinstance(backbone, keras.Model):
        raise ValueError(f"A backbone is a name or a keras.Model, but got {backbone!r}; choose one of {', '.join(BACKBONES)}.")
    if weights != "imagenet":
        raise ValueError(f"weights={weights!r} does not go with a keras.Model as backbone: it has its weights already.")
    if len(getattr(backbone, "outputs", None) or [None]) > 1:
        raise ValueError(
            f"The backbone {backbone.name!r} has {len(backbone.outputs)} outputs; give one that ends in its map alone."
        )
    if getattr(backbone, "outputs", None):
        output = backbone.outputs[0] if layer is None else backbone.get_layer(layer).output
        photos = backbone.inputs[0] if len(backbone.inputs) == 1 else backbone.inputs
        return _own(keras.Model(photos, output, name=backbone.name))
    if layer is not None:
        raise ValueError(f"The model {backbone.name!r} is no functional model, so it cannot be cut at layer={layer!r}.")
    photos = keras.Input((None, None, 3), name="photos")
    return _own(keras.Model(photos, backbone(photos), name=backbone.name))


def _own(network):
    return network, _name_of_own(network)


def _digest_of_stages(start, end):
    """A short hash of what stands between two tensors: functions, and networks, of one name may do different things."""
    stages = [[type(stage).__name__, _without_names(stage.get_config())] for stage in keras.Model(start, end).operations]
    return hashlib.sha256(json.dumps(stages, sort_keys=True, default=lambda value: type(value).__name__).encode()).hexdigest()[:12]


def _name_of_own(network):
    """What a recipe calls a user's own network. Its name alone could be that of a network of this package."""
    return f"{network.name} {_digest_of_stages(network.inputs, network.outputs)}"


def _without_names(config):
    """A configuration without what Keras numbers anew in every process, and without what changes no digit."""
    if isinstance(config, dict):
        left_out = ("name", "trainable", "dtype", "inbound_nodes", "input_layers", "output_layers", "build_config")
        return {key: _without_names(value) for key, value in config.items() if key not in left_out}
    if isinstance(config, (list, tuple)):
        return [_without_names(value) for value in config]
    return config


def _smallest_side(network, largest=1024):
    """The fewest pixels a side that leave the network a map of at least one cell."""

    def fits(side):
        try:
            shape = network.compute_output_shape((1, side, side, 3))
        except ValueError:  # Keras refuses a size that a layer would shrink to nothing
            return False
        return min(shape[1:3]) >= 1

    low, high = 0, 1
    while not fits(high) and high < largest:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def _apply_whitening(model, whitening):
    """Loads what `build_descriptor(whitening=...)` asks for into the model, and says what that was."""
    if whitening is None:
        return
    layer = whitening_layer(model)
    if isinstance(whitening, str) and whitening == "auto":
        shipped = [found for found in whitenings.shipped() if not found.differences(recipe(model))]
        if not shipped:
            print(
                f"rw_keras: {model.name} is not whitened: no whitening that ships with the package fits this model. Learn one "
                "with rw_keras.fit_whitening, or pass whitening=None to do without.",
                file=sys.stderr,
            )
            return
        learned = shipped[0]
    else:
        learned = whitenings.Whitening.load(whitening)
        differences = learned.differences(recipe(model))
        if differences:
            raise ValueError(f"The whitening {whitening} does not fit this model: {'; '.join(differences)}.")
    learned.apply(model)
    advice = learned.provenance.get("recommended_shrinkage")
    advice = f"; shrinkage={advice} is recommended for it" if advice is not None and layer.shrinkage != advice else ""
    print(f"rw_keras: {model.name} is whitened as learned on {learned.describe()}{advice}.", file=sys.stderr)
