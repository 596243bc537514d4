"""Extraction on real Ray clusters of several nodes on this machine. The result is each time the index of one machine.

`pytest -m cluster` runs the short form, of one minute or two on a machine at rest. With the variable RW_KERAS_CLUSTER_FAULTS set it
runs the long form as well, in which one thing after the other breaks.
"""

import os
import re
import subprocess
import sys
import time

import cluster_runs
import numpy as np
import pytest
from cluster_runs import contents, finished, kill, started, wait_for
from PIL import Image

import rw_keras
from rw_keras.cluster import extract
from rw_keras.retrieval import Index, store

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(sys.platform != "linux", reason="ends processes as Linux does"),
]
faults = pytest.mark.skipif("RW_KERAS_CLUSTER_FAULTS" not in os.environ, reason="takes minutes: set RW_KERAS_CLUSTER_FAULTS=1")
COUNT = 3100


@pytest.fixture(scope="module", autouse=True)
def with_ray():
    pytest.importorskip("ray", reason='runs Ray: pip install "rw_keras[ray]"')
    with cluster_runs.apart():
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Small photos for four fragments, of which some cannot be read, in two sizes."""
    folder = tmp_path_factory.mktemp("source") / "photos"
    folder.mkdir()
    spots = np.random.default_rng(0).integers(0, 256, (COUNT, 6, 8, 3), "uint8")
    for number, own in enumerate(spots):
        Image.fromarray(own).resize(((64, 48), (40, 64))[number % 3 == 0]).save(folder / f"{number:05d}.png", compress_level=1)
    for number in (17, 1500, 1501, 3090):
        (folder / f"{number:05d} bad.png").write_bytes(b"no photo")
    return folder


@pytest.fixture(scope="module")
def model_file(tmp_path_factory, tiny_model):
    path = tmp_path_factory.mktemp("model") / "model.keras"
    tiny_model().save(path)
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory, photos, model_file):
    """The index of one machine, by one processor as the actors have one."""
    out = tmp_path_factory.mktemp("plain") / "index"
    done = cluster_runs.run(cluster_runs.PLAIN, model_file, photos, out)
    output, errors = done.communicate(timeout=300)
    assert done.returncode == 0, errors
    assert output.strip() == f"{COUNT} described, 4 left out; {COUNT} photos in the index"
    return out


def end_of(run):
    """What a run printed; its errors, where it has failed."""
    output, errors = run.communicate(timeout=300)
    assert run.returncode == 0, errors
    return output.strip()


def same(out, plain):
    assert contents(out) == contents(plain)
    assert store.check(out) == []
    assert len(Index.load(out)) == COUNT


@faults
def test_local(model_file, photos, plain, tmp_path, capfd):
    """Ray on this machine alone: started, and stopped at the end."""
    out, model = tmp_path / "index", rw_keras.load_model(model_file)
    done = extract(
        model,
        photos,
        out,
        address="local",
        processors=1,
        runtime="tensorflow",
        max_side=64,
        keep_fragments=True,
        fragments=tmp_path / "fragments",
    )
    assert (done.described, done.kept, len(done.failures)) == (COUNT, 0, 4)
    assert done.network_seconds > 0
    same(out, plain)
    fragments = sorted((tmp_path / "fragments").iterdir())
    assert [re.fullmatch(r"[0-9a-f]{8}-0000000\d\.parquet", path.name) is not None for path in fragments] == [True] * 4
    import ray

    assert not ray.is_initialized()
    wait_for(lambda: not cluster_runs.actors(), 20)
    again = extract(model, photos, out, address="local", processors=1, max_side=64, progress=False)
    assert (again.described, again.kept) == (0, COUNT)
    assert [line for line in capfd.readouterr().err.splitlines() if "Ray" in line or "ray" in line] == []


def test_a_killed_driver_and_a_lost_node(model_file, photos, plain, tmp_path):
    """The driver is killed and started again, and then a node goes for good, with what it had in hand."""
    out = tmp_path / "index"
    with cluster_runs.cluster(2) as nodes:
        first = started(model_file, photos, out, nodes.address)
        wait_for(lambda: finished(out) >= 1)
        kill(first.pid)
        first.communicate()
        wait_for(lambda: not cluster_runs.actors())
        before = finished(out)
        assert 1 <= before < 4
        second = started(model_file, photos, out, nodes.address)
        wait_for(lambda: len(cluster_runs.actors()) == 2)
        nodes.remove_node(nodes.others[0], allow_graceful=False)
        assert end_of(second) == f"{COUNT} described, 4 left out; {COUNT} photos in the index"
    same(out, plain)
    assert not (out / "fragments").exists()


def test_refusals(model_file, photos, tmp_path):
    """All before the first photo, and before there is an index."""
    out, model = tmp_path / "index", rw_keras.load_model(model_file)
    with pytest.raises(ConnectionError, match=r"no Ray cluster at \S+:1 .*ray start --head"):
        extract(model, photos, out, address=f"{cluster_runs.ADDRESS}:1")
    with cluster_runs.cluster(1) as nodes:
        for arguments, words in (
            ({"processors": 3}, r"An actor takes 3 processors, and no machine of the cluster has as many: \S+ has 1"),
            ({"processors": 1, "actors": 2}, "so 1 actor fit on the cluster, and you asked for 2"),
            ({"gpus": 1}, "An actor takes 1 processor and 1 GPU, and no machine"),
            ({"processors": 0}, "processors is a whole number of at least 1, or None, but got 0"),
        ):
            with pytest.raises(ValueError, match=words):
                extract(model, photos, out, address=nodes.address, **arguments)
        with pytest.raises(ValueError, match="is an array"):
            extract(model, [np.zeros((48, 64, 3), "uint8")], out, address=nodes.address)
        other = tmp_path / "other" / "pillow-9.0.0.dist-info"
        other.mkdir(parents=True)
        (other / "METADATA").write_text("Metadata-Version: 2.1\nName: pillow\nVersion: 9.0.0\n")
        path = os.pathsep.join([str(other.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        nodes.add_node(num_cpus=1, **cluster_runs.NODE, env_vars={"PYTHONPATH": path})
        nodes.wait_for_nodes()
        with pytest.raises(ValueError, match=r"not alike: pillow is 9\.0\.0 on \S+, and \S+ on"):
            extract(model, photos, out, address=nodes.address)
    assert not out.exists()


@faults
def test_an_actor_is_killed(model_file, photos, plain, tmp_path):
    out = tmp_path / "index"
    with cluster_runs.cluster(3) as nodes:
        run = started(model_file, photos, out, nodes.address)
        wait_for(lambda: finished(out) >= 1)
        kill(cluster_runs.actors()[0])
        end_of(run)
    same(out, plain)


@faults
def test_a_node_of_three_is_killed(model_file, photos, plain, tmp_path):
    out = tmp_path / "index"
    with cluster_runs.cluster(3) as nodes:
        run = started(model_file, photos, out, nodes.address)
        wait_for(lambda: finished(out) >= 1)
        nodes.remove_node(nodes.others[1], allow_graceful=False)
        end_of(run)
    same(out, plain)


@faults
def test_the_photos_are_away_for_a_moment(model_file, photos, plain, tmp_path):
    out, away = tmp_path / "index", photos.with_name("away")
    with cluster_runs.cluster(3) as nodes:
        run = started(model_file, photos, out, nodes.address)
        wait_for(lambda: finished(out) >= 1)
        photos.rename(away)
        time.sleep(5)
        away.rename(photos)
        end_of(run)
    same(out, plain)


@faults
def test_a_full_disk(model_file, photos, plain, tmp_path):
    """The run ends with what is finished on the disk, and goes on when there is room."""
    out = tmp_path / "index"
    out.mkdir()
    (out / "fragments").mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", out / "fragments"]).returncode:
        pytest.skip("mounts a small disk, which takes root")
    try:
        with cluster_runs.cluster(3) as nodes:
            run = started(model_file, photos, out, nodes.address)
            _, errors = run.communicate(timeout=300)
            assert run.returncode
            assert re.search(r"[1-4] of 4 fragments are not finished \(.*No space left on device.*Run again to go on", errors), (
                errors
            )
            subprocess.run(["mount", "-o", "remount,size=50m", out / "fragments"], check=True)
            end_of(started(model_file, photos, out, nodes.address))
    finally:
        subprocess.run(["umount", out / "fragments"], check=True)
    same(out, plain)
