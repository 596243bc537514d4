"""The ground truth of the revisited sets, ROxford5k and RParis6k, as it is published: a `.pkl` or a `.mat` file.

F. Radenović et al., Revisiting Oxford and Paris: Large-Scale Image Retrieval Benchmarking, CVPR 2018.
"""

import dataclasses
import importlib
import os
import pathlib
import pickle

import numpy as np

_KINDS = ("easy", "hard", "junk")
# All that arrays of numbers need. The files come from the network, and a pickle may otherwise call anything.
_ALLOWED = {
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
    ("__builtin__", "bytes"),
}


@dataclasses.dataclass(frozen=True)
class RevisitedQuery:
    """A query of the revisited ground truth. Photos are named without folder and ending.

    Attributes:
        photo: the photo that the query is cut from; it is not in the index.
        box: (x1, y1, x2, y2) in pixels of that photo.
        easy, hard: the photos that are right. The Easy protocol counts `hard` as junk, Medium takes both, Hard counts `easy` as
            junk.
        junk: the photos that count neither way.
    """

    photo: str
    box: tuple
    easy: frozenset
    hard: frozenset
    junk: frozenset

    @property
    def positives(self) -> frozenset:
        """Those of the Medium protocol."""
        return self.easy | self.hard

    def without(self, names: frozenset) -> "RevisitedQuery":
        """The same query where none of these photos is easy, hard or junk."""
        return dataclasses.replace(self, easy=self.easy - names, hard=self.hard - names, junk=self.junk - names)


def read_revisited(path: str | os.PathLike[str]) -> tuple[list[str], dict[str, RevisitedQuery]]:
    """Reads `gnd_roxford5k` or `gnd_rparis6k`, `.pkl` (indices from 0) or `.mat` (indices from 1).

    Returns:
        The names of the index's photos, in the file's order; and query name -> `RevisitedQuery`. A query is named after its photo.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is not such a ground truth, or a pickle that asks for more than lists, names and numbers.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no ground truth {path}; get it from http://cmp.felk.cvut.cz/revisitop/.")
    read = _read_mat if path.suffix == ".mat" else _read_pickle
    try:
        index, photos, entries = read(path)
        if len(photos) != len(entries):
            raise ValueError(f"{len(photos)} queries, and lists of {len(entries)}")
        queries = {photo: _query(photo, entry, index) for photo, entry in zip(photos, entries)}
    except (LookupError, TypeError, ValueError, AttributeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is not the ground truth of a revisited set: {error}; download it again.") from error
    return index, queries


def _query(photo, entry, index):
    box = tuple(float(corner) for corner in np.ravel(entry["bbx"]))
    if len(box) != 4:
        raise ValueError(f"the query {photo} has a box of {len(box)} numbers")
    lists = {}
    for kind in _KINDS:
        places = [int(place) for place in np.ravel(entry[kind])]
        if any(not 0 <= place < len(index) for place in places):
            raise ValueError(f"the query {photo} has a {kind} photo that is not one of the {len(index)} of the index")
        lists[kind] = frozenset(index[place] for place in places)
    return RevisitedQuery(photo, box, **lists)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no ground truth needs")
        # Names of Python 2 and NumPy 1, and of NumPy 2, which warns where the old one is asked for.
        core = "_core" if hasattr(np, "_core") else "core"
        renamed = module.replace("__builtin__", "builtins").replace(".core.", f".{core}.").replace("._core.", f".{core}.")
        return getattr(importlib.import_module(renamed), name)


def _read_pickle(path):
    with open(path, "rb") as file:
        # The published files were written by Python 2, whose strings of bytes latin1 takes as they are.
        content = _Unpickler(file, encoding="latin1").load()
    return list(content["imlist"]), list(content["qimlist"]), list(content["gnd"])


def _read_mat(path):
    import scipy.io

    try:
        content = scipy.io.loadmat(path)
    except scipy.io.matlab.MatReadError as error:
        raise ValueError(str(error)) from error
    index, photos = ([str(cell.item()) for cell in content[name].ravel()] for name in ("imlist", "qimlist"))
    entries = [
        {"bbx": entry["bbx"], **{kind: np.ravel(entry[kind]).astype("int64") - 1 for kind in _KINDS}}
        for entry in content["gnd"].ravel()
    ]
    return index, photos, entries
