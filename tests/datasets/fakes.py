"""Sets made up for the tests, in the very files that the real ones are published as. No real photo, no real ground truth."""

import dataclasses
import io
import pathlib
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

from rw_keras.datasets.oxford import PARIS6K_CORRUPT

_LANDMARKS = ("all_souls", "keble")


def jpeg(name):
    """A photo of 8 x 8 pixels whose bytes are not those of any other name: decoders read to the end marker, and no further."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 100, 50)).save(buffer, "JPEG")
    return buffer.getvalue() + name.encode()


@dataclasses.dataclass(frozen=True)
class Fake:
    """A made-up set.

    Attributes:
        names: its photos, those that are corrupt among them.
        texts: file name -> content of its ground truth.
        queries: how many queries that has.
    """

    names: list
    texts: dict
    queries: int


def oxford(photos=20, queries=4):
    names = [f"{_LANDMARKS[number % 2]}_{number:06d}" for number in range(photos)]
    return Fake(names, _texts(names, queries, "oxc1_"), queries)


def paris(photos=20, queries=4):
    """So many usable photos, and the 20 that are corrupt; one of these is among the positives of the first query."""
    names = [f"paris_defense_{number:06d}" for number in range(photos)]
    texts = _texts(names, queries, "")
    texts["landmark_0_good.txt"] += f"{min(PARIS6K_CORRUPT)}\n"
    return Fake(sorted([*names, *PARIS6K_CORRUPT]), texts, queries)


def _texts(names, queries, prefix):
    texts = {}
    for number in range(queries):
        query, good, ok, junk = (names[(4 * number + step) % len(names)] for step in range(4))
        texts[f"landmark_{number}_query.txt"] = f"{prefix}{query} 1.5 0 7.25 {number % 3 + 5}\n"
        texts[f"landmark_{number}_good.txt"] = f"{query}\n{good}\n"
        texts[f"landmark_{number}_ok.txt"] = f"{ok}\r\n"
        texts[f"landmark_{number}_junk.txt"] = junk if number else ""
    return texts


def revisited(names, queries):
    """The content of a `gnd_*.pkl`: the last photos are the queries, the others, backwards, the index."""
    names = [name for name in names if name not in PARIS6K_CORRUPT]
    index = names[: len(names) - queries][::-1]
    entries = [
        {
            "bbx": [1.5, 0.0, 7.25, 6.0],
            "easy": np.array([number % len(index)]),
            "hard": [(number + 1) % len(index), (number + 2) % len(index)],
            "junk": np.array([], "int64"),
        }
        for number in range(queries)
    ]
    return {"imlist": index, "qimlist": names[len(names) - queries :], "gnd": entries}


def write_tgz(path, contents):
    """An archive of name -> bytes or str."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in contents.items():
            content = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def write_files(folder, contents):
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def write_oxford(manual, fake, packed=True):
    if packed:
        write_tgz(manual / "oxbuild_images-v1.tgz", {f"{name}.jpg": jpeg(name) for name in fake.names} | {"._x.jpg": b""})
        write_tgz(manual / "gt_files_170407.tgz", {"README": "not a list", **fake.texts})
    else:
        write_files(manual / "oxford5k" / "jpg", {f"{name}.jpg": jpeg(name) for name in fake.names})
        write_files(manual / "oxford5k" / "gt", fake.texts)


def write_paris(manual, fake, packed=True):
    half = len(fake.names) // 2
    if packed:
        for number, names in enumerate((fake.names[:half], fake.names[half:]), 1):
            write_tgz(manual / f"paris_{number}.tgz", {f"paris/{name.split('_')[1]}/{name}.jpg": jpeg(name) for name in names})
        write_tgz(manual / "paris_120310.tgz", {f"paris_120310/{name}": text for name, text in fake.texts.items()})
    else:
        photos = {f"paris/{name.split('_')[1]}/{name}.jpg": jpeg(name) for name in fake.names}
        write_files(manual / "paris6k", photos)
        write_files(manual / "paris6k" / "gt", fake.texts)


def write_distractors(manual, count=12):
    """In folders of ten thousand, one name in each of them."""
    folder = manual / "oxford100k" / "oxc1_100k"
    content = jpeg("distractor")
    for number in range(count):
        path = folder / f"tag{number % 10}" / f"photo_{number // 10:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def write_pickle(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))


def write_mat(path, content):
    """The same as a `.mat` file: cells of names, a structure of lists, indices from 1."""
    scipy_io = pytest.importorskip("scipy.io")
    kinds = ("easy", "hard", "junk", "bbx")
    entries = np.empty((len(content["gnd"]), 1), [(kind, "O") for kind in kinds])
    for number, entry in enumerate(content["gnd"]):
        lists = (np.asarray(entry[kind], "int32")[None] + 1 for kind in kinds[:3])
        entries[number, 0] = (*lists, np.array([entry["bbx"]]))
    names = {key: np.array([content[key]], "O") for key in ("imlist", "qimlist")}
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy_io.savemat(path, {**names, "gnd": entries})


def write_all(manual, packed=True, oxford=oxford(), paris=paris(), distractors=12, revisited_queries=4):  # noqa: B008
    """Everything that the seven sets need, in one manual folder."""
    manual = pathlib.Path(manual)
    write_oxford(manual, oxford, packed)
    write_paris(manual, paris, packed)
    write_distractors(manual, distractors)
    write_pickle(manual / "gnd_roxford5k.pkl", revisited(oxford.names, revisited_queries))
    if packed:
        write_pickle(manual / "gnd_rparis6k.pkl", revisited(paris.names, revisited_queries))
    else:
        write_mat(manual / "rparis6k" / "gnd_rparis6k.mat", revisited(paris.names, revisited_queries))
