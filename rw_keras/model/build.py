"""Building the one model: network, method, whitening."""

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from rw_keras import backbones, layers, methods
from rw_keras._moved import renamed
from rw_keras.backbones import keras_files
from rw_keras.layers.image_scale import LARGEST_FACTOR
from rw_keras.model import region_outputs
from rw_keras.model import whitening as whitenings
from rw_keras.model.descriptor_model import DescriptorModel
from rw_keras.model.recipe import UNSET, Recipe, whitening_layer
from rw_keras.model.recipe import recipe as recipe  # its name for users
from rw_keras.regions import check_levels

# What a whitening is learned on and applied to: each region's vector, or their sum.
WHITEN_ON = ("regions", "global")


@renamed(whiten="whiten_on")
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
    whiten_on: str = "regions",
    name: str | None = None,
) -> DescriptorModel:
    """Builds the model that turns photos into descriptors.

    The stages: the network with its preprocessing; the method (for `"rw"`: SpatialWeight, IDFChannelWeight,
    RegionalSumPooling); L2Norm, PCAWhiten, L2Norm on each region vector; their sum; L2Norm. With `whiten_on="global"`: L2Norm on
    each region vector; their sum; L2Norm, PCAWhiten, L2Norm on that.

    Input: RGB photos `(B, H, W, 3)`, 0..255, uint8 or float, of any size the network takes (16 x 16 and up for
    VGG16). Output: `(B, components)` float32 of unit length (512 by default for VGG16); zero where the
    map is zero.

    Args:
        backbone: the name of a network ("vgg16"), or any `keras.Model` that ends in a feature map; such a model is
            given RGB 0..255 and does its own preprocessing.
        weights: "imagenet", the path of a file that holds them, or `None` for random ones.
        layer: the layer to cut the network at. Default: the network's own ("block5_conv3" for VGG16).
        method: a name in `rw_keras.methods.METHODS`, or a function from a feature map to region vectors `(B, R, C)`.
        levels: the number of scales of the regional grid, 1 to 16. Default 3.
        components: how many dimensions the whitening keeps. Default: all.
        shrinkage: 0 to 1, see `PCAWhiten`. Default: the method's own, 0.2 for "root_rw" and 0, the publication's, for all others;
            a whitening learned from few photos, as the shipped ones are, does better with 0.2.
        whitening: the path of a file that `save_whitening` wrote; `"auto"`: the one that ships with the package where
            it fits this very model, else identity; `None`: identity. A line on standard error says which.
        whiten_on: what is whitened: "regions", each region's vector, as in the publication; or "global", the sum of the region
            vectors, one vector a photo.
        name: the model's name.

    Returns:
        A functional `keras.Model` whose `recipe`, a `rw_keras.model.recipe.Recipe`, says what it was made of.

    Raises:
        ValueError: for an argument out of range, or a whitening file that does not fit, naming the field that differs.
        FileNotFoundError: when the weights, or the whitening file, cannot be found.
    """
    if name is not None and not re.fullmatch(r"[A-Za-z0-9.][A-Za-z0-9_.-]*", name):
        raise ValueError(f"A model's name is made of letters, digits, '_', '.' and '-', but got {name!r}.")
    _check_whiten_on(whiten_on)
    # Before a network is built.
    check_levels(levels, "build_descriptor")
    named = whitening is not None and whitening != "auto"
    learned = whitenings.Whitening.load(whitening) if named else None
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
    stages = head_stages(layers.PCAWhiten(components, shrinkage, name="whitening"), whiten_on)
    model = DescriptorModel(
        network.input,
        through(stages, regions),
        name=name or re.sub(r"[^A-Za-z0-9_.-]", "", f"{function_name}_{network.name}"),
        recipe=Recipe(
            backbone=backbone_name,
            layer=network.output_names[0],
            method=method_name,
            levels=used_levels,
            min_side=backbones.smallest_side(network),
            whitening=None,
            whiten_on=whiten_on,
        ),
    )
    _apply_whitening(model, whitening, learned)
    return model


