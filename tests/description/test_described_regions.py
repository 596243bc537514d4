"""Region vectors from photos to a re-ranked search: what `extract` keeps of them, through interruptions, updates and devices."""

import pathlib
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from small_indices import held, quiet, save

import rw_keras
from rw_keras.description import batcher
from rw_keras.description.describe import describe
from rw_keras.model.presets import PRESETS, Preset
from rw_keras.photos.reading import ImageError
from rw_keras.retrieval import Index, store

SIZES = ((64, 48), (48, 64), (40, 40), (96, 32))  # of the last one there are fewer regions
PRESET = Preset("tried", max_side=60, dtype="float16", regions="int8", region_components=9, rerank=5, expand=3)


@pytest.fixture(autouse=True)
def small_steps(monkeypatch):
    monkeypatch.setattr(batcher, "WINDOW", 8)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "index"


@pytest.fixture
def folder(tmp_path, draw):
    """Twenty small photos of four sizes, and a black one, which has no features."""
    folder = tmp_path / "photos"
    for number in range(20):
        save(folder / f"{'more/' * (number % 3 == 2)}{number:03d}.png", draw(number, *SIZES[number % 4]))
    save(folder / "black.png", np.zeros((40, 50, 3), "uint8"))
    return folder


def regions_of(out):
    """Name -> the region vectors that an index holds; nothing of it is damaged."""
    held(out)
    index = Index.load(out)
    return {name: index.regions[position] for position, name in enumerate(index.names)}


def assert_described(regions, folder, model, components=12, atol=0.01, **arguments):
    """That region vectors are those of the photos, as they were rounded."""
    for name, own in regions.items():
        expected = describe(model, folder / name, regions=True, **arguments).regions
        cut = expected.vectors[:, :components].astype("float64")
        lengths = np.linalg.norm(cut, axis=1, keepdims=True)
        cut = np.divide(cut, lengths, out=np.zeros_like(cut), where=lengths > 0)
        np.testing.assert_allclose(own.vectors, cut, atol=atol)
        np.testing.assert_allclose(own.boxes, expected.boxes, atol=1e-4)


def assert_same(one, other):
    assert list(one) == list(other)
    for name, own in one.items():
        for values, expected in zip(own, other[name]):
            np.testing.assert_array_equal(values, expected)


def later(path, draw, seed):
    """Another photo in place of one that is there."""
    time.sleep(0.01)
    save(path, draw(seed, 56, 40))


class TestFirstRun:
    @pytest.mark.parametrize(("dtype", "components", "atol"), [("int8", None, 0.01), ("float16", 5, 0.001)])
    def test_are_those_of_describe(self, model, folder, out, dtype, components, atol):
        done = quiet(model, folder, out, regions=dtype, region_components=components, max_side=60)
        assert (done.described, len(done.failures)) == (21, 0)
        assert store.about(out)["regions"] == {"dtype": dtype, "dimensions": components or 12}
        found = regions_of(out)
        assert len({len(own.vectors) for own in found.values()}) > 1
        assert not found["black.png"].vectors.any()
        assert_described(found, folder, model, components or 12, atol, max_side=60)

    def test_descriptors_are_those_of_an_index_without(self, model, folder, out, tmp_path):
        quiet(model, folder, out, regions="int8")
        quiet(model, folder, tmp_path / "plain")
        assert store.about(tmp_path / "plain").get("regions") is None
        assert Index.load(tmp_path / "plain").regions is None
        for name, vector in held(tmp_path / "plain").items():
            np.testing.assert_allclose(held(out)[name], vector, atol=1e-6)

    def test_a_search_re_ranks_by_them(self, model, folder, out):
        """Against the statement of the score, in float64."""
        quiet(model, folder, out, regions="int8")
        index = Index.load(out)
        query = describe(model, folder / "001.png", (2, 3, 40, 50), regions=True)
        first = [name for name, _ in index.search(query, 21)]
        kept = {name: own.vectors.astype("float64") for name, own in regions_of(out).items()}
        scores = {name: float((query.regions.vectors.astype("float64") @ kept[name].T).max(axis=1).mean()) for name in first[:6]}
        expected = sorted(first[:6], key=lambda name: -scores[name]) + first[6:]
        found = index.search(query, 21, rerank=6)
        assert [name for name, _ in found] == expected
        np.testing.assert_allclose([score for _, score in found[:6]], [scores[name] for name in expected[:6]], atol=1e-5)
        assert index.search_photo(model, folder / "001.png", (2, 3, 40, 50), k=21, rerank=6) == found

    @pytest.mark.slow
    @pytest.mark.parametrize("devices", [["CPU:0", "CPU:0"]], ids=len)
    def test_of_several_devices(self, model, folder, out, tmp_path, devices):
        quiet(model, folder, out, regions="int8")
        quiet(model, folder, tmp_path / "named", regions="int8", devices=devices)
        assert_same(regions_of(out), regions_of(tmp_path / "named"))

    def test_a_model_without_them_is_refused_at_once(self, tiny_model, folder, out):
        model = tiny_model(whitening="auto", whiten_on="global")
        for described_by in (model, rw_keras.runtimes.load(model, "tensorflow")):
            with pytest.raises(ValueError, match=r'no whitened region vectors.*whiten_on="global"'):
                quiet(described_by, folder, out, regions="int8")
            with pytest.raises(ValueError, match='whiten_on="global"'):
                Index.from_folder(described_by, folder, regions="int8", runtime="tensorflow", progress=False)
        assert not out.exists()
        assert quiet(model, folder, out).described == 21


