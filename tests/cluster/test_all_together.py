"""From a folder to storage, to a cluster, to Milvus and back: each reads, changes and writes what the others have written."""

import numpy as np
import pytest
from cluster_runs import contents
from PIL import Image
from servers import s3_of_module  # noqa: F401 (a fixture)

import rw_keras
from rw_keras import cluster
from rw_keras.retrieval import Index, object_storage, store
from rw_keras.service import changes

pytestmark = [pytest.mark.cluster]
SIZES = ((40, 32), (24, 48))


@pytest.fixture(scope="module", autouse=True)
def with_all():
    for module, extra in (("ray", "ray"), ("s3fs", "cloud"), ("pymilvus", "milvus"), ("milvus_lite", "milvus")):
        pytest.importorskip(module, reason=f'reads and writes everywhere: pip install "rw_keras[{extra}]"')


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model(seed=5)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    spots = np.random.default_rng(1).integers(0, 256, (60, 6, 8, 3), "uint8")
    for number, own in enumerate(spots):
        name = f"{'below/' if number % 4 == 0 else ''}photo {number:02d} +#%.png"
        Image.fromarray(own).resize(SIZES[number % 3 == 0]).save(folder / name)
    (folder / "bad.png").write_bytes(b"no photo")
    return folder


def plain(model, photos, out, **options):
    return rw_keras.extract(model, photos, out, runtime="tensorflow", regions="int8", progress=False, **options)


def hits(place, model, query):
    with_regions = Index.open(place).search_photo(model, query, k=9, rerank=20)
    expanded = Index.open(place).search_photo(model, query, k=9, expand=4, rerank=None)
    return [[(name, round(score, 5)) for name, score in found] for found in (with_regions, expanded)]


def test_an_index_goes_round(model, photos, s3, tmp_path):
    url, query = f"s3://{s3.bucket()}/photos", photos / "photo 07 +#%.png"
    s3.put(photos, url)
    plain(model, photos, tmp_path / "local", checksum=True)

    # The photos move to storage, and are known again by their bytes.
    moved = plain(model, url, tmp_path / "local", checksum=True)
    assert (moved.described, moved.kept, len(moved.failures)) == (0, 60, 1)

    # A cluster that shares nothing but storage makes the same index of them.
    options = {"runtime": "tensorflow", "regions": "int8", "checksum": True, "progress": False}
    fragments = f"s3://{s3.bucket()}/fragments"
    done = cluster.extract(model, url, tmp_path / "many", address="local", fragments=fragments, **options)
    assert (done.described, len(done.failures)) == (60, 1)
    plain(model, url, tmp_path / "one", checksum=True)
    one, many = Index.load(tmp_path / "one"), Index.load(tmp_path / "many")
    assert (one.names, one.failures) == (many.names, many.failures)
    np.testing.assert_allclose(one.descriptors, many.descriptors, atol=1e-6)  # threads of two processes share sums in two ways
    assert s3.files.find(fragments) == []

    # In Milvus it is found, changed by an update, and brought back.
    place = f"milvus://{tmp_path / 'index.db'}"
    from rw_keras.retrieval.milvus import transfer

    transfer.push(tmp_path / "many", place)
    assert hits(place, model, query) == hits(tmp_path / "many", model, query) == hits(tmp_path / "local", model, query)
    s3.files.rm_file(f"{url}/photo 01 +#%.png")
    Image.fromarray(np.full((32, 40, 3), 90, "uint8")).save(tmp_path / "new.png")
    s3.files.pipe_file(f"{url}/new.png", (tmp_path / "new.png").read_bytes())
    for out in (place, tmp_path / "many"):
        updated = plain(model, url, out, checksum=True)
        assert (updated.described, updated.removed, len(updated.failures)) == (1, 1, 1), out
    transfer.pull(place, tmp_path / "back")
    assert store.check(tmp_path / "back") == []
    for there in (place, tmp_path / "back"):
        assert hits(there, model, query) == hits(tmp_path / "many", model, query)

    # What came back goes to storage, is deleted from, and grows on a cluster; what was deleted stays so.
    copy = f"s3://{s3.bucket()}/copy"
    object_storage.push(tmp_path / "back", copy)
    object_storage.pull(copy, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "back")
    index = Index.load(tmp_path / "again")
    index.remove(["new.png"])
    index.save(tmp_path / "again")
    changes.delete(tmp_path / "again", "photo 02 +#%.png")
    s3.files.pipe_file(f"{url}/newer.png", query.read_bytes())
    grown = cluster.extract(model, url, tmp_path / "again", address="local", fragments=fragments, **options)
    assert {"newer.png", "new.png"} <= {*Index.load(tmp_path / "again").names}
    assert "photo 02 +#%.png" not in Index.load(tmp_path / "again").names
    assert (grown.described, grown.excluded) == (2, 1)
    assert store.check(tmp_path / "again") == []
