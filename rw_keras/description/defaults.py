"""What arguments stand for that nobody gives: as an index was made; for a new one as its model's preset says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rw_keras import runtimes
from rw_keras.description.describe import regions_function_of
from rw_keras.model.presets import default_max_side, preset_of
from rw_keras.model.recipe import max_side_of
from rw_keras.photos.reading import check_max_side
from rw_keras.retrieval import store
from rw_keras.retrieval.regions import REGION_DTYPES
from rw_keras.runtimes.keras_backend import KERAS, settled_runtime_name


def settled_max_side(max_side: int | str | None, model: Any, about: Mapping[str, Any] | None = None) -> int | None:
    """What `max_side` stands for: "auto" is as the index was made; without one as the model's recipe or preset has it, else 1024.

    Args:
        max_side: the argument.
        model: of the photos.
        about: the fields of the index; `None` where there is none.

    Raises:
        ValueError: for another word, or a size out of range.
    """
    if isinstance(max_side, str) and max_side == "auto":
        return default_max_side(model) if about is None else max_side_of(about.get("recipe"))
    check_max_side(max_side)
    return max_side


def settled_dtype(dtype: str | None, model: Any, about: Mapping[str, Any] | None) -> str | None:
    """What `dtype` stands for: `None` is that of the index, which its writer knows; for a new one that of the model's preset."""
    if dtype not in (None, *store.DTYPES):
        raise ValueError(f"dtype is one of {', '.join(store.DTYPES)}, but got {dtype!r}.")
    preset = preset_of(model)
    return preset.dtype if dtype is None and about is None and preset is not None else dtype


def settled_regions(
    regions: str | None, components: int | None, model: Any, about: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """How an index keeps region vectors, as `Writer` takes it; `None`: not at all.

    Whether an index that is there keeps them so is left to its writer.

    Args:
        regions, components: the arguments `regions` and `region_components` of `rw_keras.extract`.
        model: what describes the photos.
        about: the fields of the index; `None` where there is none.

    Raises:
        ValueError: for an argument out of range, and for a model that has no region vectors where they are wanted.
    """
    if regions not in ("auto", None, *REGION_DTYPES):
        words = ", ".join(f'"{dtype}"' for dtype in ("auto", *REGION_DTYPES))
        raise ValueError(f"regions is one of {words} and None, but got {regions!r}.")
    most, asked = model.output_shape[-1], components
    if asked is not None and (isinstance(asked, bool) or not isinstance(asked, int) or not 1 <= asked <= most):
        raise ValueError(f"region_components is a whole number of 1 to {most}, the model's dimensions, or None, but got {asked!r}.")
    preset = preset_of(model)
    if about is not None:
        known = about.get("regions") or {}
    else:
        known = {} if preset is None else {"dtype": preset.regions, "dimensions": preset.region_components}
    dtype = known.get("dtype") if regions == "auto" else regions
    if about is not None and dtype is None and known:
        raise ValueError(
            f"The index keeps region vectors ({known['dtype']} of {known['dimensions']} dimensions), and you asked for "
            "regions=None; leave it out, or make the index again without them with resume=False."
        )
    if dtype is None:
        if asked is not None and about is not None and regions == "auto":
            raise ValueError(
                f"The index was made without region vectors, and you asked for region_components={asked}; make it again with "
                f'regions="{REGION_DTYPES[0]}" and resume=False, or leave it out.'
            )
        if asked is not None:
            raise ValueError(
                f"region_components={asked} goes with region vectors, and none are kept; pass "
                f'regions="{REGION_DTYPES[0]}" with it, or leave it out.'
            )
        return None
    regions_function_of(model)
    return {"dtype": dtype, "dimensions": min(asked or known.get("dimensions") or most, most)}


def settled_runtime(
    runtime: str | None,
    precision: str | None,
    about: Mapping[str, Any] | None = None,
    devices: Sequence[str] | None = None,
) -> tuple[str, str]:
    """What `runtime` and `precision` stand for: `None` is what described the index last, for a new one "auto" and "exact".

    Where Keras described it last, on whichever backend, that is Keras on the backend that it runs on now. Named devices are Keras'.

    Raises:
        ValueError: for a runtime or a precision that there is not, or a backend that Keras does not run on.
    """
    is_new = about is None or about.get("next_row") == 0
    last = {} if devices is not None else ((about or {}).get("described_with") or [{}])[-1]
    usual = "auto" if is_new and devices is None else KERAS
    runtime = runtime or (last.get("runtime") if last.get("runtime") in runtimes.usable() else usual)
    precision = precision or (last.get("precision") if last.get("precision") in runtimes.PRECISIONS else "exact")
    runtimes.check_arguments(runtime, precision)
    return settled_runtime_name(runtime), precision


def search_defaults(model: Any, regions: Mapping[str, Any] | None) -> dict[str, Any]:
    """How a new index is searched by default, as the model's preset says; empty where it has none.

    Args:
        model: what describes the photos.
        regions: how the index keeps region vectors; without them nothing can be re-ranked.
    """
    preset = preset_of(model)
    return {} if preset is None else {**preset.search, **({} if regions else {"rerank": None, "smooth": None})}
