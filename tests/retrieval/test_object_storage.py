import json
import os
import shutil

import numpy as np
import pytest
from servers import s3_of_module  # noqa: F401 (a fixture)

from rw_keras import storage
from rw_keras.retrieval import Index, object_storage, store
from rw_keras.retrieval.object_storage import pull, push

pytestmark = pytest.mark.cloud


@pytest.fixture(autouse=True)
def impatient_storage(monkeypatch):
    monkeypatch.setattr(storage, "FIRST_WAIT", 0.01)


def vectors(count, seed=0):
    found = np.random.default_rng(seed).normal(size=(count, 8)).astype("float32")
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.fixture
def index(tmp_path, monkeypatch):
    """An index of 25 photos in three files of rows, one of whose names is no text."""
    monkeypatch.setattr(store, "SEGMENT_ROWS", 10)
    names = [f"a/{number}.jpg" for number in range(24)] + [os.fsdecode(b"\xff.jpg")]
    made = Index(names, vectors(25), metadata={"city": ["Oxford"] * 25})
    made.save(tmp_path / "index")
    return tmp_path / "index"


def same(one, other):
    one, other = Index.load(one), Index.load(other)
    assert list(one.names) == list(other.names) and one.metadata == other.metadata
    np.testing.assert_array_equal(one.descriptors[:], other.descriptors[:])


@pytest.fixture(params=["s3", "file", "memory"])
def url(request, tmp_path):
    if request.param == "s3":
        return f"s3://{request.getfixturevalue('s3').bucket()}/indices/my photos"
    return f"file://{tmp_path}/far" if request.param == "file" else f"memory://{tmp_path.name}/far"


def test_goes_and_comes_back(index, url, tmp_path):
    sent = push(index, url)
    assert (sent.photos, sent.files, sent.sent) == (25, 4, sent.bytes)
    pulled = pull(url, tmp_path / "pulled")
    assert (pulled.photos, pulled.sent) == (25, sent.bytes)
    same(index, tmp_path / "pulled")
    assert store.check(tmp_path / "pulled") == []
    assert not (tmp_path / ".pulled.pulled").exists()


def test_what_is_there_is_not_sent_again(index, url, tmp_path):
    first = push(index, url)
    assert push(index, url).sent == 0
    changed = Index.load(index)
    changed.add(["new.jpg"], vectors(1, 5), metadata={"city": ["Paris"]})
    changed.save(index)
    again = push(index, url)
    assert 0 < again.sent < first.bytes + 32
    pull(url, tmp_path / "pulled")
    same(index, tmp_path / "pulled")
    files, root = storage.filesystem(url)
    kept = {path.rpartition("/")[2] for path in files.ls(f"{root}/files", detail=False)}
    assert kept == {entry["sha256"] for entry in json.loads(files.cat_file(f"{root}/manifest.json"))["files"]}


def test_a_push_that_fails_leaves_the_earlier_copy(index, s3, tmp_path):
    url = f"s3://{s3.bucket()}/index"
    push(index, url)
    earlier = tmp_path / "earlier"
    shutil.copytree(index, earlier)
    changed = Index.load(index)
    changed.remove(["a/3.jpg"])
    changed.add([f"b/{number}.jpg" for number in range(30)], vectors(30, 5), metadata={"city": [None] * 30})
    changed.save(index)
    # As the process would be killed: with its third object.
    puts, real = [], object_storage._send

    def send(*arguments):
        puts.append(arguments)
        if len(puts) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(object_storage, "_send", send)
        push(index, url)
    pull(url, tmp_path / "pulled")
    same(earlier, tmp_path / "pulled")
    before = len(s3.faults.seen)
    push(index, url)
    puts = [path for method, path in s3.faults.seen[before:] if method == "PUT"]
    assert len(puts) == len(json.loads(s3.files.cat_file(f"{url}/manifest.json"))["files"]) - 2 + 1 - _in_common(earlier, index)
    pull(url, tmp_path / "new")
    same(index, tmp_path / "new")


def _in_common(one, other):
    """Files of rows that two indices have in common."""
    contents = {path.read_bytes() for path in one.glob("rows-*.bin")}
    return sum(path.read_bytes() in contents for path in other.glob("rows-*.bin"))