def head_stages(whitening: layers.PCAWhiten, whiten_on: str = "regions") -> list[keras.layers.Layer]:
    """The layers that take region vectors to a descriptor: the one place that orders norms, whitening and sum.

    `"regions"`: L2Norm, whitening, L2Norm on each vector; their sum; L2Norm. `"global"`: L2Norm on each vector; their sum; L2Norm,
    whitening, L2Norm on that.

    Args:
        whitening: the layer to use; the others are new.
        whiten_on: "regions" or "global".

    Returns:
        The layers in their order, for `through`.

    Raises:
        ValueError: for another `whiten_on`.
    """
    _check_whiten_on(whiten_on)
    total = layers.RegionSum(name="region_sum")
    first, between, second = (whitening, "whitened_norm", total) if whiten_on == "regions" else (total, "sum_norm", whitening)
    norms = [layers.L2Norm(name=name) for name in ("region_norm", between, "descriptor")]
    return [norms[0], first, norms[1], second, norms[2]]


def through(stages: Iterable[keras.layers.Layer], values: Any) -> Any:
    """What comes of a tensor, or of an array, that goes through layers one after the other."""
    for stage in stages:
        values = stage(values)
    return values


def _check_whiten_on(whiten_on):
    if whiten_on not in WHITEN_ON:
        raise ValueError(f"whiten_on is one of {', '.join(map(repr, WHITEN_ON))}, but got {whiten_on!r}.")


def from_recipe(
    recipe: Mapping[str, Any],
    *,
    weights: str | os.PathLike[str] | None = "imagenet",
    whitening: str | os.PathLike[str] = "auto",
    model: str | os.PathLike[str] | None = None,
) -> DescriptorModel:
    """Builds the model that a recipe tells of, such as the one of an index.

    Whether its weights and its whitening are those of the recipe shows when the recipes are compared, as `Index.search_photo` does.

    Args:
        recipe: a `Recipe` or its dictionary. Where it has a `max_side`, `describe` takes it as its default.
        weights: see `build_descriptor`.
        whitening: the file of the recipe's whitening, or "auto", see `build_descriptor`; not looked at where the recipe has none.
        model: a `.keras` file of the model, which is loaded in place of all this.

    Raises:
        ValueError: for a recipe of which no model can be built, a model file that holds no descriptor model, and as
            `build_descriptor`.
        FileNotFoundError: when a file cannot be found.
    """
    recipe = Recipe.from_dict(recipe)
    built = load_descriptor(model) if model is not None else _built(recipe, weights, whitening)
    if recipe.max_side is not UNSET:
        built.note_max_side(recipe.max_side)
    return built


def _built(recipe, weights, whitening):
    absent = [field for field in ("backbone", "layer", "method", "levels") if getattr(recipe, field) is UNSET]
    if absent:
        raise ValueError(f"No model can be built of a recipe without {', '.join(absent)}; pass the model's file.")
    if recipe.others:
        raise ValueError(
            f"No model can be built of a recipe with {', '.join(map(repr, recipe.others))}, which this version does not know; "
            "install a later rw_keras."
        )
    learned = {} if recipe.whitening is UNSET else recipe.whitening or {}
    built = build_descriptor(
        recipe.backbone,
        weights=weights,
        layer=recipe.layer,
        method=recipe.method,
        levels=recipe.levels or 3,
        components=learned.get("components"),
        shrinkage=learned.get("shrinkage", 0.0),
        whitening=whitening if learned else None,
        whiten_on=recipe.whiten_on,
    )
    return built if recipe.scales is None else multi_scale(built, recipe.scales)


