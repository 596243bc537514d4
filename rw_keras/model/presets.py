"""Presets: whole recipes by name, with what `extract` and a search do by default under each. This is the one table of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from rw_keras.model.recipe import UNSET, Recipe, max_side_of

# The fields of a preset that a model is built of: arguments of `rw_keras.build_descriptor`.
PARTS = ("backbone", "layer", "method", "levels", "scales", "components", "shrinkage", "whitening", "whiten_on")

# Between a preset's name and what differs from it.
_BUT = ", but "


@dataclasses.dataclass(frozen=True)
class Preset:
    """A whole recipe by name.

    Attributes:
        name: its name in `PRESETS`; with what differs, where a model was built with other parts: "recommended, but method rw".
        words: what it is for, and what it costs, in a line.
        backbone, layer, method, levels, scales, components, shrinkage, whitening, whiten_on: see `rw_keras.build_descriptor`. Of a
            model that was built with other parts, they are as its recipe has them.
        max_side: what the longer side of photos is reduced to, in pixels; `None`: no limit.
        dtype: what an index keeps descriptors as: "float32", "float16" or "int8".
        regions: what an index keeps region vectors as, "int8" or "float16"; `None`: it keeps none.
        region_components: to how many dimensions they are cut; `None`: all.
        rerank: how many of the first hits a search puts in order by their regions; `None`: none.
        smooth: over how many neighbours their scores are averaged (`rw_keras.retrieval.Rerank`); `None`: they are not.
        expand: over how many photos a search expands its query; `None`: it does not.

    Raises:
        ValueError: for values that do not go together, naming them.
    """

    name: str
    words: str = ""
    backbone: str = "vgg16"
    layer: str | None = None
    method: str = "rw"
    levels: int | None = 3
    scales: tuple[float, ...] | None = None
    components: int | None = None
    shrinkage: float | None = None
    whitening: str | None = "auto"
    whiten_on: str = "regions"
    max_side: int | None = 1024
    dtype: str = "float32"
    regions: str | None = None
    region_components: int | None = None
    rerank: int | None = None
    smooth: int | None = None
    expand: int | None = None

    def __post_init__(self) -> None:
        if self.scales is not None:
            object.__setattr__(self, "scales", tuple(map(float, self.scales)))
        for field, choices in (("dtype", ("float32", "float16", "int8")), ("regions", ("int8", "float16", None))):
            if getattr(self, field) not in choices:
                raise ValueError(
                    f"A preset's {field} is one of {', '.join(map(str, choices))}, but {self.name!r} has {getattr(self, field)!r}."
                )
        for field in ("max_side", "region_components", "rerank", "smooth", "expand"):
            value = getattr(self, field)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"A preset's {field} is a whole number of at least 1 or None, but {self.name!r} has {value!r}.")
        if self.regions is None and self.rerank is not None:
            raise ValueError(f"The preset {self.name!r} has rerank={self.rerank}, but keeps no regions to re-rank by; set regions.")

    @property
    def parts(self) -> dict[str, Any]:
        """What a model is built of: arguments of `rw_keras.build_descriptor`."""
        return {part: getattr(self, part) for part in PARTS}

    @property
    def search(self) -> dict[str, Any]:
        """What a search in an index does by default: the index's field `search`."""
        return {"rerank": self.rerank, "smooth": self.smooth, "expand": self.expand, "alpha": 0.0}

    def but(self, **parts: Any) -> Preset:
        """This preset with other parts, and a name that says which; itself where none differs.

        Vectors of regions that are not whitened are not compared, so there are none to keep or to re-rank by with
        `whiten_on="global"`.
        """
        changed = dataclasses.replace(self, **parts)
        differing = [part for part in PARTS if getattr(changed, part) != getattr(self, part)]
        if not differing:
            return self
        words = ", ".join(f"{part} {_in_words(getattr(changed, part))}" for part in differing)
        name = f"{self.name}{', ' if _BUT in self.name else _BUT}{words}"
        if changed.whiten_on == "global":
            changed = dataclasses.replace(changed, regions=None, region_components=None, rerank=None, smooth=None)
        return dataclasses.replace(changed, name=name)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        fields = dataclasses.asdict(self)
        return {**fields, "scales": None if self.scales is None else list(self.scales)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Preset:
        """Reads what `to_dict` gives.

        Raises:
            ValueError: for something else, or a field that only a later version knows.
        """
        try:
            return cls(**fields)
        except TypeError as error:
            raise ValueError(f"{fields!r} is no preset that this version of rw_keras reads: {error}.") from error


def _in_words(value):
    return ",".join(f"{one:.4g}" for one in value) if isinstance(value, tuple) else str(value)


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "paper",
            "the publication exactly: rw, whitened without shrinkage, one scale, no re-ranking",
            shrinkage=0.0,
        ),
        Preset(
            "recommended",
            "the best measured: root_rw at three scales of 512 pixels, the best 400 re-ranked by their regions",
            method="root_rw",
            scales=(1, 2**-0.5, 0.5),
            shrinkage=0.2,
            max_side=512,
            regions="int8",
            rerank=400,
            smooth=9,
        ),
        Preset(
            "fast",
            "root_rw at one scale of 362 pixels, re-ranked by regions: 0.3 times the time of recommended",
            method="root_rw",
            shrinkage=0.2,
            max_side=362,
            regions="int8",
            rerank=400,
            smooth=9,
        ),
        Preset(
            "small",
            "recommended, cut to 128 dimensions of 8 bits and without regions: 128 bytes a photo, and its name",
            method="root_rw",
            scales=(1, 2**-0.5, 0.5),
            components=128,
            shrinkage=0.2,
            max_side=512,
            dtype="int8",
        ),
    )
}


def named(preset: str | Preset) -> Preset:
    """A preset by its name; a preset is given back as it is.

    Raises:
        ValueError: for a name that is none.
    """
    if isinstance(preset, Preset):
        return preset
    if preset not in PRESETS:
        raise ValueError(f"There is no preset {preset!r}; choose one of {', '.join(PRESETS)}.")
    return PRESETS[preset]


def base_name(name: str) -> str:
    """The name in the table of a preset that parts of were replaced: "recommended" of "recommended, but method rw"."""
    return name.partition(_BUT)[0]


def preset_of(model: Any) -> Preset | None:
    """The preset that a model, or what `rw_keras.runtimes.load` made of one, was built by; `None` where there is none."""
    found = getattr(model, "preset", None)
    return found if isinstance(found, Preset) else None


def default_max_side(model: Any) -> int | None:
    """What photos' longer side is reduced to where nobody says it: as the model's recipe notes, else its preset, else 1024."""
    made = getattr(model, "recipe", None)  # of any other model it is not worth looking for
    if isinstance(made, Recipe) and made.max_side is not UNSET:
        return made.max_side
    preset = preset_of(model)
    return max_side_of(None) if preset is None else preset.max_side
