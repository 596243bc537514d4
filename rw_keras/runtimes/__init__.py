"""Who computes the feature map: TensorFlow, or an engine that is faster on this machine.

An engine computes the network up to the feature map; what comes after is stated once in NumPy (`head`). Its files are built from
the Keras model's own layers, kept in `~/.cache/rw_keras/engines` (or below `$XDG_CACHE_HOME`), and checked against TensorFlow on
first use. From then on `load_cached` gives the same descriptors in a process that loads neither Keras nor TensorFlow.

Precisions, as cosines to TensorFlow's float32 descriptor: "exact" at least 0.999999, "fast" at least 0.9999. An engine is taken for
one where it is six times as close on the photos of that check.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rw_keras.runtimes import cache
from rw_keras.runtimes.choice import Choice, check_arguments, choose, kept_choice, usual_size
from rw_keras.runtimes.describer import ENGINES, PRECISIONS, About, Describer, Prepared, check_installed, keeps

if TYPE_CHECKING:
    import keras

__all__ = ["ENGINES", "PRECISIONS", "Choice", "Describer", "choose", "load", "load_cached", "usual_size"]


def load(
    model: keras.Model | Describer, engine: str = "auto", precision: str = "exact", *, size: tuple[int, int] = (384, 512)
) -> Describer:
    """A descriptor model on an engine: built, checked against TensorFlow and, where there is a choice, measured.

    The first call for a model on a machine takes seconds, the next ones what the engine needs to read its files. The weights are
    those that the model has now: after a change, load it again.

    Args:
        model: a model of `build_descriptor`; a `Describer` is given back as it is.
        engine: "tensorflow", "openvino", "ncnn", or "auto": the fastest of those installed that keeps the promise, see `choose`;
            TensorFlow in float32 where the others do not know what comes after the network, as in a multi-scale model.
        precision: "exact" or "fast".
        size: (height, width) of the photos, to measure at.

    Raises:
        ValueError: for an engine or a precision that there is not; a network that the engine cannot compute; or when the engine's
            descriptors are not as close to TensorFlow's as promised.
        ImportError: when the engine is not installed; it names the line that installs it.
        OSError: when the cache cannot be written.
    """
    check_arguments(engine, precision)
    if isinstance(model, Describer):
        return model
    if engine != "auto":
        check_installed(engine)
    if (engine, precision) == ("tensorflow", "exact") or (engine == "auto" and _is_without_choice(model, precision)):
        return _tensorflow(model)
    prepared = Prepared.of(model)
    if engine == "auto" or precision != "exact":
        chosen = choose(model, precision, size, engines=tuple(ENGINES) if engine == "auto" else (engine,))
        engine, variant = chosen.engine, chosen.variant
    else:
        variant = "float32"
    return prepared.describer(engine, variant, precision)


def _is_without_choice(model, precision):
    """Whether only TensorFlow in float32 can compute a model here: no other engine is there, or they do not know its head."""
    others = [name for name, module in ENGINES.items() if module.EXTRA and importlib.util.find_spec(module.PACKAGE)]
    if not others and precision == "exact":
        return True
    try:
        Prepared.of(model)
    except ValueError:
        return True
    return False


def _tensorflow(model):
    """TensorFlow in float32, which needs no head in NumPy, and so takes any model."""
    from rw_keras.model.recipe import recipe

    module = ENGINES["tensorflow"]
    function = module.load(model, "float32")
    made, dimensions = recipe(model), model.output_shape[-1]
    return Describer("tensorflow", "float32", "exact", made, dimensions, 1.0, module.BATCH_PIXELS, function, model)


def load_cached(
    recipe: Mapping[str, Any], engine: str = "auto", precision: str = "exact", *, size: tuple[int, int] = (384, 512)
) -> Describer | None:
    """What `load` has built earlier on this machine for the model of a recipe, without loading Keras or TensorFlow.

    Args:
        recipe: that of an index, or of `rw_keras.model.build.recipe`.
        engine, precision, size: as for `load`.

    Returns:
        The describer; `None` where it was not built, checked or measured here yet, or where TensorFlow is what computes: then the
        model itself is needed, and `load`.

    Raises:
        ValueError: for an engine or a precision that there is not.
        ImportError: when the engine is not installed.
    """
    check_arguments(engine, precision)
    about = About.load({field: value for field, value in recipe.items() if field != "max_side"})
    variant = "float32"
    if about is not None and (engine == "auto" or precision != "exact"):
        chosen = kept_choice(about, precision, size, tuple(ENGINES) if engine == "auto" else (engine,))
        engine, variant = (chosen.engine, chosen.variant) if chosen else ("tensorflow", "")
    if about is None or engine == "tensorflow":
        return None
    check_installed(engine)
    module = ENGINES[engine]
    check = cache.read_json(about.measured_name()).get("checks", {}).get(f"{engine} {variant}", {})
    files = cache.built(about.stem(engine), module.SUFFIXES)
    if files is None or not keeps(check.get("cosine", 0), precision):
        return None
    return about.describer(engine, variant, precision, check["cosine"], about.with_head(module.load(files, variant)))
