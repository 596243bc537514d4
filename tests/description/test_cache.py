import concurrent.futures
import contextlib
import re
import shutil
import sqlite3

import numpy as np
import pytest
from PIL import Image

import rw_keras
from rw_keras.description import cache as described_cache
from rw_keras.description.cache import DescriptorStore, describe_cached
from rw_keras.description.describe import describe
from rw_keras.photos.sources import list_photos


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache" / "of descriptors"


def run(model, paths, boxes=None, **arguments):
    return describe_cached(model, paths, boxes, progress=False, **arguments)


def test_without_a_cache(model, photo_folder, computed):
    paths = list_photos(photo_folder)
    vectors, failures = run(model, paths)
    assert failures == []
    assert len(computed) == len(paths)
    np.testing.assert_array_equal(vectors, describe(model, paths))


def test_a_second_run_computes_nothing(model, photo_folder, cache, computed):
    paths = list_photos(photo_folder)
    first, _ = run(model, paths, cache=cache)
    computed.clear()
    second, failures = run(model, paths, cache=cache)
    assert computed == []
    assert failures == []
    np.testing.assert_array_equal(second, first)
    assert np.shape(second) == (6, 12)


def test_takes_the_folder_as_text(model, photo_folder, cache, computed):
    run(model, [photo_folder / "a.png"], cache=str(cache))
    run(model, [str(photo_folder / "a.png")], cache=cache)
    assert len(computed) == 1


def test_only_what_is_new_is_computed(model, photo_folder, cache, computed):
    paths = list_photos(photo_folder)
    run(model, paths[1:4], cache=cache)
    computed.clear()
    vectors, _ = run(model, paths, cache=cache)
    assert len(computed) == len(paths) - 3
    np.testing.assert_array_equal(vectors, describe(model, paths))


def test_bytes_count_and_not_names(model, photo_folder, cache, computed):
    paths = list_photos(photo_folder)
    before, _ = run(model, paths, cache=cache)
    (photo_folder / "a.png").rename(photo_folder / "moved.png")
    shutil.copyfile(photo_folder / "d.png", photo_folder / "b.png")
    computed.clear()
    after, _ = run(model, [photo_folder / "moved.png", photo_folder / "b.png"], cache=cache)
    assert computed == []
    np.testing.assert_array_equal(after, [before[paths.index(photo_folder / name)] for name in ("a.png", "d.png")])


def test_changed_bytes_are_computed_anew(model, photo_folder, cache, computed, draw):
    paths = list_photos(photo_folder)
    run(model, paths, cache=cache)
    Image.fromarray(draw(99)).save(paths[0])
    computed.clear()
    vectors, _ = run(model, paths, cache=cache)
    assert len(computed) == 1
    np.testing.assert_array_equal(vectors, describe(model, paths))


def test_another_box_is_computed_anew(model, photo_folder, cache, computed):
    path = photo_folder / "a.png"
    boxes = [None, (0, 0, 30, 30), (0, 0, 30, 31), (0.6, 0, 30, 30)]
    for box in boxes:
        run(model, [path], [box], cache=cache)
    assert len(computed) == len(boxes)
    vectors, _ = run(model, [path] * len(boxes), boxes, cache=cache)
    assert len(computed) == len(boxes)
    np.testing.assert_array_equal(vectors, [describe(model, path, box) for box in boxes])


def test_another_size_is_computed_anew(model, photo_folder, cache, computed):
    path = photo_folder / "a.png"
    for max_side in (1024, 32, 33, None):
        (vector,), _ = run(model, [path], cache=cache, max_side=max_side)
        np.testing.assert_array_equal(vector, describe(model, path, max_side=max_side))
    assert len(computed) == 2 * 4  # once for the cache and once by `describe`; 1024 and None share nothing


