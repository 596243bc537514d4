"""Fine-tunes a network and its whitening on labelled photos, and says whether that helped on other landmarks.

    python examples/fine_tune.py --photos landmarks/ --output tuned.keras \\
        --test oxford5k/jpg --labels oxford5k/gt

`landmarks/` holds a folder of photos for each thing. Contrastive loss (Radenovic, Tolias and Chum, 2019): a photo, another one of
the same thing, and the photos of other things that the network confuses with it most, which the package's index finds anew before
every epoch. The whitening begins as the PCA-whitening of these photos and is learned with the network.

Killed and started again with the same flags, it goes on with the epoch that it was in, to the same result.
"""

import os

import keras
import numpy as np
from keras import ops
from PIL import Image, ImageOps

import rw_keras
from rw_keras.commands import model_flags
from rw_keras.commands.parser import Parser, number, text, whole_number
from rw_keras.commands.programs import refuse_arguments, run_program
from rw_keras.evaluation import evaluate_index
from rw_keras.files import checked_path
from rw_keras.layers.principal_axes import drawn, undrawn
from rw_keras.model.build import head_stages, through
from rw_keras.photos.reading import read_image
from rw_keras.photos.sources import list_photos


def flags():
    """The program's flags."""
    parser = Parser(description=__doc__)
    parser.flag("photos", "Folder with a folder of photos for each thing.", text("FOLDER"), required=True)
    parser.flag("output", "The .keras file to write.", text("FILE"), required=True)
    parser.flag("test", "Photos to test on, of other things.", text("FOLDER"))
    parser.flag("labels", "What they show: as `rw-keras evaluate` takes it.", text("LABELS"), "folders")
    parser.section("The model")
    parser.flag("backbone", "The network.", text("NAME"), "alexnet")
    parser.flag("weights", "The network's weights: `imagenet` or a file.", text("FILE"), "imagenet")
    parser.flag("method", "The method, such as gem or rw.", text("NAME"), "gem")
    parser.flag("shrinkage", "Of the PCA-whitening that training begins with.", number(0, 1), 0.2)
    model_flags.add_whiten_on(parser, "global")
    parser.section("Training")
    parser.flag("epochs", "Epochs.", whole_number(1), 5)
    parser.flag("tuples", "Tuples an epoch: a photo, one of the same thing, and negatives.", whole_number(1), 200)
    parser.flag("negatives", "Negatives in a tuple, each of another thing.", whole_number(1), 4)
    parser.flag("batch", "Tuples a step.", whole_number(1), 4)
    parser.flag("side", "Photos are cut to squares of so many pixels a side.", whole_number(32), 224)
    parser.flag("margin", "Negatives farther away than this are left alone.", number(0), 0.7)
    parser.flag("learning_rate", "Adam's learning rate.", number(0), 1e-6)
    parser.flag("seed", "Of all that is drawn.", whole_number(0), 0)
    parser.switch("mixed_precision", "Compute in bfloat16, and keep weights in float32.")
    model_flags.add_max_side(parser, 512)
    return parser


def fine_tune(values):
    """Trains, writes the model, and measures it before and after."""
    refuse_arguments("fine_tune.py", values)
    output = checked_path(values.output)
    if values.shrinkage == 1:
        raise ValueError("--shrinkage 1 gives all axes one length, which training could not change; choose a number below 1.")
    keras.utils.set_random_seed(values.seed)
    if values.mixed_precision:
        keras.config.set_dtype_policy("mixed_bfloat16")
    things = read_things(values.photos)
    model = rw_keras.build_descriptor(
        values.backbone,
        weights=values.weights,
        method=values.method,
        whiten_on=values.whiten_on,
        shrinkage=values.shrinkage,
        whitening=None,
    )
    rw_keras.fit_whitening(model, [path for photos in things.values() for path in photos], values.max_side, values.photos)
    before = None if values.test is None else measure(model, values)

    trained = trainable(model)
    tuples = Tuples(things, values)
    trained.compile(keras.optimizers.Adam(values.learning_rate), loss=contrastive_loss(tuples.size, values.margin))
    trained.fit(
        tuples,
        epochs=values.epochs,
        shuffle=False,
        callbacks=[
            keras.callbacks.BackupAndRestore(f"{output}.backup"),  # first: it restores what the negatives are found with
            HardNegatives(tuples),
            keras.callbacks.TerminateOnNaN(),
        ],
        verbose=2,
    )
    take_back(trained, model, values)
    model.save(output)
    print(f"wrote {output}")
    if before is not None:
        after = measure(model, values)
        print(f"before: mAP {before.interval()}\nafter:  mAP {after.interval()}\nthe difference: {after.difference(before)}")


def read_things(folder):
    """Thing -> paths of its photos, at least two."""
    things = {}
    for path in list_photos(folder):
        things.setdefault(os.path.dirname(path), []).append(str(path))
    things = {name: paths for name, paths in things.items() if len(paths) > 1}
    if len(things) < 2:
        raise ValueError(f"{folder} has {len(things)} folders of two photos or more; it takes at least two things to tell apart.")
    return things


