"""An actor without Ray: which fragment of two tries is kept, what is tried again, and what becomes of errors."""

import os
import tempfile

import numpy as np
import pytest
from PIL import Image

from rw_keras.cluster import actors, running
from rw_keras.cluster.actors import Actor, hold_processors
from rw_keras.cluster.describing import Describing, Settings
from rw_keras.cluster.fragments import about_of
from rw_keras.cluster.nodes import Fleet, Node
from rw_keras.cluster.places import Place
from rw_keras.cluster.plan import Plan
from rw_keras.description.progress import Progress
from rw_keras.photos.items import Item
from rw_keras.photos.remote import Remote
from rw_keras.photos.sources import photo_items

pytest.importorskip("pyarrow", reason='writes Parquet files: pip install "rw_keras[ray]"')
AWAY = 3


@pytest.fixture
def photos(tmp_path, draw):
    """Twelve photos, the first three of which are links to a disk that is away."""
    folder, disk = tmp_path / "photos", tmp_path / "disk"
    folder.mkdir()
    for number in range(12):
        path = folder / f"{number:02d}.png"
        if number < AWAY:
            path.symlink_to(disk / path.name)
        else:
            Image.fromarray(draw(number, 40, 40)).save(path)
    return folder


@pytest.fixture
def plan(model, photos, tmp_path):
    path = tmp_path / "model.keras"
    model.save(path)
    settings = Settings({**model.recipe, "max_side": 60})
    todo = ((item, None) for item in photo_items(photos))
    return Plan.make(Place.of(tmp_path / "fragments"), todo, settings, path.read_bytes(), "index")


@pytest.fixture(autouse=True)
def moments(monkeypatch):
    """What is done while an actor waits, one thing each time."""
    waiting = []
    monkeypatch.setattr(actors, "hold_processors", lambda count: [])  # this process is no actor
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "2")
    monkeypatch.setattr(actors.time, "sleep", lambda seconds: waiting.pop(0)() if waiting else None)
    return waiting


def comes_back(photos, draw, count):
    disk = photos.parent / "disk"
    disk.mkdir(exist_ok=True)
    for number in range(count):
        Image.fromarray(draw(number, 40, 40)).save(disk / f"{number:02d}.png")


def goes(photos, count):
    for number in range(AWAY, AWAY + count):
        path = photos / f"{number:02d}.png"
        path.unlink()
        path.symlink_to("nowhere.png")


def described(actor):
    rows = actor({"item": np.array([0])})
    return {field: values[0] for field, values in rows.items()}


def passing(plan):
    return sum(plan.fragment(0).passing)


@pytest.mark.slow
@pytest.mark.parametrize("gone, kept", [(0, 0), (8, AWAY)])
def test_the_better_of_two_tries_is_kept(plan, photos, draw, moments, gone, kept):
    moments.append(lambda: (comes_back(photos, draw, AWAY), goes(photos, gone)))
    row = described(Actor(plan, 2))
    assert (row["fault"], row["failed"], row["doubtful"], passing(plan)) == ("", kept, kept, kept)


@pytest.mark.slow
def test_the_last_pass_describes_what_has_come_back_and_nothing_else(plan, photos, draw):
    described(Actor(plan, 2))
    (path,) = (photos.parent / "fragments").glob("*.parquet")
    before, actor = path.stat().st_mtime_ns, Actor(plan, 2, again=True)
    row = described(actor)
    assert (row["photos"], row["failed"], row["doubtful"]) == (12, AWAY, AWAY)
    assert actor._describing is None and path.stat().st_mtime_ns == before  # nothing can be read, so no model is loaded
    comes_back(photos, draw, 1)
    goes(photos, 5)
    assert described(actor)["failed"] == passing(plan) == AWAY
    assert actor._describing is not None and path.stat().st_mtime_ns == before  # what came of it is worse
    for number in range(AWAY, AWAY + 5):
        (photos / f"{number:02d}.png").unlink()
        Image.fromarray(draw(number, 40, 40)).save(photos / f"{number:02d}.png")
    assert described(actor)["failed"] == passing(plan) == AWAY - 1


@pytest.mark.slow
@pytest.mark.parametrize("back", [0, 1])
def test_what_stays_away_is_not_described_a_second_time(plan, photos, draw, monkeypatch, back):
    """The driver's passes, with actors in this process."""
    calls, passes = [], []
    real = Describing.__call__

    def describing(self, todo):
        calls.append(len(todo))
        return real(self, todo)

    def rows(plan, numbers, fleet, workers, again=False):
        passes.append(again)
        if again:
            comes_back(photos, draw, back)
        actor = Actor(plan, fleet.processors, workers, again)
        for number in numbers:
            yield {field: values[0] for field, values in actor({"item": np.array([number])}).items()}

    monkeypatch.setattr(Describing, "__call__", describing)
    monkeypatch.setattr(running, "_rows", rows)
    monkeypatch.setattr(running.nodes, "nodes", lambda: [Node("a", "10.0.0.1", 2, 0.0)])
    with Progress(plan.photos, False) as bar:
        running.describe_all(plan, [0], Fleet(1, 2, 0), "auto", bar)
    assert passes == [False, True]
    assert calls == [12] * (1 + back) and passing(plan) == AWAY - back


def test_photos_that_are_not_there_are_no_sign_of_a_disk_that_is_away(plan, photos):
    pytest.importorskip("fsspec", reason='object storage: pip install "rw_keras[cloud]"')
    (photos.parent / "model.keras").write_bytes(plan.model())
    describing = Describing(photos.parent / "model.keras", plan.settings)
    items = [Item(f"{number}.jpg", Remote(f"memory://no-such-bucket/{number}.jpg")) for number in range(4)]
    (photos / "a.png").write_bytes(b"")
    items += [Item("gone.png", str(photos / "00.png"))]
    table = describing([(item, None) for item in items])
    assert table["passing"].to_pylist() == [True] * 5
    assert about_of(table)["doubtful"] == 1


class NetworkError(Exception):
    """As those of runtimes, which are no OSError."""


@pytest.mark.parametrize("error, is_final", [(NetworkError("out of memory"), False), (ValueError("another model"), True)])
def test_no_error_vanishes(plan, error, is_final):
    actor = Actor(plan, 2)

    def failing(todo):
        raise error

    actor._describing = failing
    row = described(actor)
    assert str(error) in row["fault"] and row["is_final"] == is_final
    assert plan.unfinished() == [0]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="processors are held on Linux only")
def test_links_in_the_folder_for_temporary_files_are_not_followed(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("content")
    kept = []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    monkeypatch.setattr(os, "sched_setaffinity", lambda process, held: kept.append(set(held)))
    for processor in (0, 1):
        (tmp_path / f"rw_keras-{os.getuid()}-processor-{processor}.lock").symlink_to(victim)
    assert hold_processors(1) == [] and kept == []
    assert victim.read_text() == "content"
    (tmp_path / f"rw_keras-{os.getuid()}-processor-1.lock").unlink()
    (file,) = hold_processors(1)
    assert kept == [{1}]
    file.close()