@pytest.mark.slow
def test_another_model_is_computed_anew(model, tiny_model, photo_folder, cache, computed):
    path = photo_folder / "a.png"
    whitened = tiny_model(shrinkage=0.2)
    rw_keras.fit_whitening(whitened, photo_folder, progress=False)
    models = [model, tiny_model(seed=1), tiny_model(levels=2), tiny_model(method="sum"), whitened]
    for one in models:
        computed.clear()
        (vector,), _ = run(one, [path], cache=cache)
        assert len(computed) == 1
        np.testing.assert_array_equal(vector, describe(one, path))
    computed.clear()
    for one in [*models, tiny_model()]:
        run(one, [path], cache=cache)
    assert computed == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of memory")], ids=repr)
def test_an_interrupted_run_keeps_what_it_had(model, photo_folder, cache, computed, error):
    paths = list_photos(photo_folder)
    computed.interrupt(4, error)
    with pytest.raises(type(error)):
        run(model, paths, cache=cache)
    computed.clear()
    computed.before.clear()
    vectors, _ = run(model, paths, cache=cache)
    assert len(computed) == len(paths) - 3
    np.testing.assert_array_equal(vectors, describe(model, paths))


def test_what_is_new_is_on_the_disk_a_second_later(model, photo_folder, cache, computed, monkeypatch):
    paths = list_photos(photo_folder)
    clock = iter(range(0, 10000, 2))
    monkeypatch.setattr(described_cache.time, "monotonic", lambda: next(clock))
    kept = []

    def look():
        (file,) = cache.glob("*.sqlite")
        with contextlib.closing(sqlite3.connect(file)) as connection:
            kept.extend(np.frombuffer(row, "<f4") for (row,) in connection.execute("SELECT vector FROM descriptors"))

    computed.before[3] = look
    run(model, paths, cache=cache)
    np.testing.assert_array_equal(sorted(map(tuple, kept)), sorted(map(tuple, describe(model, paths[:2]))))


def test_unreadable_photos_are_reported_and_not_kept(model, photo_folder, cache, draw):
    (photo_folder / "b_text.jpg").write_text("no photo")
    (photo_folder / "more" / "empty.png").touch()
    paths = [*list_photos(photo_folder), photo_folder / "none.png"]
    unreadable = [photo_folder / "b_text.jpg", photo_folder / "more" / "empty.png", photo_folder / "none.png"]
    for _ in range(2):
        vectors, failures = run(model, paths, cache=cache)
        assert [path for path, _ in failures] == unreadable
        assert all(str(path) in reason for path, reason in failures)
        assert [path for path, vector in zip(paths, vectors) if vector is None] == unreadable
    Image.fromarray(draw(5)).save(photo_folder / "none.png")
    vectors, failures = run(model, paths, cache=cache)
    assert len(failures) == 2
    np.testing.assert_array_equal(vectors[-1], describe(model, photo_folder / "none.png"))


def test_nothing_readable_leaves_no_file(model, tmp_path, cache):
    vectors, failures = run(model, [tmp_path / "none.png"], cache=cache)
    assert vectors == [None]
    assert len(failures) == 1
    assert not cache.exists()


def test_two_processes_at_once(model, photo_folder, cache, computed):
    """Another writes amid this one's run; neither loses anything."""
    paths = list_photos(photo_folder)
    computed.before[2] = lambda: run(model, paths[3:], cache=cache)
    run(model, paths[:3], cache=cache)
    computed.clear()
    computed.before.clear()
    vectors, _ = run(model, paths, cache=cache)
    assert computed == []
    np.testing.assert_array_equal(vectors, describe(model, paths))


def made():
    return {"backbone": "tiny abc", "max_side": 64}


@pytest.mark.slow
def test_many_writers(tmp_path):
    """Threads stand for processes: each has a connection of its own, as processes have."""
    every = {f"photo {number}": np.full(3, number, "float32") for number in range(200)}

    def write(start):
        with DescriptorStore(tmp_path, made(), 3) as store:
            for key in list(every)[start : start + 80]:
                store.add(key, every[key])
                store.commit()

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(0, 160, 40)))
    with DescriptorStore(tmp_path, made(), 3) as store:
        found = store.get([*every, "none"])
    assert found.keys() == every.keys()
    for key, vector in every.items():
        np.testing.assert_array_equal(found[key], vector)


