"""Small indices made of vectors: how they are written, what a reader sees of them, and whether they are whole."""

import json
import os
import pathlib
import sqlite3

import numpy as np

from rw_keras.description.batcher import Window
from rw_keras.description.reader import Reading
from rw_keras.description.update import Update
from rw_keras.model.photo_regions import PhotoRegions
from rw_keras.photos.reading import ImageError
from rw_keras.photos.sources import Item
from rw_keras.retrieval import Index, places, store, sums
from rw_keras.retrieval.int8 import encoded
from rw_keras.retrieval.regions import encode
from rw_keras.retrieval.writer import Writer

RECIPE = {"backbone": "none", "max_side": 64}
DIMENSIONS, WINDOW = 4, 16
REGIONS = {"dtype": "int8", "dimensions": 3}
# What becomes of a photo: its bytes are none, or they cannot be read now.
BAD, AWAY = "bad", "away"


def some_photos(count, seed=0):
    """Name -> (stamp, vector) of photos; every eleventh cannot be decoded, and one in 23 cannot be read now."""
    vectors = np.random.default_rng(seed).standard_normal((count, DIMENSIONS)).astype("float32")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return {
        f"{number:04d}.jpg": ([100 + seed, number], BAD if number % 11 == 10 else AWAY if number % 23 == 22 else vectors[number])
        for number in range(count)
    }


def regions_of(vector):
    """The region vectors of the photo that a descriptor is of: none, or up to five, all made of the descriptor's own numbers."""
    vector = np.asarray(vector, "float32")
    vectors = np.array([np.roll(vector, place) * (place + 1) for place in range(int(abs(vector[0]) * 1e5) % 6)])
    vectors = vectors.reshape(-1, len(vector))
    return PhotoRegions(vectors, np.tile(np.abs(vectors).clip(0, 1), 4)[:, :4])


def check_regions(found, vectors):
    """Checks that each photo of an index has the region vectors that were described with its descriptor, and no others."""
    wanted = encode([regions_of(vector) for vector in vectors], found.about["regions"])
    for one, other in zip(found.regions.kept(slice(None)), wanted):
        np.testing.assert_array_equal(one, other, strict=True)


def as_format(version, folder):
    """An index as the versions before region vectors (3), or before names could be excluded (4), wrote it."""
    with sqlite3.connect(folder / store.DATABASE) as database:
        database.execute("DROP TABLE excluded")
        if version == 3:
            database.execute("DROP TABLE regions")
            database.execute("DELETE FROM about WHERE field IN ('next_region', 'regions')")
        database.execute("UPDATE about SET value = ? WHERE field = 'format'", (f"{version}",))
        totals = json.dumps(sums.of(database))
        database.execute("UPDATE about SET value = ? WHERE field = 'sums'", (totals,))
    database.close()


def some_changes(photos):
    """The same photos later: some changed, some gone, some renamed, some new; of those that were good, two are bad, two away."""
    later, new = dict(photos), some_photos(len(photos), seed=1)
    names = list(photos)
    later.update({name: new[name] for name in names[3::5]})
    for name in names[::13]:
        del later[name]
    later.update({f"renamed {name}": later.pop(name) for name in names[4::17] if name in later})
    later.update({f"new {name}": new[name] for name in names[1::6]})
    later.update({name: ([300, 0], BAD) for name in names[1:6:4]})
    later.update({name: ([300, 0], AWAY) for name in names[2:7:4]})
    return dict(sorted(later.items()))


class _Silent:
    def advance(self, failed, new=True):
        pass


def bring_up_to_date(folder, photos, log=lambda line: None, recipe=RECIPE, **arguments):
    """What `extract` does, with vectors in place of photos. `log` hears of each photo described, and of each that is kept."""
    with places.writer(folder, recipe, DIMENSIONS, **arguments) as writer:
        update = Update(writer, [Item(name, "a file", stamp) for name, (stamp, _) in photos.items()], False, False, True)
        readings = []

        def keep():
            described = [place for place, one in enumerate(readings) if one.error is None]
            vectors = np.array([photos[readings[place].item.name][1] for place in described], "float32").reshape(-1, DIMENSIONS)
            regions = list(map(regions_of, vectors)) if writer.about.get("regions") else None
            update.take(Window(list(readings), described, vectors, regions))
            for place in described:
                log(f"kept {readings[place].item.name} {readings[place].stamp}")
            readings.clear()

        for item, known in update.todo(_Silent()):
            vector = photos[item.name][1]
            if vector is BAD:
                readings.append(Reading(item, known, item.stamp, error=ImageError(f"{item.name} is empty")))
            elif vector is AWAY:
                readings.append(Reading(item, known, None, error=OSError(f"{item.name} is away"), passing=True))
            else:
                log(f"described {item.name} {item.stamp}")
                readings.append(Reading(item, known, item.stamp))
            if len(readings) == WINDOW:
                keep()
        keep()
        update.finish()
    return update