class TestContradictions:
    @pytest.mark.parametrize(
        ("made", "asked", "words"),
        [
            ({"regions": "int8"}, {"regions": None}, "int8.*None"),
            ({"regions": "int8"}, {"regions": "float16"}, "int8.*float16"),
            ({"regions": "int8"}, {"region_components": 5}, "12.*5"),
            ({"regions": "int8", "region_components": 5}, {"regions": "int8", "region_components": 12}, "5.*12"),
            ({}, {"regions": "float16"}, "no.*float16"),
            ({}, {"region_components": 5}, "without region vectors.*region_components=5"),
        ],
        ids=str,
    )
    def test_both_values_are_told_before_anything_is_described(self, model, folder, out, computed, made, asked, words):
        quiet(model, folder, out, **made)
        before = {path.name: path.read_bytes() for path in pathlib.Path(out).iterdir()}
        computed.clear()
        save(folder / "new.png", np.zeros((40, 40, 3), "uint8"))
        with pytest.raises(ValueError, match=words) as caught:
            quiet(model, folder, out, **asked)
        assert "resume=False" in str(caught.value)
        assert computed == []
        assert {path.name: path.read_bytes() for path in pathlib.Path(out).iterdir()} == before

    def test_anew_it_is_as_asked(self, model, folder, out):
        quiet(model, folder, out)
        quiet(model, folder, out, regions="int8", region_components=7, resume=False)
        assert_described(regions_of(out), folder, model, 7)
        quiet(model, folder, out, regions="float16", resume=False)
        assert_described(regions_of(out), folder, model, 12, 0.001)
        quiet(model, folder, out, regions=None, resume=False)
        assert Index.load(out).regions is None
        assert len(held(out)) == 21


