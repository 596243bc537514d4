"""Flags that say which model describes photos, for every program that has one."""

from __future__ import annotations

from rw_keras.commands.parser import Kind, Parser, number, numbers, one_of, text, whole_number
from rw_keras.model.presets import PRESETS

# What a preset says, what is given beside it replaces, and a saved model or an index's recipe has of its own.
PARTS = ("backbone", "method", "levels", "scales", "components", "shrinkage", "whiten_on")
OF_THE_MODEL = ("preset", *PARTS)
# Files that a model is made of.
FILES = ("model", "weights", "whitening")


def add_new_model(parser: Parser) -> None:
    """All that a model is built by, under a title of its own."""
    parser.section("The model")
    add_model(parser)
    add_preset(parser, "recommended")
    add_weights(parser)
    add_parts(parser)
    add_max_side(parser, None)


def add_model(parser: Parser) -> None:
    """The flag `--model`."""
    words = "A .keras file of a descriptor model, or a folder of save_to_preset, in place of a model built by a preset."
    parser.flag("model", words, text("PATH"))


def add_preset(parser: Parser, usual: str) -> None:
    """The flag `--preset`, whose value is `None` where it is not given.

    Args:
        parser: the program's.
        usual: what the program then takes.
    """
    words = f"A whole recipe by name, see `rw-keras presets`: {', '.join(PRESETS)}. Default: {usual}."
    parser.flag("preset", words, one_of(PRESETS))


def add_weights(parser: Parser) -> None:
    """The flags `--weights` and `--whitening`, files that are optional."""
    parser.flag("weights", "A file of the network's weights. Default: the published ones.", text("FILE"))
    words = "A whitening file, or none. Default: the one that ships, where it fits."
    parser.flag("whitening", words, text("FILE"))


def add_parts(parser: Parser) -> None:
    """Flags for the parts of a preset. Where one is not given, its value is `None`, and the part the preset's."""
    words = "The network: vgg16, alexnet, one of keras.applications, hub:PRESET of KerasHub. Default, here and below: the preset's."
    parser.flag("backbone", words, text("NAME"))
    words = "What makes region vectors of a feature map: rw, root_rw, rmac, crow, spoc, mac, gem, sum; for signed maps: mean, "
    words += "signed_gem, signed_rmac, signed_rw; of vision transformers: class_token, class_rw; joint; or auto."
    parser.flag("method", words, text("NAME"))
    add_levels(parser, None)
    add_whiten_on(parser, None)
    parser.flag("components", "Dimensions that the whitening keeps, the strongest ones.", whole_number(1))
    parser.flag("shrinkage", "How far the whitening's eigenvalues are drawn to their mean, 0 to 1.", number(0, 1))
    add_scales(parser)


def add_levels(parser: Parser, default: int | None = 3) -> None:
    """The flag `--levels`."""
    parser.flag("levels", "Scales of the regional grid.", Kind(_levels, "N"), default)


def _levels(given):
    from rw_keras.regions import MOST_LEVELS  # loads NumPy

    return whole_number(1, MOST_LEVELS).read(given)


def add_whiten_on(parser: Parser, default: str | None = "regions") -> None:
    """The flag `--whiten_on`, before: `--whiten`."""
    words = "What is whitened: the vectors of regions, or the global one, their sum."
    parser.flag("whiten_on", words, one_of(("regions", "global"), "WHAT"), default, earlier=["whiten"])


def add_scales(parser: Parser) -> None:
    """The flag `--scales`, whose value is `None` for the photo as it is alone."""
    words = "Factors of a photo's sides, such as 1,0.7071,0.5, at which its descriptors are added; 1: the photo as it is."
    parser.flag("scales", words, Kind(_scales, numbers().metavar))


def _scales(given):
    scales = numbers().read(given)
    return None if scales == [1] else scales


def add_max_side(parser: Parser, default: int | None = 1024, least: int = 1) -> None:
    """The flag `--max_side`."""
    words = "Longer side, in pixels, that photos are reduced to." + (" Default: the preset's." if default is None else "")
    parser.flag("max_side", words, whole_number(least), default)
