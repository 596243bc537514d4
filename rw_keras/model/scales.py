"""One descriptor of a photo at several scales: a model around another one."""

from collections.abc import Sequence

import keras

from rw_keras import layers
from rw_keras.layers.image_scale import LARGEST_FACTOR
from rw_keras.model import region_outputs
from rw_keras.model.descriptor_model import DescriptorModel


def multi_scale(model: DescriptorModel, scales: Sequence[float] = (1, 2**-0.5, 0.5), name: str | None = None) -> DescriptorModel:
    """Builds the model that adds a model's descriptors of a photo at several scales.

    The photo is resized inside the model (`layers.ImageScale`), described at each scale by the one network, and the descriptors, of
    unit length, are added and scaled to unit length: the sum over scales of Gordo et al. (2017) and Radenovic et al. (2019).

    Input and output are the model's own. A side is never reduced below the fewest pixels that the network takes, so the same
    photos can be described. The time grows with the sum of the scales' squares: 1.75 times for the default.

    Args:
        model: a model of `build_descriptor`; its weights and whitening are shared, not copied. Learn the whitening on it.
        scales: factors of a photo's sides, above 0 and up to 2, all different. 1 is the photo as it is.
        name: the new model's name. Default: "multi_scale_" and the model's.

    Returns:
        A `DescriptorModel` with the model's recipe and preset and, in them, `scales`.

    Raises:
        ValueError: for scales out of range, or a model that is none of `build_descriptor` or is multi-scale already.

    Example:

    >>> model = rw_keras.multi_scale(rw_keras.build_descriptor("vgg16"))
    >>> rw_keras.describe(model, "photo.jpg").shape
    (512,)
    """
    scales = checked_scales(scales)
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
    preset = None if model.preset is None else model.preset.but(scales=tuple(scales))
    return DescriptorModel(photos, output, name=name or f"multi_scale_{model.name}", recipe={"scales": scales}, preset=preset)


def checked_scales(scales: Sequence[float]) -> list[float]:
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
