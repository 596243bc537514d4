"""Draws docs/weights.jpg: what counts in a photo, and why a harder view of it agrees with it.

python docs/draw_weights.py docs/weights.jpg      (needs the extras `demo`, which brings the photos, and `plot`)
"""

import sys

from matplotlib.figure import Figure

import rw_keras


def main(path):
    photos, views = rw_keras.photos.embedded.load()
    model = rw_keras.build_descriptor(shrinkage=0.2)
    figure = Figure(figsize=(10, 8.3), dpi=110)
    above, below = figure.subfigures(2, 1, height_ratios=(3.85, 4.45))
    rw_keras.views.plot.weights(model, photos["temple"], figure=above)
    rw_keras.views.plot.agreement(model, photos["temple"], views["temple, perspective"].photo, figure=below)
    figure.savefig(path, pil_kwargs={"quality": 85})


if __name__ == "__main__":
    main(*sys.argv[1:])
