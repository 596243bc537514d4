"""Who computes the feature map: TensorFlow, or a runtime that is faster on this machine.

A runtime computes the network up to the feature map; what comes after is stated once in NumPy (`head`). Its files are built from
the Keras model's own layers, kept in `~/.cache/rw_keras/engines` (or below `$XDG_CACHE_HOME`), and checked against TensorFlow on
first use. From then on `load_cached` gives the same descriptors in a process that loads neither Keras nor TensorFlow.

Precisions, as cosines to TensorFlow's float32 descriptor: "exact" at least 0.999999, "fast" at least 0.9999; of each region vector
0.99999 and 0.995; "int8" a mean of at least 0.995. A runtime is taken for one where it is close enough on the photos of that check,
for the first two six times as close.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rw_keras._moved import renamed
from rw_keras.model.presets import preset_of
from rw_keras.model.recipe import Recipe
from rw_keras.runtimes import cache
from rw_keras.runtimes.choice import Choice, check_arguments, choose, kept_choice, usual_size
from rw_keras.runtimes.describer import RUNTIMES, Describer, KnownModel, ModelRuntimes, check_installed
from rw_keras.runtimes.promises import PRECISIONS, keeps

if TYPE_CHECKING:
    import keras

__all__ = ["PRECISIONS", "RUNTIMES", "Choice", "Describer", "choose", "load", "load_cached", "usual_size"]


@renamed(engine="name")
def load(
    model: keras.Model | Describer, name: str = "auto", precision: str = "exact", *, size: tuple[int, int] = (384, 512)
) -> Describer:
    """A descriptor model on a runtime: built, checked against TensorFlow and, where there is a choice, measured.

    The first call for a model on a machine takes seconds, the next ones what the runtime needs to read its files. The weights are
    those that the model has now: after a change, load it again.

    Args:
        model: a model of `build_descriptor`; a `Describer` is given back as it is.
        name: "tensorflow", "openvino", "ncnn", or "auto": the fastest of those installed that keeps the promise, see `choose`;
            TensorFlow in float32 where the others do not know what comes after the network, such as a layer of one's own.
        precision: "exact", "fast" or "int8".
        size: (height, width) of the photos, to measure at.

    Raises:
        ValueError: for a runtime or a precision that there is not; a network that the runtime cannot compute; or when the runtime's
            descriptors are not as close to TensorFlow's as promised.
        ImportError: when the runtime is not installed; it names the line that installs it.
        OSError: when the cache cannot be written.
    """
    check_arguments(name, precision)
    if isinstance(model, Describer):
        return model
    if name != "auto":
        check_installed(name)
    if (name, precision) == ("tensorflow", "exact") or (name == "auto" and _is_without_choice(model, precision)):
        return _tensorflow(model)
    own = ModelRuntimes.of(model)
    if name == "auto" or precision != "exact":
        chosen = choose(model, precision, size, runtimes=tuple(RUNTIMES) if name == "auto" else (name,))
        name, variant = chosen.runtime, chosen.variant
    else:
        variant = "float32"
    return dataclasses.replace(own.describer(name, variant, precision), preset=preset_of(model))


def _is_without_choice(model, precision):
    """Whether only TensorFlow in float32 can compute a model here: no other runtime is there, or they do not know its head."""
    others = [name for name, module in RUNTIMES.items() if module.EXTRA and importlib.util.find_spec(module.PACKAGE)]
    if not others and precision == "exact":
        return True
    try:
        ModelRuntimes.of(model)
    except ValueError:
        return True
    return False


def _tensorflow(model):
    """TensorFlow in float32, which needs no head in NumPy, and so takes any model."""
    module = RUNTIMES["tensorflow"]
    function = module.load(model, "float32")
    made, dimensions = Recipe.of(model), model.output_shape[-1]
    preset = preset_of(model)
    return Describer("tensorflow", "float32", "exact", made, dimensions, 1.0, module.BATCH_PIXELS, function, model, preset)


@renamed(engine="name")
def load_cached(
    recipe: Mapping[str, Any], name: str = "auto", precision: str = "exact", *, size: tuple[int, int] = (384, 512)
) -> Describer | None:
    """What `load` has built earlier on this machine for the model of a recipe, without loading Keras or TensorFlow.

    Args:
        recipe: that of an index, whose `max_side` `describe` then takes as its default, or of a model.
        name, precision, size: as for `load`.

    Returns:
        The describer; `None` where it was not built, checked or measured here yet, or where TensorFlow is what computes: then the
        model itself is needed, and `load`.

    Raises:
        ValueError: for a runtime or a precision that there is not.
        ImportError: when the runtime is not installed.
    """
    check_arguments(name, precision)
    made = Recipe.from_dict(recipe)
    known = KnownModel.load(made)
    variant = "float32"
    if known is not None and (name == "auto" or precision != "exact"):
        chosen = kept_choice(known, precision, size, tuple(RUNTIMES) if name == "auto" else (name,))
        name, variant = (chosen.runtime, chosen.variant) if chosen else ("tensorflow", "")
    if known is None or name == "tensorflow":
        return None
    check_installed(name)
    module = RUNTIMES[name]
    check = cache.read_json(known.measured_name()).get("checks", {}).get(f"{name} {variant}", {})
    files = cache.built(known.stem(name, variant), module.SUFFIXES)
    if files is None or not keeps(check, precision):
        return None
    return known.describer(name, variant, precision, made, check["cosine"], known.head.function(module.load(files, variant)))


def __getattr__(name: str) -> Any:
    if name != "ENGINES":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    words = "runtimes.ENGINES is called runtimes.RUNTIMES now; the earlier name goes with the next release."
    warnings.warn(words, FutureWarning, stacklevel=2)
    return RUNTIMES