def trainable(model):
    """The model with a dense layer in place of its whitening, which begins as the whitening does."""
    whitening = model.get_layer("whitening")
    mean, axes, eigenvalues = (
        keras.ops.convert_to_numpy(one) for one in (whitening.mean, whitening.eigenvectors, whitening.eigenvalues)
    )
    spread = drawn(eigenvalues, whitening.shrinkage)
    kernel = axes / np.sqrt(np.maximum(spread, 1e-6 * spread.max()))
    dense = keras.layers.Dense(kernel.shape[1], dtype="float32", name="learned_whitening")
    stages = head_stages(dense, model.recipe.whiten_on)
    trained = keras.Model(model.input, through(stages, model.get_layer("region_norm").input))
    dense.set_weights([kernel, -mean @ kernel])
    return trained


def take_back(trained, model, values):
    """Puts what the dense layer has learned into the model's whitening; the network's weights are shared."""
    kernel, bias = (np.asarray(one, "float64") for one in trained.get_layer("learned_whitening").get_weights())
    mean = -np.linalg.lstsq(kernel.T, bias, rcond=None)[0]
    lengths = np.linalg.norm(kernel, axis=0)
    whitening = model.get_layer("whitening")
    # An axis of unit length over the root of its variance is the kernel's column.
    whitening.assign(mean, kernel / lengths, undrawn(1 / lengths**2, whitening.shrinkage), whitening.count)
    model.note_whitening({**model.whitening_provenance, "name": f"{values.photos}, fine-tuned, seed {values.seed}"})


class Tuples(keras.utils.PyDataset):
    """Batches of tuples: a photo, another one of the same thing, and hard negatives; squares `(batch * size, side, side, 3)`.

    Which these are is drawn anew by `draw`, from a seed of the epoch's, so that a run that goes on draws what it would have drawn.
    """

    def __init__(self, things, values):
        super().__init__()
        self.paths = [path for paths in things.values() for path in paths]
        self.labels = np.repeat(np.arange(len(things)), [len(paths) for paths in things.values()])
        self.size = 2 + min(values.negatives, len(things) - 1)
        self._side, self._batch, self._count, self._seed = values.side, values.batch, values.tuples, values.seed
        self._tuples = np.zeros((values.tuples, self.size), int)  # Keras looks at one before the first are drawn

    def __len__(self):
        return -(-self._count // self._batch)

    def __getitem__(self, step):
        rows = self._tuples[step * self._batch : (step + 1) * self._batch]
        return self.squares(rows.ravel()), np.zeros(rows.size, "float32")  # that nothing is said of single photos

    def squares(self, positions):
        """Photos `(n, side, side, 3)`: reduced, and the middle cut out."""
        photos = [Image.fromarray(read_image(self.paths[position])) for position in positions]
        return np.stack([np.asarray(ImageOps.fit(photo, (self._side, self._side)), "float32") for photo in photos])

    def draw(self, descriptors, epoch):
        """Draws tuples: photos and matches at random, negatives the nearest photos of other things, one of each."""
        random = np.random.default_rng([self._seed, epoch])
        index = rw_keras.retrieval.Index(list(map(str, range(len(self.paths)))), descriptors)
        asked = random.permutation(np.resize(random.permutation(len(self.paths)), self._count))
        for row, position in enumerate(asked):
            same = self.labels == self.labels[position]
            match = random.choice([other for other in np.flatnonzero(same) if other != position])
            nearest = [int(name) for name, _ in index.search(descriptors[position], int(np.sum(~same)), within=~same)]
            _, first = np.unique(self.labels[nearest], return_index=True)
            self._tuples[row] = [position, match, *(nearest[place] for place in np.sort(first)[: self.size - 2])]


class HardNegatives(keras.callbacks.Callback):
    """Before every epoch, has tuples drawn by what the network finds alike now."""

    def __init__(self, tuples):
        super().__init__()
        self._tuples = tuples

    def on_epoch_begin(self, epoch, logs=None):
        positions = np.array_split(np.arange(len(self._tuples.paths)), -(-len(self._tuples.paths) // 32))
        found = [self.model.predict_on_batch(self._tuples.squares(part)) for part in positions]
        self._tuples.draw(np.concatenate(found), epoch)


def contrastive_loss(size, margin):
    """Of tuples of `size` photos: the first, one that matches, and others that do not."""

    def loss(_, descriptors):
        tuples = ops.reshape(descriptors, (-1, size, descriptors.shape[-1]))
        squares = ops.sum(ops.square(tuples[:, 1:] - tuples[:, :1]), axis=-1)
        distances = ops.sqrt(squares + 1e-6)
        negatives = ops.sum(ops.square(ops.maximum(margin - distances[:, 1:], 0.0)), axis=-1)
        return (squares[:, 0] + negatives) / 2

    return loss


def measure(model, values):
    """mAP on the photos to test on."""
    index = rw_keras.retrieval.Index.from_folder(model, values.test, max_side=values.max_side, runtime="keras")
    return evaluate_index(index, values.labels, model=model, photos=values.test)


if __name__ == "__main__":
    run_program(flags(), fine_tune)