class TestUpdates:
    def test_new_changed_and_gone(self, model, folder, out, draw):
        quiet(model, folder, out, regions="int8", region_components=8)
        before = regions_of(out)
        later(folder / "004.png", draw, 99)
        save(folder / "new.png", draw(98, 72, 40))
        for name in ("000.png", "more/002.png"):
            (folder / name).unlink()
        done = quiet(model, folder, out)  # as it was made
        assert (done.described, done.changed, done.kept, done.removed) == (2, 1, 18, 2)
        found = regions_of(out)
        assert found.keys() == before.keys() - {"000.png", "more/002.png"} | {"new.png"}
        assert_described(found, folder, model, 8)
        kept = found.keys() & before.keys() - {"004.png"}
        assert_same({name: found[name] for name in sorted(kept)}, {name: before[name] for name in sorted(kept)})

    def test_a_passing_fault_takes_none_away(self, model, folder, out, draw):
        quiet(model, folder, out, regions="int8")
        before = regions_of(out)
        for name in ("001.png", "003.png"):
            time.sleep(0.01)
            (folder / name).write_bytes(b"no photo")
        (folder / "004.png").unlink()
        (folder / "004.png").mkdir()
        done = quiet(model, folder, out)
        assert ([name for name, _ in done.undecodable], [name for name, _ in done.unread]) == (["001.png", "003.png"], ["004.png"])
        found = regions_of(out)
        gone = {"001.png", "003.png"}
        assert_same(found, {name: own for name, own in before.items() if name not in gone})

    def test_strict_keeps_what_was_described(self, model, folder, out):
        (folder / "more" / "zzz.png").write_bytes(b"no photo")
        with pytest.raises(ImageError, match="zzz"):
            quiet(model, folder, out, regions="int8", strict=True)
        assert_described(regions_of(out), folder, model)
        assert len(regions_of(out)) >= 8

    def test_most_of_it_gone(self, model, folder, out):
        quiet(model, folder, out, regions="int8")
        for path in sorted(folder.rglob("*.png"))[2:]:
            path.unlink()
        with pytest.raises(ValueError, match="prune"):
            quiet(model, folder, out)
        assert len(regions_of(out)) == 21
        assert quiet(model, folder, out, prune=True).removed == 19
        assert_described(regions_of(out), folder, model)

    def test_rows_added_by_hand_stay(self, model, folder, out, draw):
        quiet(model, folder, out, regions="int8")
        own = describe(model, [draw(50), draw(51)], regions=True)
        index = Index.load(out)
        index.add(["by hand 1", "by hand 2"], own, regions=own.regions)
        index.save(out)
        expected = regions_of(out)
        quiet(model, folder, out)
        assert_same(regions_of(out), expected)
        quiet(model, folder, out, regions="int8", resume=False)
        found = regions_of(out)
        assert found.keys() == expected.keys()
        assert_same({name: found[name] for name in sorted(found)}, {name: expected[name] for name in sorted(found)})


