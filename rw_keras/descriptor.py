"""Building the one model: network, method, whitening. And its recipe, by which models are told apart."""

import os
import re
import sys
from typing import Any

import keras

from rw_keras import backbones, layers, methods
from rw_keras import whitening as whitenings
from rw_keras.backbones.weights import digest


def build_descriptor(
    backbone: str | keras.Model = "vgg16",
    *,
    weights: str | os.PathLike[str] | None = "imagenet",
    layer: str | None = None,
    method: str | methods.Method = "rw",
    levels: int = 3,
    components: int | None = None,
    shrinkage: float | None = None,
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
        shrinkage: 0 to 1, see `PCAWhiten`. Default: the method's own, 0.2 for "root_rw" and 0, the publication's, for all others;
            a whitening learned from few photos, as the shipped ones are, does better with 0.2.
        whitening: the path of a file that `save_whitening` wrote; `"auto"`: the one that ships with the package where
            it fits this very model, else identity; `None`: identity. A line on standard error says which.
        name: the model's name.

    Returns:
        A functional `keras.Model` whose `recipe` says what it was made of.

    Raises:
        ValueError: for an argument out of range, or a whitening file that does not fit, naming the field that differs.
        FileNotFoundError: when the weights, or the whitening file, cannot be found.
    """
    if name is not None and not re.fullmatch(r"[A-Za-z0-9.][A-Za-z0-9_.-]*", name):
        raise ValueError(f"A model's name is made of letters, digits, '_', '.' and '-', but got {name!r}.")
    network, backbone_name = backbones.network(backbone, weights, layer)
    features = backbones.non_negative(network.outputs[0])
    function, method_name, used_levels = methods.resolve(method, levels)
    regions = function(features)
    if len(getattr(regions, "shape", ())) != 3:
        raise ValueError(
            f"The method {method_name} returned {regions!r}; it has to return region vectors (batch, regions, channels)."
        )
    function_name = method_name.partition("(")[0].rpartition(".")[2]
    if method_name not in methods.METHODS:
        method_name = f"{method_name} {backbones.digest_of_stages(features, regions)}"
    if shrinkage is None:
        shrinkage = methods.SHRINKAGE.get(method_name.partition("(")[0], 0.0)
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
            "method": method_name,
            "levels": used_levels,
            "min_side": backbones.smallest_side(network),
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
    known = dict(getattr(model, "recipe", None) or {"backbone": backbones.name_of_own(model)})
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
