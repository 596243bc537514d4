"""Fragments and plans: what lies on the disk between the machines of a cluster and an index."""

import os

import numpy as np
import pytest
from cluster_runs import contents
from PIL import Image

from rw_keras.cluster import fragments as fragments_module
from rw_keras.cluster import running
from rw_keras.cluster.describing import Describing, Settings
from rw_keras.cluster.gather import gather
from rw_keras.cluster.places import Place
from rw_keras.cluster.plan import Plan
from rw_keras.description.batcher import Window
from rw_keras.description.extract import extract
from rw_keras.description.job import Job
from rw_keras.description.progress import Progress
from rw_keras.description.reader import Reading
from rw_keras.photos.reading import ImageError
from rw_keras.photos.sources import photo_items
from rw_keras.retrieval import Index, store

pytest.importorskip("pyarrow", reason='writes Parquet files: pip install "rw_keras[ray]"')
WINDOW, PHOTOS = 4, 16
USUAL = {
    "max_side": 60,
    "resume": True,
    "dtype": None,
    "regions": None,
    "region_components": None,
    "checksum": False,
    "strict": False,
    "devices": None,
    "source": None,
    "runtime": "tensorflow",
    "precision": "exact",
    "prune": False,
    "settings": None,
}


@pytest.fixture(autouse=True)
def small_steps(monkeypatch):
    """Few photos are enough for several fragments."""
    from rw_keras.description import batcher

    monkeypatch.setattr(batcher, "WINDOW", WINDOW)
    monkeypatch.setattr(fragments_module, "PHOTOS", PHOTOS)


