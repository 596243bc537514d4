"""Learns a whitening from a folder of photos and writes it to a file. Those that ship with the package were made so.

python examples/learn_whitening.py --photos photos/train --output whitening.npz --max_side 512

Those: --photos with 322 photos of Paris6k, --name paris6k, --recommended_shrinkage 0.2; for AlexNet --weights with a file
of Caffe's weights whose kernels are rounded to 1/1024, and a --note that says so.
"""

import sys

from absl import app, flags

import rw_keras
from rw_keras.commands.cli import in_flags
from rw_keras.model.whitening import Whitening, check_file
from rw_keras.regions import MOST_LEVELS

_PHOTOS = flags.DEFINE_string("photos", None, "Folder of the photos to learn from.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "The .npz file to write.", required=True)
_BACKBONE = flags.DEFINE_string("backbone", "vgg16", "The network.")
_WEIGHTS = flags.DEFINE_string("weights", "imagenet", "The network's weights: 'imagenet', or a file.")
_METHOD = flags.DEFINE_string("method", "rw", "The method.")
_LEVELS = flags.DEFINE_integer("levels", 3, "Scales of the regional grid.", 1, MOST_LEVELS)
_WHITEN = flags.DEFINE_enum(
    "whiten", "regions", ["regions", "global"], "What is whitened, and so learned on: each region's vector, or their sum."
)
_MAX_SIDE = flags.DEFINE_integer("max_side", 1024, "Longer side, in pixels, that photos are reduced to.", lower_bound=1)
_NAME = flags.DEFINE_string("name", None, "What the set is called in the provenance. Default: the folder's name.")
_NOTE = flags.DEFINE_string("note", None, "A sentence for the provenance.")
_SHRINKAGE = flags.DEFINE_float("recommended_shrinkage", None, "The shrinkage to recommend to users of the file.")


def main(_):
    try:
        learn()
    except (ValueError, OSError, ImportError) as error:
        print(f"learn_whitening.py: {in_flags(str(error), set(flags.FLAGS))}", file=sys.stderr)
        return 1
    return 0


def learn():
    """Learns the whitening, writes it, and prints what it is."""
    check_file(_OUTPUT.value)  # before the photos are read
    model = rw_keras.build_descriptor(
        _BACKBONE.value,
        weights=_WEIGHTS.value,
        method=_METHOD.value,
        levels=_LEVELS.value,
        whitening=None,
        whiten=_WHITEN.value,
    )
    learned = rw_keras.fit_whitening(model, _PHOTOS.value, max_side=_MAX_SIDE.value, name=_NAME.value)
    notes = {"recommended_shrinkage": _SHRINKAGE.value, "note": _NOTE.value}
    learned.provenance.update({key: value for key, value in notes.items() if value is not None})
    learned.save(_OUTPUT.value)
    found = Whitening.load(_OUTPUT.value)
    print(f"{_OUTPUT.value}: {found.describe()}")
    print(
        f"eigenvalues: largest {found.eigenvalues[0]:.3g}, middle {found.eigenvalues[len(found.eigenvalues) // 2]:.3g}, "
        f"smallest {found.eigenvalues[-1]:.3g}"
    )


if __name__ == "__main__":
    app.run(lambda arguments: sys.exit(main(arguments)))
