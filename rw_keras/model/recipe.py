"""How descriptors are made: the recipe, by which models, indices, whitenings and queries are told apart."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

    from rw_keras import layers


class Unset(enum.Enum):
    """What a field of a recipe holds that says nothing; `None` often says something, such as "no limit"."""

    UNSET = enum.auto()

    def __repr__(self) -> str:
        return self.name


UNSET = Unset.UNSET
# Longer side of photos, in pixels, where nothing says another.
_DEFAULT_MAX_SIDE = 1024


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Recipe(Mapping[str, Any]):
    """How descriptors are made, as plain values: two models of one recipe make the same descriptors.

    It is also a mapping with the keys and values of `to_dict`: `recipe["whitening"]["name"]`, `"scales" in recipe`, and
    `recipe == dictionary` work.

    Attributes:
        backbone: the network's name; of a network of one's own, with a hash of its layers.
        layer: where the network is cut.
        method: its name; with a hash of its layers where it is a function of one's own.
        levels: scales of the regional grid; `None` for a method without regions.
        min_side: the fewest pixels a side that the network takes.
        whitening: what it was learned on, with `components`, `shrinkage` and `digest` (SHA-256); `None`: not whitened.
        whiten_on: what is whitened: "regions", each region's vector, or "global", their sum. `to_dict` calls it "whiten".
        scales: the factors of a multi-scale model; `None`: one scale.
        weights: SHA-256, in hexadecimal, of all weights but the whitening's.
        max_side: what the longer side of a photo is reduced to, in pixels; `None`: no limit. A model alone does not say it.
        others: fields that only a later version of this package knows. They count in comparisons; no model is built from them.

    A field that is not known is `UNSET`, and no key.
    """

    backbone: str | Unset = UNSET
    layer: str | Unset = UNSET
    method: str | Unset = UNSET
    levels: int | Unset | None = UNSET
    min_side: int | Unset = UNSET
    whitening: Mapping[str, Any] | Unset | None = UNSET
    whiten_on: str = "regions"
    scales: tuple[float, ...] | None = None
    weights: str | Unset = UNSET
    max_side: int | Unset | None = UNSET
    others: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_dict(cls, made: Mapping[str, Any] | None, whose: str = "A recipe") -> Recipe:
        """Reads what `to_dict` gives, such as the recipe of an index.

        Args:
            made: the dictionary, or a recipe; `None` is a recipe of which nothing is known.
            whose: words for it in an error, such as "The recipe of my_photos".

        Raises:
            ValueError: for a field of another kind than a model writes, naming it. Whether there is such a network or method shows
                when a model is built.
        """
        made = dict(made or {})
        for field, (is_right, words) in _KINDS.items():
            if field in made and not is_right(made[field]):
                raise ValueError(f"{whose} has {field} {made[field]!r}, which has to be {words}; make it again.")
        known = {field: made.pop(field) for field in _PLAIN if field in made}
        if known.get("whitening"):
            # Hashes of the photos' names say nothing of how descriptors are made.
            known["whitening"] = {field: value for field, value in known["whitening"].items() if field != "photo_ids"}
        scales = made.pop("scales", None)
        return cls(
            **known,
            whiten_on=made.pop("whiten", "regions"),
            scales=None if scales is None else tuple(map(float, scales)),
            others=made,
        )

    @classmethod
    def of(cls, model: Any) -> Recipe:
        """The recipe of a model of `build_descriptor`, of what `rw_keras.runtimes.load` made of one, or of any `keras.Model`.

        Of a Keras model that is none of `build_descriptor` it says the network and the weights.
        """
        found = getattr(model, "recipe", None)
        return found if isinstance(found, cls) else recipe_with_digests({}, model)

    def to_dict(self) -> dict[str, Any]:
        """The plain values that are kept on disk: "whiten" where it is "global", "scales" where there are several."""
        fields = {field: getattr(self, field) for field in _PLAIN if field not in _LAST}
        if self.whiten_on != "regions":
            fields["whiten"] = self.whiten_on
        if self.scales is not None:
            fields["scales"] = list(self.scales)
        fields |= {field: getattr(self, field) for field in _LAST}
        fields = {field: value for field, value in fields.items() if value is not UNSET}
        if fields.get("whitening"):
            fields["whitening"] = dict(fields["whitening"])
        return {**fields, **self.others}

    def at(self, max_side: int | None) -> Recipe:
        """This recipe for photos whose longer side is reduced to `max_side` pixels (`None`: no limit)."""
        return dataclasses.replace(self, max_side=max_side)

    def of_any_size(self) -> Recipe:
        """This recipe without a `max_side`, as a model has it."""
        return dataclasses.replace(self, max_side=UNSET)

    def differences(self, other: Mapping[str, Any] | None, whose: str, fields: Collection[str] | None = None) -> list[str]:
        """What differs between this recipe and another one, each in words with both values.

        Args:
            other: the one it is compared with, a recipe or a dictionary.
            whose: words for the other one, such as "the model's".
            fields: what is compared, as keys of `to_dict`. Default: all.

        Returns:
            A list such as `["its max_side is 256, the model's 1024"]`; empty where nothing differs.
        """
        one, two = _flat(self), _flat(Recipe.from_dict(other))
        if None in (one["whitening name"], two["whitening name"]):  # the other fields of a whitening tell nothing more
            shared = one.keys() & two.keys()
            one, two = (
                {field: flat[field] for field in flat if field in shared or not field.startswith("whitening ")}
                for flat in (one, two)
            )
        compared = [field for field in {**one, **two} if fields is None or field.partition(" ")[0] in fields]
        return [
            f"its {field} is {_short(one.get(field))}, {whose} {_short(two.get(field))}"
            for field in compared
            if one.get(field) != two.get(field)
        ]

    def __getitem__(self, field: str) -> Any:
        return self.to_dict()[field]

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_dict())

    def __len__(self) -> int:
        return len(self.to_dict())

    def __repr__(self) -> str:
        return f"Recipe.from_dict({self.to_dict()!r})"


# The fields that stand in a dictionary as they are, in this order; those that come after "whiten" and "scales".
_PLAIN = ("backbone", "layer", "method", "levels", "min_side", "whitening", "weights", "max_side")
_LAST = ("weights", "max_side")


def _is_text(value):
    return isinstance(value, str)


def _is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _are_numbers(value):
    return isinstance(value, (list, tuple)) and all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in value)


# Key of a dictionary -> whether a value is of the kind that a model writes, and words for that kind.
_KINDS = {
    **dict.fromkeys(("backbone", "layer", "method", "weights"), (_is_text, "text")),
    "levels": (lambda value: value is None or _is_count(value), "a whole number of at least 1, or None"),
    "min_side": (_is_count, "a whole number of at least 1"),
    "max_side": (lambda value: value is None or _is_count(value), "a whole number of at least 1, or None"),
    "whitening": (lambda value: value is None or isinstance(value, Mapping), "a dictionary, or None"),
    "whiten": (lambda value: value in ("regions", "global"), "'regions' or 'global'"),
    "scales": (lambda value: value is None or _are_numbers(value), "a list of numbers"),
}


def _flat(recipe):
    """A recipe as JSON gives it, with the whitening's fields beside its own, "whitening name" and so on."""
    flat = json.loads(json.dumps(recipe.to_dict()))
    learned = flat.pop("whitening", None)
    learned = {"name": None} if learned is None else {"name": "unnamed", **learned}
    return {**flat, "whiten": recipe.whiten_on, **{f"whitening {field}": value for field, value in learned.items()}}