def multi_scale(model: DescriptorModel, scales: Sequence[float] = (1, 2**-0.5, 0.5)) -> DescriptorModel:
    """Builds the model that adds a model's descriptors of a photo at several scales.

    The photo is resized inside the model (`layers.ImageScale`), described at each scale by the one network, and the descriptors, of
    unit length, are added and scaled to unit length: the sum over scales of Gordo et al. (2017) and Radenovic et al. (2019).

    Input and output are the model's own. A side is never reduced below the fewest pixels that the network takes, so the same
    photos can be described. The time grows with the sum of the scales' squares: 1.75 times for the default.

    Args:
        model: a model of `build_descriptor`; its weights and whitening are shared, not copied. Learn the whitening on it.
        scales: factors of a photo's sides, above 0 and up to 2, all different. 1 is the photo as it is.

    Returns:
        A `DescriptorModel` with the model's recipe and, in it, `scales`.

    Raises:
        ValueError: for scales out of range, or a model that is none of `build_descriptor` or is multi-scale already.

    Example:

    >>> model = rw_keras.multi_scale(rw_keras.build_descriptor("vgg16"))
    >>> rw_keras.describe(model, "photo.jpg").shape
    (512,)
    """
    scales = _checked_scales(scales)
    if not isinstance(model, DescriptorModel) or "min_side" not in model.recipe:
        raise ValueError(f"multi_scale takes a model of rw_keras.build_descriptor, but got {model!r}.")
    if model.inner is not None:
        raise ValueError(
            f"The model {model.name!r} is multi-scale already; pass the model that it was made of, {model.inner.name!r}."
        )
    photos = keras.Input(model.input_shape[1:], name="photos")
    sizes = [layers.ImageScale(scale, model.min_side, name=f"scale_{place}") for place, scale in enumerate(scales, 1)]
    vectors = [model(resize(photos)) for resize in sizes]
    output = region_outputs.sum_of_scales(vectors)
    return DescriptorModel(photos, output, name=f"multi_scale_{model.name}", recipe={"scales": scales})


def _checked_scales(scales):
    """The scales as a list of floats, or a ValueError that says what is wrong with them."""
    try:
        scales = list(scales)
        factors = [layers.ImageScale(scale).factor for scale in scales]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"multi_scale takes numbers above 0, up to {LARGEST_FACTOR:g}, as `scales`, such as (1, 0.7071, 0.5), but "
            f"got {scales!r}."
        ) from error
    if not factors or len(set(factors)) < len(factors):
        raise ValueError(f"multi_scale takes one or more `scales`, all different, such as (1, 0.7071, 0.5), but got {scales!r}.")
    return factors


def load_model(path: str | os.PathLike[str]) -> keras.Model:
    """Loads a descriptor model that `model.save(path)` wrote as a `.keras` file: `keras.saving.load_model`, the layers registered.

    Nothing in the file runs: it is read in Keras' safe mode, and refused where its weights are those of another file.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it cannot be loaded; it says why.
    """
    try:
        return keras_files.load(path)
    except FileNotFoundError:
        raise
    except Exception as error:  # Keras' own advice is about other formats
        raise ValueError(f"{path} cannot be loaded: {_reason(error)}") from error


def load_descriptor(path: str | os.PathLike[str]) -> DescriptorModel:
    """`load_model` for a file of a model that `build_descriptor` made.

    Raises:
        FileNotFoundError, ValueError: as for `load_model`, and for any other model.
    """
    model = load_model(path)
    if not isinstance(model, DescriptorModel) or "min_side" not in model.recipe:
        raise ValueError(f"{path} holds the model {model.name!r}, which is none that rw_keras.build_descriptor made.")
    return model


def _reason(error):
    """What Keras says is wrong with a file, without the configuration that it shows before."""
    text = str(error).strip()
    return text.rpartition("Exception encountered: ")[2].strip().partition("\n")[0]


def _apply_whitening(model, whitening, learned):
    """Puts what `build_descriptor(whitening=...)` asks for into the model, and says what that was."""
    if whitening is None:
        return
    layer, made = whitening_layer(model), model.recipe
    if learned is None:
        shipped = [found for found in whitenings.shipped() if not found.differences(made)]
        if not shipped:
            print(
                f"rw_keras: {model.name} is not whitened: no whitening that ships with the package fits this model. Learn one "
                "with rw_keras.fit_whitening, or pass whitening=None to do without.",
                file=sys.stderr,
            )
            return
        learned = shipped[0]
    else:
        differences = learned.differences(made)
        if differences:
            raise ValueError(f"The whitening {whitening} does not fit this model: {'; '.join(differences)}.")
    learned.apply(model)
    advice = learned.provenance.get("recommended_shrinkage")
    advice = f"; shrinkage={advice} is recommended for it" if advice is not None and layer.shrinkage != advice else ""
    print(f"rw_keras: {model.name} is whitened as learned on {learned.describe()}{advice}.", file=sys.stderr)
