"""The whole command over small sets, as a user starts it."""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from PIL import Image
from small_sets import write_set

pytest.importorskip("matplotlib", reason='matplotlib is not installed: pip install "rw_keras[plot]"')

_SCRIPT = pathlib.Path(__file__).parents[2] / "examples" / "reproduce_tables.py"
_OWN = """
import rw_keras

def rw_alpha_1(features):
    return rw_keras.methods.rw(features, alpha=1.0)
"""
# The program with networks of random weights, always the same: the published ones cannot be had everywhere.
_PROGRAM = f"""
import runpy, sys, keras
from rw_keras import backbones
network = backbones.network

def random_network(name, weights, layer):
    keras.utils.set_random_seed(1)
    return network(name, None, layer)

backbones.network = random_network
sys.argv[0] = {str(_SCRIPT)!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def _slow(*values):
    """Values of a test that starts a process of several seconds."""
    return pytest.param(*values, marks=pytest.mark.slow)


def run(*arguments):
    return subprocess.run([sys.executable, "-c", _PROGRAM, *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture(scope="module")
def small(tmp_path_factory, draw):
    """A folder of two small sets."""
    folder = tmp_path_factory.mktemp("small")
    write_set(folder / "oxford5k_part", draw, "oxc1_", photos=12)
    write_set(folder / "paris6k_part", draw, truth=False, photos=12)
    return folder


@pytest.mark.slow
def test_writes_all_of_it_and_a_second_run_needs_no_network(small, tmp_path):
    (tmp_path / "mine.py").write_text(_OWN)
    arguments = ["--data", small, "--out", tmp_path / "report", "--cache", tmp_path / "kept", "--max_side", 96]
    arguments += ["--also", tmp_path / "mine.py", "--alexnet_weights", "at hand"]
    first = run(*arguments)
    assert first.returncode == 0, first.stderr
    assert first.stdout.strip().endswith("index.html: open it in a browser")
    files = {path.name for path in (tmp_path / "report").iterdir()}
    for name in ("table_1", "table_2", "ablation", "methods", "options"):
        assert {f"{name}.md", f"{name}.csv", f"{name}.png"} <= files
    assert {"claims.md", "figure_3.png", "figure_2_oxford5k_rw.jpg", "figure_4_oxford5k_root_rw.jpg", "index.html"} <= files
    page = (tmp_path / "report" / "index.html").read_text()
    assert "oxford5k: 12 of 5063 photos, 4 of 55 queries" in page
    assert "The whitening for oxford5k is learned on 12 photos of paris6k." in page
    assert "rw_alpha_1" in (tmp_path / "report" / "methods.md").read_text()
    for file in ("table_1.md", "table_1.csv"):
        assert "oxford5k: 12 of 5063 photos, 4 of 55 queries" in (tmp_path / "report" / file).read_text()
    assert "alexnet" in (tmp_path / "report" / "table_1.csv").read_text()
    Image.open(tmp_path / "report" / "table_2.png").verify()

    before = {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()}
    second = run(*arguments)
    assert second.returncode == 0, second.stderr
    assert "photo/s" not in second.stderr  # nothing went through a network
    assert {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()} == before


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        _slow(
            lambda data: (data / "paris6k_part").rename(data / "elsewhere"),
            "There is no paris6k in .*oxford5k is whitened on its photos",
        ),
        _slow(lambda data: (data / "oxford5k").mkdir(), "oxford5k and .*oxford5k_part are both oxford5k; keep one"),
        _slow(
            lambda data: (data / "oxford5k_part").rename(data / "elsewhere"), "There is no oxford5k or paris6k with jpg/ and gt/"
        ),
        _slow(
            lambda data: next((data / "oxford5k_part" / "jpg").glob("*000000.jpg")).unlink(),
            "are not in .*oxford5k_part, .*000000 for one.* pass --missing='drop_queries'",
        ),
        _slow(
            lambda data: (data / "oxford5k_part" / "jpg" / "oxford5k_part_000004.jpg").write_bytes(b"no photo"),
            r"1 photos cannot be read[^\n]*\n[^\n]*000004\.jpg",
        ),
    ],
)
def test_says_what_is_wrong_with_the_data(small, tmp_path, break_it, message):
    shutil.copytree(small, tmp_path / "data")
    break_it(tmp_path / "data")
    result = run("--data", tmp_path / "data", "--out", tmp_path / "report", "--cache", tmp_path / "kept", "--max_side", 64)
    assert result.returncode == 1
    assert re.search(message, result.stderr[result.stderr.index("reproduce_tables.py: ") :])
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "report").exists()


@pytest.mark.slow
def test_says_what_to_install_before_it_begins(tmp_path):
    program = f"import sys; sys.modules['matplotlib'] = None\n{_PROGRAM}"
    result = subprocess.run(
        [sys.executable, "-c", program, "--data", str(tmp_path), "--out", str(tmp_path / "out")], capture_output=True, text=True
    )
    assert result.returncode == 1
    assert 'pip install "rw_keras[plot]"' in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
