"""Learns a whitening from a folder of photos and writes it to a file. Those that ship with the package were made so.

    python examples/learn_whitening.py --photos photos/train --output whitening.npz --max_side 512

Those: --photos with 322 photos of Paris6k and 1,000 of objects, --max_side 512, --recommended_shrinkage 0.2 and --method rw,
or --method root_rw --scales 1,0.70710678,0.5; for AlexNet --max_side 640 at one scale, --weights with a file of Caffe's weights
whose kernels are rounded to 1/1024, and a --note that says so. (Maps or vectors were kept in float16 in between.)

With --pairs FILE, which has two photos' paths below the folder a row, with a comma between, or with --pairs folders, where each
folder holds photos of one thing, it is learned from how matching photos differ: "discriminative" whitening.
"""

import rw_keras
from rw_keras.commands import model_flags
from rw_keras.commands.models import load_keras_quietly
from rw_keras.commands.parser import Parser, UsageError, number, text
from rw_keras.commands.programs import refuse_arguments, run_program


def flags():
    """The program's flags."""
    parser = Parser(description=__doc__)
    parser.flag("photos", "Folder of the photos to learn from.", text("FOLDER"), required=True)
    parser.flag("output", "The .npz file to write.", text("FILE"), required=True)
    parser.flag("name", "What the set is called in the provenance. Default: the folder's name.", text("NAME"))
    words = "Pairs of photos that show the same, two names a row, or the word folders: those of one folder match."
    parser.flag("pairs", words, text("FILE|folders"))
    parser.flag("note", "A sentence for the provenance.", text("TEXT"))
    words = "The shrinkage to recommend to users of the file; one from pairs has that which it was learned with."
    parser.flag("recommended_shrinkage", words, number(0, 1))
    parser.section("The model")
    parser.flag("backbone", "The network.", text("NAME"), "vgg16")
    parser.flag("weights", "The network's weights: `imagenet` or a file.", text("FILE"), "imagenet")
    parser.flag("method", "The method.", text("NAME"), "rw")
    model_flags.add_levels(parser)
    model_flags.add_scales(parser)
    model_flags.add_whiten_on(parser)
    parser.flag("shrinkage", "What --pairs are learned with. Default: the method's, 0 or 0.2.", number(0, 1))
    model_flags.add_max_side(parser)
    return parser


def learn(values):
    """Learns the whitening, writes it, and prints what it is."""
    refuse_arguments("learn_whitening.py", values)
    load_keras_quietly()
    from rw_keras.description.pairs import read_pairs
    from rw_keras.model.whitening import Whitening, check_file

    if values.pairs is not None and values.recommended_shrinkage is not None:
        raise UsageError("--recommended_shrinkage does not go with --pairs, whose shrinkage is that of learning; give --shrinkage")
    check_file(values.output)  # before the photos are read
    pairs = values.pairs if values.pairs in (None, "folders") else read_pairs(values.pairs)
    model = rw_keras.build_descriptor(
        values.backbone,
        weights=values.weights,
        method=values.method,
        levels=values.levels,
        scales=values.scales,
        shrinkage=values.shrinkage,
        whitening=None,
        whiten_on=values.whiten_on,
    )
    learned = rw_keras.fit_whitening(model, values.photos, max_side=values.max_side, name=values.name, pairs=pairs)
    notes = {"recommended_shrinkage": values.recommended_shrinkage, "note": values.note}
    learned.provenance.update({key: value for key, value in notes.items() if value is not None})
    learned.save(values.output)
    found = Whitening.load(values.output)
    print(f"{values.output}: {found.describe()}")
    print(
        f"eigenvalues: largest {found.eigenvalues[0]:.3g}, middle {found.eigenvalues[len(found.eigenvalues) // 2]:.3g}, "
        f"smallest {found.eigenvalues[-1]:.3g}"
    )


if __name__ == "__main__":
    run_program(flags(), learn)