def _short(value):
    """A value in a message; of a hash the first digits do."""
    text = repr(value)
    return text if len(text) <= 50 else f"{text[:24]}..."


def recipe(model: Any) -> dict[str, Any]:
    """`Recipe.of(model)` as a dictionary of plain values, as indices keep it."""
    return Recipe.of(model).to_dict()


def recipe_with_digests(made: Mapping[str, Any], model: keras.Model) -> Recipe:
    """What a model was built of, with what its weights add as they are now: their digest, and that of its whitening.

    Args:
        made: what is known of it, as `Recipe.from_dict` takes it; empty for a model that is none of `build_descriptor`.
        model: the model.
    """
    from rw_keras import backbones

    known = Recipe.from_dict(made or {"backbone": backbones.name_of_own(model)})
    weights, digest = digests_of(model)
    layer, learned = find_whitening(model), None
    if layer is not None and layer.adapted:
        learned = {**(known.whitening if isinstance(known.whitening, Mapping) else {})}
        learned |= {"components": layer.components, "shrinkage": layer.shrinkage, "digest": digest}
    return dataclasses.replace(known, weights=weights, whitening=learned)


def digests_of(model: keras.Model) -> tuple[str, str | None]:
    """SHA-256 of all weights of a model but its whitening's, and of those; `None` where it has no whitening layer."""
    from rw_keras.model.digests import digest_of_variables

    layer = find_whitening(model)
    apart = {id(variable) for variable in layer.variables} if layer else set()
    weights = digest_of_variables(model, "weights", [variable for variable in model.weights if id(variable) not in apart])
    return weights, digest_of_variables(model, "whitening", layer.variables) if layer else None


def max_side_of(recipe: Mapping[str, Any] | None) -> int | None:
    """What the longer side of a recipe's photos is reduced to, in pixels; 1024 where it does not say, `None` for no limit."""
    return (recipe or {}).get("max_side", _DEFAULT_MAX_SIDE)


def smallest_side(model: Any) -> int:
    """The fewest pixels a side that leave the model a feature map; 1 where it does not say."""
    return getattr(model, "min_side", 1)


def whitening_layer(model: keras.Model) -> layers.PCAWhiten:
    """The `PCAWhiten` of a model, or a ValueError that says it has none."""
    layer = find_whitening(model)
    if layer is None:
        raise ValueError(f"The model {model.name!r} has no PCAWhiten layer to learn; build it with rw_keras.build_descriptor.")
    return layer


def find_whitening(model: keras.Model) -> layers.PCAWhiten | None:
    """The `PCAWhiten` of a model, of a multi-scale one that of the model within; `None` where there is none."""
    from rw_keras import layers

    model = getattr(model, "inner", None) or model
    return next((stage for stage in model.layers if isinstance(stage, layers.PCAWhiten)), None)


def with_runtime(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of an index's `described_with`, whose "runtime" was called "engine" by earlier versions."""
    return {"runtime" if field == "engine" else field: value for field, value in entry.items()}


def provenance_in_words(provenance: Mapping[str, Any]) -> str:
    """What a whitening was learned on: "paris6k (322 photos, 6780 regions, max_side 512)"; with the number of scales, if
    several, and of the pairs of photos that show the same, if it was learned from such."""
    side = f", max_side {provenance['max_side']}" if provenance.get("max_side") else ""
    side += f", {len(provenance['scales'])} scales" if provenance.get("scales") else ""
    count, what = learned_from(provenance)
    pairs = f", {provenance['pairs']} matching pairs" if provenance.get("pairs") else ""
    return f"{provenance.get('name')} ({provenance.get('photos')} photos, {count} {what}{pairs}{side})"


def learned_from(provenance: Mapping[str, Any]) -> tuple[int | None, str]:
    """How many vectors a whitening was learned from, and what they are: "regions", or "vectors" of whole photos."""
    what = "vectors" if "vectors" in provenance else "regions"
    return provenance.get(what), what