def test_a_pull_that_fails_goes_on(index, s3, tmp_path):
    url = f"s3://{s3.bucket()}/index"
    whole = push(index, url)
    manifest = json.loads(s3.files.cat_file(f"{url}/manifest.json"))
    largest = max(manifest["files"], key=lambda entry: entry["bytes"])
    s3.faults.plan(503, 10_000, largest["sha256"], "GET")
    with pytest.raises(storage.StorageError, match="cannot be reached now"):
        pull(url, tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()
    s3.faults._planned.clear()
    pulled = pull(url, tmp_path / "pulled")
    assert 0 < pulled.sent <= whole.bytes
    same(index, tmp_path / "pulled")


def test_faults_that_pass(index, s3, tmp_path):
    url = f"s3://{s3.bucket()}/index"
    for method in ("PUT", "GET", "HEAD"):
        s3.faults.plan(503, 2, "index", method)
    push(index, url)
    s3.faults.plan("cut", 2, "index/files")
    pull(url, tmp_path / "pulled")
    same(index, tmp_path / "pulled")


def test_storage_that_keeps_other_bytes(index, s3, monkeypatch, tmp_path):
    url = f"s3://{s3.bucket()}/index"
    real = object_storage._send

    def damaging(files, key, file, size, url):
        real(files, key, file, size, url)
        content = bytearray(files.cat_file(key))
        content[0] ^= 1
        files.pipe_file(key, bytes(content))

    with monkeypatch.context() as patch, pytest.raises(storage.StorageError, match="keeps other bytes"):
        patch.setattr(object_storage, "_send", damaging)
        push(index, url)
    with pytest.raises(FileNotFoundError, match="There is no index at"):
        pull(url, tmp_path / "pulled")
    push(index, url)
    pull(url, tmp_path / "pulled")
    same(index, tmp_path / "pulled")


def test_a_copy_that_was_damaged_is_refused(index, s3, tmp_path):
    url = f"s3://{s3.bucket()}/index"
    push(index, url)
    manifest = json.loads(s3.files.cat_file(f"{url}/manifest.json"))
    key = f"{url}/files/{manifest['files'][1]['sha256']}"
    content = s3.files.cat_file(key)
    s3.files.pipe_file(key, bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(ValueError, match="holds other bytes of"):
        pull(url, tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()


def test_what_is_refused(index, s3, tmp_path):
    bucket = s3.bucket()
    s3.files.pipe_file(f"{bucket}/photos/a.jpg", b"x")
    with pytest.raises(ValueError, match=r"holds 'a.jpg' and is no copy"):
        push(index, f"s3://{bucket}/photos")
    with pytest.raises(FileNotFoundError, match="There is no index at"):
        push(tmp_path / "none", f"s3://{bucket}/none")
    push(index, f"s3://{bucket}/index")
    with pytest.raises(ValueError, match="There is something at"):
        pull(f"s3://{bucket}/index", index)
    for act in (Index.load, store.about, lambda url: Index(["a"], vectors(1)).save(url)):
        with pytest.raises(ValueError, match=f"s3://{bucket}/index is no folder on this machine; `rw-keras pull URL NAME`"):
            act(f"s3://{bucket}/index")
    rows = next(index.glob("rows-*.bin"))
    rows.write_bytes(bytes([rows.read_bytes()[0] ^ 1]) + rows.read_bytes()[1:])
    with pytest.raises(ValueError, match="is damaged"):
        push(index, f"s3://{bucket}/index")


@pytest.mark.parametrize("is_other", [True, False])
def test_a_copy_of_another_index_or_of_a_later_state_stays(index, url, tmp_path, is_other):
    earlier = tmp_path / "earlier"
    if is_other:
        Index(["a.jpg"], vectors(1)).save(earlier)
    else:
        shutil.copytree(index, earlier)
        changed = Index.load(index)
        changed.add(["new.jpg"], vectors(1, 5), metadata={"city": ["Paris"]})
        changed.save(index)
    push(index, url)
    with pytest.raises(ValueError, match="copy of another index" if is_other else "has a later state of the index") as raised:
        push(earlier, url)
    for folder in (earlier, index):
        about = store.about(folder)
        assert f"({about['identity' if is_other else 'generation']}, {len(Index.load(folder))} photos)" in str(raised.value)
    pull(url, tmp_path / "pulled")
    same(index, tmp_path / "pulled")
    push(earlier, url, replace=True)
    pull(url, tmp_path / "again")
    same(earlier, tmp_path / "again")


def test_files_of_a_copy_on_a_disk_are_there_before_its_manifest(index, tmp_path, monkeypatch):
    synced, real = [], os.fsync

    def fsync(descriptor):
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    sent = push(index, f"file://{tmp_path}/far")
    *objects, manifest = [path for path in synced if path.startswith(f"{tmp_path}/far/") and ".part-" in path]
    assert len(objects) == sent.files and all("/files/" in path for path in objects) and "/files/" not in manifest


def test_a_state_is_sent_while_the_index_is_written(index, s3, tmp_path, monkeypatch):
    url = f"s3://{s3.bucket()}/index"
    shutil.copytree(index, tmp_path / "before")
    real = object_storage._send

    def writing(*arguments):
        monkeypatch.setattr(object_storage, "_send", real)
        changed = Index.load(index)
        changed.remove([f"a/{number}.jpg" for number in range(20)])
        changed.add(["new.jpg"], vectors(1, 5), metadata={"city": [None]})
        changed.save(index)
        return real(*arguments)

    monkeypatch.setattr(object_storage, "_send", writing)
    push(index, url)
    pull(url, tmp_path / "pulled")
    same(tmp_path / "before", tmp_path / "pulled")
    assert len(Index.load(index)) == 6