@pytest.fixture
def photos(tmp_path, draw):
    """Fifty photos of two sizes, three of which cannot be read, one of these for a while."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(47):
        Image.fromarray(draw(number, *((64, 48), (40, 40))[number % 2])).save(folder / f"{number:02d}.png")
    (folder / "03 bad.png").write_bytes(b"no photo")
    (folder / "20 bad.png").write_bytes(b"")
    (folder / "30 gone.png").symlink_to(tmp_path / "nowhere.png")
    return folder


def described(model, photos, out, place, stop=None, **arguments):
    """What a cluster does, in this process: plans, describes `stop` fragments of the plan (default: all), gathers them."""
    job = Job.settled(model, photos, out, **{**USUAL, **arguments})
    settings = Settings(job.made, regions=job.regions, checksum=job.checksum)
    with job.opened() as (writer, update):
        plan = Plan.found(place)
        if plan is None:
            path = out.parent / "model.keras"
            model.save(path)
            with Progress(None, False) as bar:
                plan = Plan.make(place, update.todo(bar), settings, path.read_bytes(), writer.about["identity"])
        if plan is not None:
            describing = Describing(out.parent / "model.keras", plan.settings)
            for number in plan.unfinished()[:stop]:
                plan.write(number, describing(plan.todo(number)))
            if plan.unfinished():
                return None
            with Progress(None, False) as bar:
                gather(plan, writer, update, bar)
            plan.remove(keep_fragments=False)
            for _ in update.todo(bar):
                pass
        return job.finished(writer, update, 0.0, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [{}, {"dtype": "float16"}, {"regions": "int8", "region_components": 5}, {"regions": "float16"}, {"checksum": True}],
)
def test_gathered_fragments_are_the_index_of_one_machine(model, photos, tmp_path, arguments):
    place, out = Place.of(tmp_path / "fragments"), tmp_path / "gathered"
    done = described(model, photos, out, place, **arguments)
    usual = extract(model, photos, tmp_path / "plain", max_side=60, runtime="tensorflow", progress=False, **arguments)
    assert contents(out) == contents(tmp_path / "plain")
    assert done.failures == usual.failures
    assert str(done) == str(usual)
    assert len(done.failures) == 3
    assert not (tmp_path / "fragments").exists()
    assert store.check(out) == []
    assert len(Index.load(out)) == 47


@pytest.mark.slow
def test_an_update_is_that_of_one_machine(model, photos, tmp_path, draw):
    outs = tmp_path / "gathered", tmp_path / "plain"
    for out in outs:
        extract(model, photos, out, max_side=60, runtime="tensorflow", progress=False)
    for number in (5, 6, 40):
        path = photos / f"{number:02d}.png"
        Image.fromarray(draw(100 + number, 64, 48)).save(path)
        os.utime(path, (2e9, 2e9))
    (photos / "07.png").unlink()
    (tmp_path / "nowhere.png").write_bytes((photos / "01.png").read_bytes())
    Image.fromarray(draw(200, 40, 40)).save(photos / "99.png")
    done = described(model, photos, outs[0], Place.of(tmp_path / "fragments"))
    usual = extract(model, photos, outs[1], max_side=60, runtime="tensorflow", progress=False)
    assert (done.described, done.changed, done.removed, done.kept) == (5, 3, 1, 43)
    assert str(done) == str(usual)
    assert contents(outs[0]) == contents(outs[1])


@pytest.mark.slow
def test_a_plan_is_gone_on_with(model, photos, tmp_path):
    place, out = Place.of(tmp_path / "fragments"), tmp_path / "gathered"
    assert described(model, photos, out, place, stop=2) is None
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "fragments").glob("*.parquet")}
    assert len(before) == 2
    plan = Plan.found(place)
    assert (plan.count, plan.photos, plan.unfinished()) == (4, 50, [2, 3])
    assert described(model, photos, out, place, stop=1) is None
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in (tmp_path / "fragments").glob("*.parquet")}.items()
    described(model, photos, out, place)
    extract(model, photos, tmp_path / "plain", max_side=60, runtime="tensorflow", progress=False)
    assert contents(out) == contents(tmp_path / "plain")


@pytest.mark.slow
@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize("windows", [1, 3, 5])
def test_gathering_goes_on_where_it_was_killed(model, photos, tmp_path, monkeypatch, windows, checksum):
    from rw_keras.description.update import Update

    place, out, take, taken = Place.of(tmp_path / "fragments"), tmp_path / "gathered", Update.take, []

    def killed(self, window):
        if len(taken) == windows:
            raise KeyboardInterrupt
        taken.append(window)
        take(self, window)

    monkeypatch.setattr(Update, "take", killed)
    with pytest.raises(KeyboardInterrupt):
        described(model, photos, out, place, checksum=checksum)
    monkeypatch.setattr(Update, "take", take)
    assert 0 < len(Index.load(out)) < 47
    done = described(model, photos, out, place, checksum=checksum)
    assert done.described + done.kept == 47
    extract(model, photos, tmp_path / "plain", max_side=60, runtime="tensorflow", progress=False, checksum=checksum)
    assert contents(out) == contents(tmp_path / "plain")


@pytest.mark.slow
def test_what_was_deleted_meanwhile_stays_so(model, photos, tmp_path):
    from rw_keras.retrieval.writer import Writer

    place, out = Place.of(tmp_path / "fragments"), tmp_path / "gathered"
    described(model, photos, out, place, stop=3)
    about = store.about(out)
    with Writer(out, about["recipe"], about["dimensions"]) as writer:
        writer.exclude(["05.png"])
        writer.commit()
    done = described(model, photos, out, place)
    assert "05.png" not in Index.load(out).names
    assert (done.described, done.excluded) == (46, 1)


def spoiled(path):
    """Lets a photo not be one for a while; gives what repairs it, which is seen as a change."""
    content = path.read_bytes()
    path.write_bytes(b"no photo")

    def repair():
        path.write_bytes(content)
        os.utime(path, (2e9, 2e9))

    return repair


@pytest.mark.slow
@pytest.mark.parametrize("described_meanwhile", [False, True])
def test_a_photo_that_was_repaired_meanwhile_keeps_its_row(model, photos, tmp_path, described_meanwhile):
    place, out = Place.of(tmp_path / "fragments"), tmp_path / "gathered"
    extract(model, photos, out, max_side=60, runtime="tensorflow", progress=False)
    Image.new("RGB", (40, 40)).save(photos / "97.png")
    repair = spoiled(photos / "05.png")
    assert described(model, photos, out, place, stop=0) is None
    plan = Plan.found(place)
    model.save(tmp_path / "model.keras")
    describing = Describing(tmp_path / "model.keras", plan.settings)
    for number in range(plan.count):
        plan.write(number, describing(plan.todo(number)))
    repair()
    if described_meanwhile:
        extract(model, photos, out, max_side=60, runtime="tensorflow", progress=False)
    done = described(model, photos, out, place)
    assert "05.png" in Index.load(out).names and (done.undecodable, done.unread) == ([], [])
    if not described_meanwhile:
        done = described(model, photos, out, place)  # what a run does once it has finished the plan
    assert (done.undecodable, done.unread) == ([], [])
    assert "05.png" in Index.load(out).names
    extract(model, photos, tmp_path / "plain", max_side=60, runtime="tensorflow", progress=False)
    one, other = Index.load(out), Index.load(tmp_path / "plain")
    assert sorted(one.names) == sorted(other.names)
    rows = [index.descriptors[index.names.index("05.png")] for index in (one, other)]
    np.testing.assert_allclose(*rows, atol=1e-6)


@pytest.mark.slow
def test_an_older_row_does_not_take_the_place_of_a_newer_one(model, photos, tmp_path, draw):
    place, out = Place.of(tmp_path / "fragments"), tmp_path / "gathered"
    assert described(model, photos, out, place, stop=3) is None
    Image.fromarray(draw(100, 64, 48)).save(photos / "05.png")
    os.utime(photos / "05.png", (2e9, 2e9))
    extract(model, photos, out, max_side=60, runtime="tensorflow", progress=False)
    before = Index.load(out)
    rows = {name: np.array(row) for name, row in zip(before.names, before.descriptors)}
    described(model, photos, out, place)
    after = Index.load(out)
    assert sorted(after.names) == sorted(rows)
    for name, row in zip(after.names, after.descriptors):
        np.testing.assert_array_equal(row, rows[name])


def test_photos_that_the_source_lists_no_longer_are_not_described(model, photos, tmp_path):
    place, out = Place.of(tmp_path / "fragments"), tmp_path / "gathered"
    assert described(model, photos, out, place, stop=0) is None
    other = tmp_path / "other"
    other.mkdir()
    for number in range(3):
        (other / f"{number} other.png").write_bytes((photos / "01.png").read_bytes())
    plan = Plan.found(place)
    job = Job.settled(model, other, out, **USUAL)
    with job.opened() as (writer, update), Progress(None, False) as bar:
        assert update.still_listed([item for item, _ in plan.todo(0)]) == []
        assert gather(plan, writer, update, bar) == 0  # of fragments that are not there
        assert len(list(update.todo(bar))) == 3


def test_a_fault_is_forgotten_once_the_photo_is_read(model, photos, tmp_path):
    out = tmp_path / "gathered"
    extract(model, photos, out, max_side=60, runtime="tensorflow", progress=False)
    repair = spoiled(photos / "05.png")
    job = Job.settled(model, photos, out, **USUAL)
    with job.opened() as (writer, update), Progress(None, False) as bar:
        todo = dict((item.name, (item, known)) for item, known in update.todo(bar))
        item, known = todo["05.png"]
        for passing in (False, True):
            update.take(Window([Reading(item, known, item.stamp, error=ImageError("bad"), passing=passing)], [], [], None))
        assert update.unread == [("05.png", "bad")]
        repair()
        update.take(Window([Reading(item, known, [1, 2])], [0], np.eye(1, model.output_shape[-1], dtype="float32"), None))
        done = job.finished(writer, update, 0.0, 0.0)
    assert (done.undecodable, done.unread) == ([], [])
    assert "05.png" in Index.load(out).names


def test_an_array_beside_urls_is_refused_before_the_plan():
    pytest.importorskip("fsspec", reason='object storage: pip install "rw_keras[cloud]"')
    items = photo_items(["memory://bucket/a.jpg", np.zeros((8, 8, 3), "uint8")])
    with pytest.raises(ValueError, match="The photo '00000001' is an array"):
        running._check_files(items)
    running._check_files(photo_items(["memory://bucket/a.jpg", "memory://bucket/b.jpg"]))


@pytest.mark.slow
def test_names_that_are_no_text(model, tmp_path, draw):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in enumerate((b"plain.png", b"caf\xe9.png", "übung.png".encode())):
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            Image.fromarray(draw(number)).save(file, "png")
    with open(os.path.join(os.fsencode(folder), b"b\xe9d.png"), "wb") as file:
        file.write(b"no photo")
    place, out = Place.of(tmp_path / "fragments"), tmp_path / "gathered"
    assert described(model, folder, out, place, stop=0) is None
    assert Plan.found(place).settings.binary
    done = described(model, folder, out, place)
    extract(model, folder, tmp_path / "plain", max_side=60, runtime="tensorflow", progress=False)
    assert contents(out) == contents(tmp_path / "plain")
    assert [name for name, _ in done.failures] == ["b\udce9d.png"]


def test_other_tools_read_fragments(model, photos, tmp_path):
    duckdb, pandas = pytest.importorskip("duckdb"), pytest.importorskip("pandas")
    path = tmp_path / "model.keras"
    model.save(path)
    recipe = {**model.recipe, "max_side": 60}
    describing = Describing(path, Settings(recipe, regions={"dtype": "int8", "dimensions": 5}))
    items = photo_items(photos)
    place = Place.of(tmp_path / "fragments")
    plan = Plan.make(place, ((item, None) for item in items), describing.settings, b"", "index")
    for number in range(plan.count):
        plan.write(number, describing(plan.todo(number)))
    pattern = str(tmp_path / "fragments" / "*.parquet")
    rows = duckdb.sql(f"SELECT name, descriptor, fault, regions FROM '{pattern}' ORDER BY name").fetchall()
    assert [row[0] for row in rows] == sorted(item.name for item in items)
    assert sum(row[1] is None for row in rows) == sum(row[2] is not None for row in rows) == 3
    extract(model, photos, tmp_path / "plain", max_side=60, runtime="tensorflow", progress=False)
    index = Index.load(tmp_path / "plain")
    held = dict(zip(index.names, index.descriptors[:]))
    for name, descriptor, _, regions in rows:
        if descriptor is not None:
            np.testing.assert_array_equal(np.array(descriptor, "float32"), held[name])
            assert {len(vector) for vector in regions} == {5}
    frame = pandas.concat(map(pandas.read_parquet, sorted((tmp_path / "fragments").glob("*.parquet"))))
    assert frame["name"].tolist() == [item.name for item in items]
    assert frame["descriptor"].notna().sum() == 47


class TestPlaces:
    def test_a_file_is_whole_or_not_there(self, tmp_path, monkeypatch):
        place = Place.of(tmp_path / "place")
        place.write("a/b", b"first")

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            place.write("a/b", b"second")
        assert place.read("a/b") == b"first"
        assert place.names("a") == {"b"}

    def test_what_a_killed_writer_left_goes_with_the_folder(self, tmp_path):
        place = Place.of(tmp_path / "place")
        place.write("a/b", b"whole")
        part = tmp_path / "place" / ".part-0123456789abcdef"
        part.write_bytes(b"half")
        place.remove_folder()  # "a" is somebody's, and so may the part be
        assert part.exists()
        place.remove(["a/b"])
        place.remove_folder("a")
        place.remove_folder()
        assert not (tmp_path / "place").exists()

    def test_a_url_of_a_file_system(self, tmp_path):
        fsspec = pytest.importorskip("fsspec")
        fsspec.filesystem("memory").store.clear()
        place = Place.of("memory://bucket/fragments/")
        assert place.names() == set()
        with pytest.raises(FileNotFoundError):
            place.read("plan/plan.json")
        place.write("plan/plan.json", b"{}")
        place.write("one.parquet", b"1")
        assert (place.names(), place.names("plan")) == ({"one.parquet"}, {"plan.json"})
        assert place.read("one.parquet") == b"1"
        place.remove(["one.parquet", "plan/plan.json"])
        assert place.names() == place.names("plan") == set()

    def test_no_password_stands_in_a_message(self, tmp_path):
        pytest.importorskip("fsspec")
        place = Place.of("memory://key:secret@bucket/fragments")
        place.write("plan/plan.json", b"{}")
        with pytest.raises(ValueError, match=r"memory://bucket/fragments/plan/plan\.json cannot be read") as raised:
            Plan.found(place)
        assert "secret" not in str(raised.value)

    def test_a_plan_that_is_damaged(self, tmp_path):
        place = Place.of(tmp_path)
        assert Plan.found(place) is None
        for content in (b"", b"{}", b'{"format": 99}', b'{"format": 1, "key": "a"}'):
            place.write("plan/plan.json", content)
            with pytest.raises(ValueError, match=r"plan\.json cannot be read: .*; remove the folder"):
                Plan.found(place)

    @pytest.mark.slow
    def test_a_fragment_that_is_damaged(self, model, photos, tmp_path):
        place, out = Place.of(tmp_path / "fragments"), tmp_path / "gathered"
        described(model, photos, out, place, stop=3)
        path = sorted((tmp_path / "fragments").glob("*.parquet"))[0]
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(ValueError, match=rf"{path.name} is damaged.*remove it, and run again"):
            described(model, photos, out, place)
        path.unlink()
        described(model, photos, out, place)
        extract(model, photos, tmp_path / "plain", max_side=60, runtime="tensorflow", progress=False)
        assert contents(out) == contents(tmp_path / "plain")
