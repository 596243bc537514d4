"""An index that grows, and what is left of it when that breaks off."""

import contextlib
import itertools
import json
import os
import pathlib
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile

import broken_runs
import numpy as np
import pytest
import small_stores
from broken_runs import SCENARIOS
from hypothesis import given, settings
from hypothesis import strategies as st
from small_stores import AWAY, BAD, DIMENSIONS, RECIPE, bring_up_to_date, check_holds, some_changes, some_photos, visible, write_old

from rw_keras.retrieval import store
from rw_keras.retrieval.writer import Writer

ROWS = 64


@pytest.fixture(autouse=True)
def small_segments(monkeypatch):
    monkeypatch.setattr(store, "SEGMENT_ROWS", ROWS)


@pytest.fixture(scope="session")
def steps(tmp_path_factory):
    """The compiled `steps.c`."""
    if sys.platform != "linux":
        pytest.skip("steps are counted by what Linux's linker preloads")
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("there is no C compiler (cc), which the program that counts steps needs")
    library = tmp_path_factory.mktemp("steps") / "steps.so"
    source = pathlib.Path(__file__).with_name("steps.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


def broken(steps, scratch, scenario, way, *arguments):
    """Breaks runs in a process of its own, and checks that nothing was lost; how often each scenario was broken, and refused."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "LD_PRELOAD": str(steps)}
    command = [sys.executable, broken_runs.__file__, scenario, scratch, way, json.dumps(arguments)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    lines = run.stdout.splitlines()
    reports = [json.loads(line.removeprefix("report ")) for line in lines if line.startswith("report ")]
    words = [line for line in lines if not line.startswith("report ")]
    for report in reports:
        refused = f", {report['refused']} refused" if report["refused"] else ""
        print(
            f"\n{report['scenario']}: {report['breaks']} {way} at {report['steps']} steps, {report['states']} states{refused}",
            end="",
        )
    problems = [f"{report['scenario']}: {problem}" for report in reports for problem in report["problems"]]
    assert problems == [], "\n".join([f"{len(problems)} problems", *problems[:20], *words[-40:]])
    return [(report["breaks"], report["refused"]) for report in reports]


class TestBroken:
    """After each break a reader sees the state before or after the last step that is whole, the checksums hold, and a run that goes
    on ends as one that nothing broke."""

    @pytest.mark.slow
    def test_killed(self, steps, tmp_path):
        assert [breaks for breaks, _ in broken(steps, tmp_path, "each", "kills", 3)] == [3] * len(SCENARIOS)

    @pytest.mark.slow
    def test_a_full_disk_or_one_with_errors(self, steps, tmp_path):
        found = broken(steps, tmp_path, "each", "failures", 3)
        assert [breaks for breaks, _ in found] == [3] * len(SCENARIOS)
        assert all(refused > 0 for _, refused in found)

    @pytest.mark.slow
    @pytest.mark.parametrize("scenario", SCENARIOS)
    @pytest.mark.parametrize(
        ("way", "arguments", "least"),
        [("kills", [70], 40), ("failures", [70], 40), ("pairs", [25], 25), ("moments", [10], 10), ("limited", [6], 6)],
    )
    def test_everywhere(self, steps, tmp_path, scenario, way, arguments, least):
        """At up to 70 of its steps, in one way each; `[]` breaks a scenario at all of them, in every way."""
        ((breaks, _),) = broken(steps, tmp_path, scenario, way, *arguments)
        assert breaks >= least


class TestUpdate:
    def test_first_run(self, folder):
        photos = some_photos(150)
        update = bring_up_to_date(folder, photos)
        check_holds(folder, photos)
        good = [name for name, (_, vector) in photos.items() if not isinstance(vector, str)]
        assert list(store.read(folder).names) == good
        assert (update.described, update.changed, update.removed, update.unread) == (len(good), 0, 0, [])
        assert store.about(folder)["recipe"] == RECIPE
        with sqlite3.connect(folder / "index.sqlite") as database:
            assert [count for (count,) in database.execute("SELECT count FROM segments")] == [ROWS, ROWS, len(good) - 2 * ROWS]

    def test_a_run_that_finds_nothing_new_writes_nothing(self, folder):
        photos = {name: photo for name, photo in some_photos(150).items() if photo[1] is not AWAY}
        bring_up_to_date(folder, photos)
        before = {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != ".lock"}
        log = []
        assert bring_up_to_date(folder, photos, log.append).described == 0
        assert log == []
        assert {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != ".lock"} == before

    def test_changes(self, folder):
        photos = some_photos(150)
        bring_up_to_date(folder, photos)
        later, log = some_changes(photos), []
        update = bring_up_to_date(folder, later, log.append)
        gone = [name for name in photos if name not in later and not isinstance(photos[name][1], str)]
        assert update.removed == len(gone) > 5
        check_holds(folder, later, before=photos)
        described = {line.split(" [")[0].removeprefix("described ") for line in log if line.startswith("described")}
        assert described == {
            name for name, (stamp, vector) in later.items() if not isinstance(vector, str) and photos.get(name, [None])[0] != stamp
        }
        assert {name for name, _ in update.unread} == {name for name, (stamp, _) in later.items() if stamp == [300, 0]} - {
            name for name, (_, vector) in later.items() if vector is BAD
        }

    @pytest.mark.slow
    @settings(max_examples=12)
    @given(
        runs=st.lists(
            st.dictionaries(
                st.sampled_from("abcdefghijklmnop"), st.tuples(st.integers(0, 3), st.sampled_from(["good", BAD])), max_size=16
            ),
            min_size=1,
            max_size=5,
        ),
        stops=st.lists(st.integers(1, 6), max_size=5),
    )
    def test_any_row_of_changes(self, runs, stops):
        """A run may be interrupted after some windows; then the next one finds other photos, or the last one the same."""
        vectors = np.random.default_rng(0).standard_normal((26, 4, DIMENSIONS)).astype("float32")
        with tempfile.TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "SEGMENT_ROWS", 6)
            patch.setattr(small_stores, "WINDOW", 2)
            patch.setattr(os, "fsync", lambda file: None)
            folder = pathlib.Path(scratch, "index")
            for run, stop in itertools.zip_longest(runs, stops[: len(runs)]):
                # A stamp says all of a photo: one that became unreadable has another one.
                photos = {
                    name: ([version, kind == BAD], vectors[ord(name) - 97, version] if kind != BAD else BAD)
                    for name, (version, kind) in run.items()
                }
                kept = 0

                def interrupt(line, stop=stop):
                    nonlocal kept
                    kept += line.startswith("kept")
                    if stop and kept == 2 * stop:
                        raise KeyboardInterrupt

                with contextlib.suppress(KeyboardInterrupt):
                    bring_up_to_date(folder, photos, interrupt)
                    check_holds(folder, photos)
            bring_up_to_date(folder, photos)
            check_holds(folder, photos)
            with Writer(folder, RECIPE, DIMENSIONS) as writer:
                known = writer.find(sorted(photos))
                assert {name: one.stamp for name, one in known.items()} == {name: stamp for name, (stamp, _) in photos.items()}
                assert {name for name, one in known.items() if one.fault} == {
                    name for name, (_, vector) in photos.items() if isinstance(vector, str)
                }

    def segments(self, folder):
        return len(list(folder.glob("rows-*")))

    def test_small_updates_leave_few_files(self, folder):
        photos = {}
        for number in range(40):
            photos = some_photos(3 * number)
            bring_up_to_date(folder, photos)
        check_holds(folder, photos)
        assert self.segments(folder) <= 2 * len(photos) / ROWS

    def test_whole_updates_leave_few_files(self, folder):
        for seed in range(6):
            photos = some_photos(4 * ROWS, seed)
            earlier = some_photos(4 * ROWS, 0)
            bring_up_to_date(folder, photos)
            if seed == 0:
                check_holds(folder, photos, before=earlier)
        assert self.segments(folder) <= 2 * 4

    def test_removals_leave_few_files(self, folder):
        photos = some_photos(10 * ROWS)
        bring_up_to_date(folder, photos)
        few = {name: photos[name] for name in list(photos)[::40]}
        bring_up_to_date(folder, few)
        check_holds(folder, few, before=photos)
        assert self.segments(folder) <= 2

    def test_everything_gone(self, folder):
        photos = some_photos(100)
        held = bring_up_to_date(folder, photos).described
        assert bring_up_to_date(folder, {}).removed == held
        check_holds(folder, {})
        bring_up_to_date(folder, photos)
        check_holds(folder, photos)

    def test_what_is_away_stays_and_is_marked(self, folder):
        photos = some_photos(40)
        bring_up_to_date(folder, photos)
        later = {name: ([9, 9], AWAY) for name in photos}
        update = bring_up_to_date(folder, later)
        assert len(update.unread) == sum(not isinstance(vector, str) for _, vector in photos.values())
        assert (update.described, update.removed) == (0, 0)
        found = store.read(folder)
        assert len(found.names) == len(update.unread)
        with Writer(folder, RECIPE, DIMENSIONS) as writer:
            name = found.names[0]
            known = writer.find([name])[name]
            assert (known.described, known.stamp, known.fault) == (True, photos[name][0], f"{name} is away")
        assert bring_up_to_date(folder, photos).described == 0
        with Writer(folder, RECIPE, DIMENSIONS) as writer:
            assert writer.find([name])[name].fault is None


class TestMaking:
    @pytest.mark.parametrize("dtype", ["float32", "float16"])
    def test_dtype(self, folder, dtype):
        photos = some_photos(150)
        bring_up_to_date(folder, photos, dtype=dtype)
        check_holds(folder, photos, dtype)
        assert store.about(folder)["dtype"] == dtype

    def test_an_index_keeps_its_dtype(self, folder):
        bring_up_to_date(folder, some_photos(70), dtype="float16")
        bring_up_to_date(folder, some_photos(150))
        check_holds(folder, some_photos(150), "float16")

    @pytest.mark.parametrize(
        ("recipe", "dimensions", "dtype", "words"),
        [
            ({**RECIPE, "max_side": 65}, DIMENSIONS, None, "max_side is 64, the one asked for 65"),
            ({"max_side": 64, "backbone": "other"}, DIMENSIONS, None, "backbone is 'none', the one asked for 'other'"),
            ({**RECIPE, "levels": 3}, DIMENSIONS, None, "levels is None, the one asked for 3"),
            (RECIPE, 5, None, "4 dimensions, the one asked for 5"),
            (RECIPE, DIMENSIONS, "int8", "dtype is 'float32', the one asked for 'int8'"),
        ],
    )
    def test_another_way_is_refused(self, folder, recipe, dimensions, dtype, words):
        bring_up_to_date(folder, some_photos(9))
        before = visible(folder)
        with pytest.raises(ValueError, match=f"{re.escape(str(folder))} was made in another way.*{words}"):
            Writer(folder, recipe, dimensions, dtype).__enter__()
        assert visible(folder) == before
        bring_up_to_date(folder, some_photos(12))  # and the lock is free

    def test_something_else_is_refused(self, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        for path in (tmp_path, tmp_path / "notes.txt"):
            with pytest.raises(ValueError, match="not an index; choose another name"):
                bring_up_to_date(path, some_photos(3))
        assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]

    def test_a_folder_that_cannot_be_made(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match="file"):
            bring_up_to_date(tmp_path / "file" / "index", some_photos(3))

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_folder_that_cannot_be_written(self, folder):
        folder.mkdir(mode=0o500)
        with pytest.raises(OSError, match=re.escape(str(folder))):
            bring_up_to_date(folder, some_photos(3))

    def test_an_index_that_never_held_anything_leaves_nothing(self, folder):
        with Writer(folder, RECIPE, DIMENSIONS) as writer:
            assert writer.abandon()
        assert not folder.exists()

    def test_one_that_held_something_is_never_given_up(self, folder):
        photos = some_photos(40)
        bring_up_to_date(folder, photos)
        bring_up_to_date(folder, {})
        with Writer(folder, RECIPE, DIMENSIONS) as writer:
            assert not writer.abandon()
        check_holds(folder, {})

    @pytest.mark.parametrize("name", ["rows-0a1b2c3d-00009.bin", ".part-abc", "searcher-abc.bin", "rebuilt.sqlite", ".lock"])
    def test_what_a_killed_process_left_is_no_obstacle(self, folder, name):
        folder.mkdir()
        (folder / name).write_bytes(b"half")
        photos = some_photos(20)
        bring_up_to_date(folder, photos)
        check_holds(folder, photos)

    def test_files_of_others_stay(self, folder):
        bring_up_to_date(folder, some_photos(20))
        (folder / "notes.txt").write_text("mine")
        bring_up_to_date(folder, some_photos(90))
        assert (folder / "notes.txt").read_text() == "mine"


class TestRebuilding:
    def test_what_a_killed_run_had_described_is_gone_on_with(self, folder):
        photos = some_photos(100)
        bring_up_to_date(folder, photos)
        before = visible(folder)

        def stop(line, kept=[]):  # noqa: B006
            kept.append(line)
            if sum(one.startswith("kept") for one in kept) == 40:
                raise KeyboardInterrupt

        later = some_photos(100, seed=1)
        with pytest.raises(KeyboardInterrupt):
            bring_up_to_date(folder, later, stop, beside=True, go_on=True)
        assert visible(folder) == before
        log = []
        bring_up_to_date(folder, later, log.append, beside=True, go_on=True)
        # Six windows had been committed: 48 photos, six of which cannot be read.
        assert sum(line.startswith("described") for line in log) == sum(not isinstance(one, str) for _, one in later.values()) - 42
        check_holds(folder, later)

    @pytest.mark.parametrize("other", [{"recipe": {**RECIPE, "max_side": 32}}, {"dtype": "float16"}])
    def test_what_was_begun_in_another_way_is_not(self, folder, other):
        photos = some_photos(60)
        bring_up_to_date(folder, photos)
        with Writer(folder, RECIPE, DIMENSIONS, beside=True, go_on=True) as writer:
            writer.put(["stale.jpg"], np.ones((1, DIMENSIONS)), [None])
            writer.commit()
        bring_up_to_date(folder, photos, beside=True, go_on=True, **other)
        check_holds(folder, photos, other.get("dtype", "float32"))
        assert store.about(folder)["recipe"] == other.get("recipe", RECIPE)

    def test_an_ordinary_update_ends_what_was_begun(self, folder):
        bring_up_to_date(folder, some_photos(60))
        with Writer(folder, RECIPE, DIMENSIONS, beside=True, go_on=True) as writer:
            writer.put(["stale.jpg"], np.ones((1, DIMENSIONS)), [None])
            writer.commit()
        assert (folder / "rebuilt.sqlite").exists()
        bring_up_to_date(folder, some_photos(60))
        check_holds(folder, some_photos(60))

    def test_an_index_of_format_1_is_taken_over(self, folder):
        """It knows no stamps, so all of it is described anew, and nothing is double."""
        photos = some_photos(40)
        write_old(folder, photos, version=1)
        bring_up_to_date(folder, photos)
        check_holds(folder, photos)
