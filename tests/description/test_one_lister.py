"""A folder holds the same photos, whoever reads it."""

import os
import pathlib

import numpy as np
import pytest
from small_indices import held, quiet, save

from rw_keras.datasets.oxford import photos_by_name
from rw_keras.description.learning import fit_whitening
from rw_keras.evaluation.protocol import evaluate
from rw_keras.photos.sources import folder_items, list_photos
from rw_keras.retrieval import Index

NO_TEXT = os.fsdecode(b"\xff\xfe.png")
GOOD = [".hidden.png", ".thumbs/h.png", "album/deep/e.png", "album/f.png", "b.png", "c.png", "d/linked.png", "d/ö 1.PNG"]
BAD = ["away/", "gone.png", "pipe.png", "self.png", "text.jpg", "x.png"]


@pytest.fixture
def odd_tree(tmp_path, draw):
    """Links to folders, loops, links to nothing and to themselves, a pipe, a folder named like a photo, a name that is no text."""
    folder = tmp_path / "photos"
    photos = [name for name in GOOD if not name.startswith("album/") and name != "d/linked.png"]
    for number, name in enumerate([*photos, NO_TEXT, "x.png/g.png", "../elsewhere/deep/e.png", "../elsewhere/f.png"]):
        save(folder / name, draw(number))
    (folder / "album").symlink_to("../elsewhere")
    (folder / "d" / "linked.png").symlink_to("../b.png")
    (folder / "d" / "up").symlink_to("..")
    (tmp_path / "elsewhere" / "back").symlink_to(folder)
    (tmp_path / "elsewhere" / "deep" / "itself").symlink_to(".")
    (folder / "gone.png").symlink_to("none.png")
    (folder / "away").symlink_to("/nowhere/album")
    (folder / "self.png").symlink_to("self.png")
    (folder / "text.jpg").write_text("no photo")
    (folder / "notes.txt").write_text("no photo either")
    os.mkfifo(folder / "pipe.png")
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:PCAWhiten")
def test_all_callers_list_the_same(tiny_model, odd_tree, tmp_path, recwarn):
    model = tiny_model()
    good = sorted([*GOOD, NO_TEXT, "x.png/g.png"], key=lambda name: pathlib.PurePath(name).parts)
    bad = sorted(BAD)

    extracted = quiet(model, odd_tree, tmp_path / "index")
    assert list(held(tmp_path / "index")) == good
    assert sorted(name for name, _ in extracted.failures) == bad

    index = Index.from_folder(model, odd_tree, runtime="tensorflow", progress=False)
    assert index.names == good
    np.testing.assert_allclose(index.descriptors, list(held(tmp_path / "index").values()), atol=1e-6)
    assert dict(index.failures) == dict(extracted.failures)

    assert [item.name for item in folder_items(odd_tree) if item.name not in bad] == good
    faulty = {item.name for item in folder_items(odd_tree) if item.fault is not None}
    assert faulty == {"away/", "pipe.png", "x.png"}
    listed = [name for name in sorted([*good, *bad], key=lambda name: pathlib.PurePath(name).parts) if name not in faulty]
    assert list_photos(odd_tree) == [odd_tree / name for name in listed]
    assert list(photos_by_name(odd_tree).values()) == [odd_tree / name for name in listed]

    learned = fit_whitening(model, odd_tree, progress=False)
    assert learned.provenance["photos"] == len(good)
    assert [path for path, _ in learned.failures] == [odd_tree / name for name in bad if name not in faulty]

    truth = tmp_path / "truth"
    truth.mkdir()
    for kind, line in {"query": "oxc1_b 0 0 30 30", "good": "c\ne", "ok": "", "junk": ""}.items():
        (truth / f"q_{kind}.txt").write_text(line)
    assert evaluate(tiny_model(), odd_tree, truth, progress=False).photos == len(good)