class TestInterrupted:
    @pytest.mark.parametrize("run", [2, 5])
    def test_the_result_is_that_of_an_uninterrupted_run(self, model, folder, out, tmp_path, computed, run):
        quiet(model, folder, tmp_path / "whole", regions="int8", region_components=9, batch_size=2)
        computed.clear()
        computed.interrupt(run, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            quiet(model, folder, out, regions="int8", region_components=9, batch_size=2)
        computed.before.clear()
        assert quiet(model, folder, out, batch_size=2).described < 21 or run == 2
        assert_same(regions_of(out), regions_of(tmp_path / "whole"))

    def test_a_new_one_beside_is_gone_on_with_or_begun_anew(self, model, folder, out, computed):
        quiet(model, folder, out)
        for asked, described in (("int8", 13), ("float16", 21)):
            computed.clear()
            computed.interrupt(6, KeyboardInterrupt())
            with pytest.raises(KeyboardInterrupt):
                quiet(model, folder, out, regions="int8", resume=False, batch_size=2)
            computed.before.clear()
            assert quiet(model, folder, out, regions=asked, resume=False, batch_size=2).described == described
            assert store.about(out)["regions"]["dtype"] == asked
            assert_described(regions_of(out), folder, model)


CHILD = """
import os, signal, sys
from rw_keras.description import batcher
import rw_keras
batcher.WINDOW = 8
model, photos, out, number = sys.argv[1:]
sync, count = os.fsync, 0
def deadly(*arguments):
    global count
    count += 1
    if count == int(number):
        os.kill(os.getpid(), signal.SIGKILL)
    return sync(*arguments)
os.fsync = deadly
rw_keras.extract(
    rw_keras.load_model(model), photos, out, batch_size=5, workers=2, progress=False, regions="int8", runtime="tensorflow"
)
"""


@pytest.mark.slow
def test_killed(tiny_model, folder, tmp_path, out):
    """On its way to the disk: the next run ends with what one that was not killed has."""
    model = tiny_model()
    model.save(tmp_path / "model.keras")
    quiet(model, folder, tmp_path / "whole", regions="int8", batch_size=5, workers=2)
    expected = regions_of(tmp_path / "whole")
    for number in (4, 8):
        shutil.rmtree(out, ignore_errors=True)
        arguments = [sys.executable, "-c", CHILD, *map(str, (tmp_path / "model.keras", folder, out, number))]
        killed = subprocess.run(arguments, capture_output=True, text=True)
        assert killed.returncode == -9, killed.stderr[-2000:]
        if (out / store.DATABASE).is_file():
            assert store.check(out) == []
        quiet(model, folder, out, regions="int8", batch_size=5, workers=2)
        assert_same(regions_of(out), expected)


class TestPreset:
    @pytest.fixture
    def model(self, tiny_model):
        model = tiny_model()
        model.note_preset(PRESET)
        return model

    @pytest.mark.slow
    def test_a_new_index_is_made_as_it_says(self, model, folder, out):
        quiet(model, folder, out)
        about = store.about(out)
        assert (about["recipe"]["max_side"], about["dtype"], about["preset"]) == (60, "float16", "tried")
        assert about["regions"] == {"dtype": "int8", "dimensions": 9}
        assert about["search"] == {"rerank": 5, "smooth": None, "expand": 3, "alpha": 0.0}
        index = Index.load(out)
        assert index.search_defaults == about["search"]
        found = index.search_photo(model, folder / "001.png", k=21)
        assert found == index.search_photo(model, folder / "001.png", k=21, rerank=5)
        assert found != index.search_photo(model, folder / "001.png", k=21, rerank=None)

    @pytest.mark.slow
    def test_so_is_one_of_a_describer(self, model, folder, out):
        quiet(rw_keras.runtimes.load(model, "tensorflow"), folder, out)
        assert store.about(out)["search"]["rerank"] == 5
        assert_described(regions_of(out), folder, model, 9, max_side=60)

    def test_without_regions_nothing_is_re_ranked(self, model, folder, out):
        quiet(model, folder, out, regions=None)
        assert store.about(out)["search"] == {"rerank": None, "smooth": None, "expand": 3, "alpha": 0.0}
        assert len(Index.load(out).search_photo(model, folder / "001.png", k=3)) == 3

    @pytest.mark.slow
    def test_an_index_that_is_there_keeps_its_own_defaults(self, model, tiny_model, folder, out):
        quiet(tiny_model(), folder, out, max_side=60)
        quiet(model, folder, out)
        about = store.about(out)
        assert (about.get("search"), about.get("regions"), about["dtype"]) in ((None, None, "float32"), ({}, None, "float32"))

    @pytest.mark.slow
    def test_from_folder(self, model, folder, out):
        index = Index.from_folder(model, folder, runtime="tensorflow", progress=False)
        assert (index.recipe["max_side"], index.regions.spec) == (60, {"dtype": "int8", "dimensions": 9})
        assert index.search_defaults == {"rerank": 5, "smooth": None, "expand": 3, "alpha": 0.0}
        assert (
            Index.from_folder(model, folder, runtime="tensorflow", regions=None, progress=False).search_defaults["rerank"] is None
        )

    def test_a_whitening_is_learned_at_its_size(self, model, tiny_model, draw):
        with pytest.warns(UserWarning, match="PCAWhiten"):
            learned = rw_keras.fit_whitening(model, [draw(seed, 80, 60) for seed in range(4)], progress=False)
        assert learned.provenance["max_side"] == 60

    def test_the_papers_says_what_was_the_default(self):
        assert (PRESETS["paper"].max_side, PRESETS["paper"].regions, PRESETS["paper"].dtype) == (1024, None, "float32")


class TestFromFolder:
    def test_saved_it_is_an_index_of_extract(self, model, folder, out, tmp_path, draw):
        index = Index.from_folder(model, folder, regions="int8", region_components=8, runtime="tensorflow", progress=False)
        quiet(model, folder, tmp_path / "other", regions="int8", region_components=8)
        index.save(out)
        found, expected = regions_of(out), regions_of(tmp_path / "other")
        assert list(found) == list(expected)
        assert_described(found, folder, model, 8)
        later(folder / "005.png" if (folder / "005.png").exists() else folder / "more" / "005.png", draw, 97)
        assert quiet(model, folder, out).changed == 1
        assert_described(regions_of(out), folder, model, 8)

    def test_photos_that_cannot_be_read(self, model, folder):
        (folder / "010.png").write_bytes(b"no photo")
        with pytest.warns(UserWarning, match="1 of 21"):
            index = Index.from_folder(model, folder, regions="float16", runtime="tensorflow", progress=False)
        assert len(index.regions) == len(index) == 20
        assert_described({name: index.regions[row] for row, name in enumerate(index.names)}, folder, model, 12, 0.001)