def test_more_keys_than_a_statement_takes(tmp_path):
    with DescriptorStore(tmp_path, made(), 1) as store:
        for number in range(1201):
            store.add(str(number), np.array([number]))
    with DescriptorStore(tmp_path, made(), 1) as store:
        assert {key: vector[0] for key, vector in store.get(map(str, range(1201))).items()} == {str(n): n for n in range(1201)}


def test_a_writer_that_is_killed_loses_what_was_not_committed(tmp_path):
    store = DescriptorStore(tmp_path, made(), 2)
    store.add("committed", np.ones(2))
    store.commit()
    store.add("waiting", np.ones(2))
    store._connection.execute("BEGIN IMMEDIATE")
    store._connection.execute("INSERT INTO descriptors VALUES ('amid', x'00', 0)")
    store._connection.close()  # as the end of its process does
    with DescriptorStore(tmp_path, made(), 2) as store:
        assert list(store.get(["committed", "waiting", "amid"])) == ["committed"]


def filled(folder):
    with DescriptorStore(folder, made(), 64) as store:
        for number in range(50):
            store.add(f"photo {number}", np.full(64, number, "float32"))
    return store.path


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"no database" * 1000,
        lambda content: content[:100] + bytes(900) + content[1000:],
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(np.full(64, 7, "<f4").tobytes(), np.full(64, 8, "<f4").tobytes()),
    ],
    ids=["other content", "zeros", "cut", "other values"],
)
def test_a_damaged_file_is_refused_and_named(tmp_path, damage):
    path = filled(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))} is damaged: .*; remove it"):  # noqa: SIM117
        with DescriptorStore(tmp_path, made(), 64) as store:
            store.get(f"photo {number}" for number in range(50))


def test_a_file_of_another_recipe_is_refused(tmp_path):
    path = filled(tmp_path)
    with DescriptorStore(tmp_path, {**made(), "max_side": 32}, 64) as store:
        pass
    path.replace(store.path)
    with pytest.raises(ValueError, match=r"another recipe .*; remove it"):
        DescriptorStore(tmp_path, {**made(), "max_side": 32}, 64)


def test_another_database_is_refused(tmp_path):
    path = filled(tmp_path)
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE other (one)")
    with pytest.raises(ValueError, match=r"is damaged: no such table: about; remove it"):
        DescriptorStore(tmp_path, made(), 64)


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        DescriptorStore(tmp_path / "file", made(), 64)
    monkeypatch.setattr(described_cache, "_PATIENCE", 0.01)
    path = filled(tmp_path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(OSError, match=r"cannot be read or written: database is locked"):
            DescriptorStore(tmp_path, made(), 64)


class TestEarlierFiles:
    """Those that were written before there was a database."""

    def earlier(self, folder, keys, vectors):
        with DescriptorStore(folder, made(), 3) as store:
            pass
        store.path.unlink()
        np.savez(store.path.with_suffix(".npz"), keys=np.array(keys), vectors=vectors)
        return store.path.with_suffix(".npz")

    def test_are_taken_over(self, tmp_path):
        vectors = np.arange(6, dtype="float32").reshape(2, 3)
        self.earlier(tmp_path, ["a whole", "b whole"], vectors)
        with DescriptorStore(tmp_path, made(), 3) as store:
            found = store.get(["a whole", "b whole", "c whole"])
        assert list(found) == ["a whole", "b whole"]
        np.testing.assert_array_equal(list(found.values()), vectors)

    def test_a_damaged_one_is_refused_and_named(self, tmp_path):
        path = self.earlier(tmp_path, ["a whole"], np.zeros((1, 3)))
        path.write_bytes(path.read_bytes()[:-30])
        for _ in range(2):  # nothing half done is left behind
            with pytest.raises(ValueError, match=rf"{re.escape(str(path))} does not hold .*; remove it"):
                DescriptorStore(tmp_path, made(), 3)