def visible(folder):
    """All that a reader sees of an index, whatever its format: something that can be compared. `None` where there is none."""
    try:
        found = store.read(folder)
    except FileNotFoundError:
        return None
    rows = np.asarray(found.rows if found.places is None else found.rows[found.places])
    known, _, failed = store.records(pathlib.Path(folder), found.about["identity"])
    fields = ("recipe", "dimensions", "dtype", "described_with", "versions", "source", "regions")
    marked = []
    if (folder / store.DATABASE).is_file():
        with sqlite3.connect(folder / store.DATABASE) as database:
            marked = database.execute("SELECT name, fault FROM photos WHERE row IS NOT NULL AND fault IS NOT NULL").fetchall()
        database.close()
    return (
        list(found.names),
        rows.tobytes(),
        [known[number][1:] for number in found.ids.tolist()],
        found.failures,
        sorted(failed.items()),
        found.metadata,
        sorted(marked),
        [found.about.get(field) for field in fields],
        None if found.regions is None else [array.tobytes() for array in found.regions.kept(slice(None))],
        sorted(store.excluded(folder)),
    )


def check_holds(folder, photos, dtype="float32", before=None):
    """Checks that an index holds these photos, each once, and nothing else; those that are away as they were `before`."""
    before = before or {}
    expected = {name: vector for name, (_, vector) in photos.items() if not isinstance(vector, str)}
    expected.update({name: before[name][1] for name, (_, vector) in photos.items() if vector is AWAY and name in before})
    expected = {name: vector for name, vector in expected.items() if not isinstance(vector, str)}
    found = store.read(folder)
    assert sorted(found.names) == sorted(expected)
    rows = np.asarray(found.rows if found.places is None else found.rows[found.places])
    wanted = np.array([expected[name] for name in found.names], dtype).reshape(-1, DIMENSIONS)
    np.testing.assert_array_equal(rows, wanted, strict=True)
    if found.regions is not None:
        check_regions(found, [expected[name] for name in found.names])
    why = {BAD: "is empty", AWAY: "is away"}
    assert found.failures == sorted(
        (name, f"{name} {why[vector]}") for name, (_, vector) in photos.items() if isinstance(vector, str) and name not in expected
    )
    check_whole(folder)


def check_whole(folder):
    """Checks that an index is sound, and that its folder holds no file that is none of it."""
    damages = store.check(folder)
    assert damages == [], damages
    with sqlite3.connect(folder / store.DATABASE) as database:
        files = {file for (file,) in database.execute("SELECT file FROM segments")}
    database.close()
    about = store.about(folder)
    if (about.get("searcher") or {}).get("file"):
        files.add(about["searcher"]["file"])
    # A journal that was broken off before it said anything stays until the next commit; SQLite passes it over.
    found = {path.name for path in folder.iterdir()} - {store.LOCK, f"{store.DATABASE}-journal"}
    assert found == files | {store.DATABASE}, sorted(found ^ (files | {store.DATABASE}))


