"""How programs end, and those of examples/ and benchmarks/ that are built as the commands are."""

import pathlib
import subprocess
import sys

import pytest

from rw_keras import runtimes
from rw_keras.commands import evaluation_flags, runtime_flags
from rw_keras.commands.parser import Parser, UsageError, whole_number
from rw_keras.commands.programs import in_flags, run_program
from rw_keras.evaluation import protocol

_ROOT = pathlib.Path(__file__).parents[2]
_SLOW = pytest.mark.slow  # they load Keras first


def test_errors_name_flags():
    names = {"levels", "max_side", "scales", "weights"}
    assert in_flags("it has max_side=5 and a.levels=3, pass `scales`, weights='x'", names) == (
        "it has --max_side=5 and a.levels=3, pass --scales, --weights='x'"
    )
    assert in_flags("pass whitening=None", {"whitening"}) == "pass --whitening=none"
    assert in_flags("k=5", {"k"}) == "k=5"


def test_a_call_in_python_stays_one():
    assert in_flags("Index.load(path, searcher='numpy') opens it", {"searcher"}) == "Index.load(path, searcher='numpy') opens it"


@pytest.mark.parametrize(
    ("raised", "code", "err"),
    [
        (UsageError("give --x"), 2, "program: give --x\n"),
        (ValueError("it has max_side=5\n\x1b"), 1, "program: it has --max_side=5\n\\x1b\n"),
        (OSError("no"), 1, "program: no\n"),
        (ImportError("no"), 1, "program: no\n"),
        (KeyboardInterrupt(), 130, "program: interrupted; what was not finished was not written\n"),
        (BrokenPipeError(), 141, ""),
    ],
    ids=repr,
)
def test_how_a_program_ends(monkeypatch, capsys, raised, code, err):
    parser = Parser(prog="program")
    parser.flag("max_side", "How large.", whole_number())

    def run(values):
        raise raised

    monkeypatch.setattr(sys, "argv", ["program"])
    with pytest.raises(SystemExit) as caught:
        run_program(parser, run)
    assert (caught.value.code, capsys.readouterr()) == (code, ("", err))


def test_a_program_that_is_done(monkeypatch, capsys):
    for arguments, returned, code, out in (([], None, 0, ""), ([], 3, 3, ""), (["-h"], 3, 0, "What.\n")):
        monkeypatch.setattr(sys, "argv", ["program", *arguments])
        with pytest.raises(SystemExit) as caught:
            run_program(Parser(prog="program", description="What."), lambda values, returned=returned: returned)
        assert caught.value.code == code
        assert capsys.readouterr().out.startswith(out)


def test_choices_are_those_of_the_package():
    """They stand in the flags because importing them loads Keras."""
    assert set(runtime_flags.RUNTIMES) == {"keras", *runtimes.RUNTIMES, "auto"}
    assert set(runtime_flags.PRECISIONS) == set(runtimes.PRECISIONS)
    assert set(evaluation_flags.MISSING) == set(protocol.MISSING)


def program(name, *arguments):
    return subprocess.run([sys.executable, str(_ROOT / name), *arguments], capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("examples/eval_oxford5k.py", ["photos", "ground_truth", "qe", "missing", "whiten_on", "scales", "max_side"]),
        ("examples/eval_paris6k.py", ["photos", "ground_truth", "qe", "missing", "whiten_on", "scales", "max_side"]),
        ("examples/learn_whitening.py", ["photos", "output", "pairs", "recommended_shrinkage", "levels", "whiten_on"]),
        pytest.param("examples/reproduce_tables.py", ["data", "out", "alexnet_weights", "missing"], marks=_SLOW),
        pytest.param("examples/fine_tune.py", ["photos", "output", "test", "labels", "mixed_precision"], marks=_SLOW),
        pytest.param("examples/reuse_layers.py", ["photos", "seed", "learning_rate"], marks=_SLOW),
        pytest.param("benchmarks/methods.py", ["method", "rounds", "data", "missing"], marks=_SLOW),
    ],
)
def test_help_shows_the_flags(name, flags):
    run = program(name, "--help")
    assert run.returncode == 0
    for flag in (*flags, "help"):
        assert f"--{flag}" in run.stdout
    assert max(map(len, run.stdout.splitlines())) <= 100
    assert "allow_missing" not in run.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["eval_oxford5k.py", "eval_paris6k.py", "learn_whitening.py"])
def test_a_wrong_command_line(name):
    for arguments, words in (
        ([], "give --photos and --"),
        (["--max-side=-1"], "flag --max_side=-1: give a whole number of 1 or more"),
        (["--photo", "x"], "there is no flag --photo; did you mean --photos?"),
    ):
        run = program(f"examples/{name}", *arguments)
        assert (run.returncode, run.stdout) == (2, "")
        (line,) = run.stderr.splitlines()
        assert line.startswith(f"{name}: {words}")
