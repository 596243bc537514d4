"""What a run on a cluster refuses before it lists or plans, and what it does not describe; Ray is not started."""

import contextlib

import numpy as np
import pytest
from cluster_runs import contents
from PIL import Image

pytest.importorskip("ray", reason='runs on Ray: pip install "rw_keras[ray]"')
pytest.importorskip("pyarrow", reason='writes Parquet files: pip install "rw_keras[ray]"')

from rw_keras.cluster import actors, nodes, running
from rw_keras.cluster.actors import Actor
from rw_keras.cluster.describing import Settings
from rw_keras.cluster.nodes import Fleet, Node
from rw_keras.cluster.places import Place
from rw_keras.cluster.plan import Plan
from rw_keras.description import job as job_module
from rw_keras.description.extract import extract
from rw_keras.description.job import Job

USUAL = {"max_side": 60, "resume": True, "dtype": None, "regions": None, "region_components": None, "checksum": False}
USUAL |= {"strict": False, "devices": None, "source": None, "runtime": "tensorflow", "precision": "exact", "prune": False}


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    monkeypatch.setattr(nodes, "nodes", list)
    monkeypatch.setattr(nodes, "check_sees", lambda *arguments: None)
    monkeypatch.setattr(actors, "hold_processors", lambda count: [])  # this process is no actor
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "2")


@pytest.fixture
def folders(tmp_path, draw):
    """Two folders with three photos each, of other names."""
    found = []
    for kind in ("typo", "right"):
        folder = tmp_path / kind
        folder.mkdir()
        for number in range(3):
            Image.fromarray(draw(number, 40, 40)).save(folder / f"{number} {kind}.png")
        found.append(folder)
    return found


def run_of(model, photos, place, out):
    """A run, and its job."""
    job = Job.settled(model, photos, out, **USUAL, settings=None)
    plain = {"runtime": "tensorflow", "precision": "exact", "computes_in": "float32"}
    settings = Settings(job.made, described_with=plain)
    return running._Run(job, place, settings, b"model", Fleet(1, 1, 0), 1, False, False), job


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ({"address": "127.0.0.1:1"}, ConnectionError, "There is no Ray cluster at 127.0.0.1:1"),
        ({"address": "ray://127.0.0.1:1"}, ValueError, "is of Ray's client"),
        ({"out": "milvus://127.0.0.1:1/photos"}, ValueError, "is in Milvus, which has no folder for fragments"),
    ],
)
def test_what_is_wrong_is_said_before_photos_are_listed(model, tmp_path, monkeypatch, arguments, error, words):
    monkeypatch.setattr(job_module, "photo_items", lambda photos: pytest.fail("photos were listed"))
    with pytest.raises(error, match=words):
        running.extract(model, "photos", **{"out": tmp_path / "index", "address": "local", **arguments})


@pytest.mark.slow
def test_a_run_with_actors_in_this_process(model, folders, tmp_path, monkeypatch):
    def rows(plan, numbers, fleet, workers, again=False):
        actor = Actor(plan, fleet.processors, workers, again)
        for number in numbers:
            yield {field: values[0] for field, values in actor({"item": np.array([number])}).items()}

    monkeypatch.setattr(running, "_rows", rows)
    monkeypatch.setattr(nodes, "connected", lambda address: contextlib.nullcontext())
    monkeypatch.setattr(nodes, "nodes", lambda: [Node("a", "10.0.0.1", 2, 0.0)])
    monkeypatch.setattr(nodes, "free_resources", lambda: {"a": {"CPU": 2.0}})
    monkeypatch.setattr(nodes, "check_alike", lambda found: None)
    options = {"runtime": "tensorflow", "max_side": 60, "progress": False}
    for number in range(2):
        done = running.extract(model, folders[0], tmp_path / "index", processors=2, **options)
        usual = extract(model, folders[0], tmp_path / "plain", **options)
        assert str(done) == str(usual) and contents(tmp_path / "index") == contents(tmp_path / "plain")
        (folders[0] / "1 typo.png").write_bytes(b"no photo")
        (folders[0] / f"{number + 2} typo.png").rename(folders[0] / f"{number + 3} typo.png")
    assert not (tmp_path / "index" / "fragments").exists()


def test_machines_are_asked_before_the_plan_is_written(model, folders, tmp_path, monkeypatch):
    place, asked = Place.of(tmp_path / "fragments"), []

    def check_sees(found, place, name, source):
        asked.append((place.read(name), source.name))
        raise ValueError("does not find")

    monkeypatch.setattr(nodes, "check_sees", check_sees)
    run, job = run_of(model, folders[0], place, tmp_path / "index")
    with job.opened() as (writer, update), pytest.raises(ValueError, match="does not find"):
        run.describe(writer, update)
    ((_, name),) = asked
    assert name == "0 typo.png" and not (tmp_path / "fragments").exists()


def test_a_plan_of_another_source_is_not_described(model, folders, tmp_path, monkeypatch):
    place, out, described = Place.of(tmp_path / "fragments"), tmp_path / "index", []

    def describe_all(plan, numbers, fleet, workers, bar):
        described.append(list(numbers))
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "describe_all", describe_all)
    run, job = run_of(model, folders[0], place, out)
    with job.opened() as (writer, update), pytest.raises(KeyboardInterrupt):
        run.describe(writer, update)
    assert described == [[0]] and Plan.found(place).photos == 3
    run, job = run_of(model, folders[1], place, out)
    with job.opened() as (writer, update):
        assert run.finish_plan(writer, update) == 0
        assert described == [[0]] and Plan.found(place) is None
        with pytest.raises(KeyboardInterrupt):
            run.describe(writer, update)
    assert [item.name for item, _ in Plan.found(place).todo(0)] == [f"{number} right.png" for number in range(3)]


def test_fragments_of_another_index_are_refused_and_may_be_removed(model, folders, tmp_path):
    place = Place.of(tmp_path / "fragments")
    run, job = run_of(model, folders[0], place, tmp_path / "index")
    Plan.make(place, [(item, None) for item in job.items], run.settings, b"model", "an index that is gone")
    with job.opened() as (writer, update), pytest.raises(ValueError, match="or remove the fragments where that index is gone"):
        run.finish_plan(writer, update)
    assert Plan.found(place).photos == 3


def test_only_what_the_source_still_lists_is_described(model, folders, tmp_path, monkeypatch):
    from rw_keras.cluster import fragments

    monkeypatch.setattr(fragments, "PHOTOS", 1)
    place, out, described = Place.of(tmp_path / "fragments"), tmp_path / "index", []

    def describe_all(plan, numbers, fleet, workers, bar):
        described.append(list(numbers))
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "describe_all", describe_all)
    for _ in range(2):
        run, job = run_of(model, folders[0], place, out)
        with job.opened() as (writer, update), pytest.raises(KeyboardInterrupt):
            run.finish_plan(writer, update) or run.describe(writer, update)
        Image.fromarray(np.zeros((9, 9, 3), "uint8")).save(folders[0] / "1 typo.png")
    assert described == [[0, 1, 2], [0, 2]]