def write_old(folder, photos, version=2, dtype="float32", recipe=RECIPE, shards=3, journal=0):
    """An index as version 0.1 (format 1) wrote it, or the ones before this store (format 2): shards, and a journal of the last."""
    import hashlib
    import zlib

    folder.mkdir(parents=True, exist_ok=True)
    good = [(name, *photo) for name, photo in photos.items() if not isinstance(photo[1], str)]
    bad = [[name, f"{name} is empty", stamp] for name, (stamp, vector) in photos.items() if isinstance(vector, str)]
    about = {"format": version, "dimensions": DIMENSIONS, "recipe": recipe}

    def vectors(part):
        return encoded(np.array([vector for _, _, vector in part], "float32").reshape(-1, DIMENSIONS), dtype)

    if version == 1:
        np.save(folder / "descriptors-0a1b2c3d4e5f.npy", vectors(good))
        (folder / "names-0a1b2c3d4e5f.json").write_text(json.dumps([name for name, *_ in good]))
        files = {"descriptors": "descriptors-0a1b2c3d4e5f.npy", "names": "names-0a1b2c3d4e5f.json", "count": len(good)}
        (folder / "index.json").write_text(json.dumps({**about, **files}))
        return
    last, entries = good[len(good) - journal :] if journal else [], []
    good = good[: len(good) - len(last)]
    for number in range(shards):
        part = good[number * len(good) // shards : (number + 1) * len(good) // shards]
        content = {"names": [name for name, *_ in part], "stamps": [stamp for _, stamp, _ in part], "failures": []}
        content["metadata"] = {"length": [len(name) for name, *_ in part], "even": [stamp[1] % 2 == 0 for _, stamp, _ in part]}
        if number == 0:
            content["failures"] = bad
        array, text = vectors(part), json.dumps(content).encode()
        digest, photos_digest = hashlib.sha256(array.tobytes()).hexdigest(), hashlib.sha256(text).hexdigest()
        entry = {"descriptors": f"descriptors-{number:05d}-{digest[:12]}.npy", "photos": f"photos-{number:05d}-{digest[:12]}.json"}
        np.save(folder / entry["descriptors"], array)
        (folder / entry["photos"]).write_bytes(text)
        entries.append({**entry, "count": len(part), "sha256": digest, "photos_sha256": photos_digest})
    if last:
        content = {
            "shard": shards,
            "names": [name for name, *_ in last],
            "stamps": [stamp for _, stamp, _ in last],
            "failures": [] if shards else bad,
        }
        text, rows = json.dumps(content).encode(), vectors(last).tobytes()
        numbers = np.array([len(text), len(rows), zlib.crc32(text + rows)], "<u8").tobytes()
        (folder / "journal.bin").write_bytes(numbers + text + rows)
    more = {"source": "/photos", "described_with": [{"engine": "none", "precision": "exact"}], "versions": {"numpy": "2"}}
    more |= {"dtype": dtype, "count": len(good), "next_shard": shards, "engine": {"name": "numpy", "parameters": {}}}
    (folder / "index.json").write_text(json.dumps({**about, **more, "shards": entries}))


def some_rows(count, dimensions=5, dtype="float32", seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, dimensions)).astype("float32")
    return encoded(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9), dtype)


def write(folder, count, dtype="float32", dimensions=5):
    """Writes an index; its rows and names."""
    rows, names = some_rows(count, dimensions, dtype), [f"{number}.jpg" for number in range(count)]
    with Writer(folder, RECIPE, dimensions, dtype) as writer:
        writer.put(names, rows, [[number, 2] for number in range(count)])
        writer.fail("bad.jpg", "is no photo", None)
        writer.finish()
    return rows, names


def rows_of(found):
    return np.asarray(found.rows if found.places is None else found.rows[found.places])


def memory():
    """A folder in memory for what is written a thousand times, where there is one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def damaged(content, kind, chance):
    """The bytes of a file after some damage; `None`: it is gone."""
    content = bytearray(content)
    place = chance.randrange(max(len(content), 1))
    if kind == "gone":
        return None
    if kind == "cut":
        return content[:place]
    if kind == "longer":
        return content + chance.randbytes(chance.choice([1, 100, 5000]))
    if not content:
        return b"x"
    if kind == "flip":
        content[place] ^= 1 << chance.randrange(8)
    elif kind == "other bytes":
        length = chance.choice([1, 4, 16, 64])
        content[place : place + length] = chance.randbytes(len(content[place : place + length]))
    elif kind == "a page of zeros":
        place -= place % 4096
        content[place : place + 4096] = bytes(len(content[place : place + 4096]))
    return bytes(content)


KINDS = ["flip", "flip", "flip", "other bytes", "other bytes", "cut", "gone", "longer", "a page of zeros"]


def observed(folder):
    """All that a reader gets from an index: what it says, and how it answers; or the words with which it refuses."""
    try:
        index = Index.load(folder)
        answers = index.search_batch(np.eye(DIMENSIONS), 200) + index.search_batch(-np.eye(DIMENSIONS), 3)
        if index.regions is not None:
            answers += index.search_batch(np.eye(DIMENSIONS), 200, rerank=200, regions=[np.eye(DIMENSIONS)] * DIMENSIONS)
        near = index.near_duplicates(0.99, groups=True)
        return visible(folder), answers, near, index.searcher_config
    except (ValueError, FileNotFoundError) as error:
        assert str(folder) in str(error), f"it does not name the index: {error!r}"
        assert len(str(error)) < 600
        return f"{type(error).__name__}: {error}"


def importable(module):
    import importlib.util

    return importlib.util.find_spec(module) is not None
