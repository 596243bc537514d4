import os
import re
import subprocess
import sys

import pytest
from command_lines import only_line

import rw_keras
from rw_keras.commands import main, serve
from rw_keras.commands.parser import UsageError

NEW_MODEL = ["model", "preset", "backbone", "method", "weights", "levels", "components", "shrinkage", "whitening"]
NEW_MODEL += ["whiten_on", "scales", "max_side"]
EXTRACTION = ["regions", "region_components"]
EXTRACTION += [
    "dtype",
    "batch_size",
    "workers",
    "checksum",
    "force",
    "prune",
    "take_back",
    "metadata",
    "strict",
    "runtime",
    "precision",
]
CLUSTER = ["cluster", "actor_processors", "actor_gpus", "fragments", "keep_fragments"]
SHOWING = ["within", "min_score", "searcher", "runtime", "precision", "html", "sheet", "photos"]
SERVING = ["host", "port", "photos", "workers", "demo", "open", "tokens", "allowed_hosts", "allowed_origins", *serve.LIMITS]
EVALUATION = ["labels", "k", "rerank", "smooth", "expand", "alpha", "queries", "missing", "photos", "per_query", "json"]


class TestCommandLine:
    def test_no_command(self, command, capsys):
        assert command() == 2
        assert "rw-keras index PHOTOS -o NAME" in capsys.readouterr().out

    @pytest.mark.parametrize("flag", ["--help", "-h", "help"])
    def test_help(self, command, capsys, flag):
        assert command(flag) == 0
        out = capsys.readouterr().out
        for words in ("index PHOTOS -o NAME", "search NAME PHOTO", "export PATH", "rw-keras demo", "Exit codes: 0 done"):
            assert words in out

    @pytest.mark.parametrize(
        ("name", "defined"),
        [
            ("index", ["output", "json", "quiet", *EXTRACTION, *CLUSTER, *NEW_MODEL, "help"]),
            ("export", ["format", "dtype", "int8", "batching", *NEW_MODEL, "help"]),
            (
                "search",
                [
                    "text",
                    "box",
                    "k",
                    "rerank",
                    "smooth",
                    "orientations",
                    "expand",
                    "alpha",
                    "model",
                    "weights",
                    "whitening",
                    "json",
                    *SHOWING,
                    "help",
                ],
            ),
            ("runtimes", ["precision", "force", "json", *NEW_MODEL, "help"]),
            ("info", ["json", "help"]),
            ("duplicates", ["threshold", "groups", "json", "help"]),
            ("evaluate", [*EVALUATION, "model", "weights", "whitening", "runtime", "precision", "help"]),
            ("check", ["json", "help"]),
            ("merge", ["output", "help"]),
            ("export-vectors", ["help"]),
            (
                "push",
                "prune json quiet replace dtype searcher m ef_construction ef_search nlist nprobe search_list help".split(),
            ),
            ("pull", ["json", "quiet", "help"]),
            ("presets", ["json", "help"]),
            ("networks", ["json", "help"]),
            ("serve", [*SERVING, "model", "weights", "whitening", "runtime", "precision", "help"]),
            ("demo", ["output", "preset", "json", "help"]),
        ],
    )
    @pytest.mark.parametrize("flag", ["--help", "-h"])
    def test_help_of_a_command_names_its_flags(self, command, capsys, name, defined, flag):
        assert command(name, flag) == 0
        captured = capsys.readouterr()
        assert captured.out.startswith(f"rw-keras {name}")
        assert sorted(re.findall(r"^ +(?:-\w, )?--(\w+)", captured.out, re.MULTILINE)) == sorted(defined)
        assert captured.err == ""

    def test_help_states_the_defaults(self, command, capsys):
        assert command("index", "--help") == 0
        assert re.search(r"-o, --output .*\n", out := capsys.readouterr().out)
        assert re.search(r"--precision .*\n( .*\n)* .*Default: exact\.", out)
        assert "Default: recommended." in out

    def test_version(self, command, capsys):
        assert command("--version") == 0
        assert capsys.readouterr().out == f"{rw_keras.__version__}\n"

    def test_unknown_command(self, command, capsys):
        assert command("find", "photo.jpg") == 2
        only_line(capsys, "'find'", ", ".join(main.COMMANDS))

    @pytest.mark.parametrize(
        "arguments",
        [
            ["index", "photos", "-o", "out", "--maxside", "512"],
            ["index", "photos", "-o", "out", "--max_side", "0"],
            ["index", "photos", "-o", "out", "--max_side", "big"],
            ["index", "photos", "-o", "out", "--shrinkage", "1.5"],
            ["index", "photos", "-o"],
            ["search", "index", "photo", "--k", "0"],
            ["search", "index", "photo", "--expand", "0"],
            ["search", "index", "photo", "--alpha", "-1", "--expand", "5"],
            ["search", "index", "photo", "--alpha", "high", "--expand", "5"],
            ["search", "index", "photo", "--verbose"],
            ["export", "1", "--format", "caffe"],
            ["export", "1", "--dtype", "int4"],
            ["demo", "photos"],
        ],
        ids=" ".join,
    )
    def test_a_wrong_command_line(self, command, capsys, arguments):
        assert command(*arguments) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("rw-keras: ")
        flag = next((argument for argument in arguments if argument.startswith("--")), arguments[-1])
        assert flag.lstrip("-") in captured.err

    @pytest.mark.parametrize("levels", [0, 17, 99999999])
    def test_levels_have_a_bound(self, command, capsys, levels):
        for arguments in (["index", "photos", "-o", "out"], ["export", "out"], ["runtimes"]):
            assert command(*arguments, f"--levels={levels}") == 2
            only_line(capsys, f"flag --levels={levels}", "[1, 16]")

    def test_run_raises_what_main_prints(self):
        with pytest.raises(UsageError, match="'find'"):
            main.run(["find"])
        with pytest.raises(UsageError):
            main.run(["index", "--maxside", "3"])

    @pytest.mark.parametrize("arguments", [["--help"], ["duplicates", "--help"]])
    def test_no_reader_at_all(self, arguments):
        """What is printed waits in a buffer, and fails only as it is written."""
        reading, writing = os.pipe()
        os.close(reading)
        script = "from rw_keras.commands.main import main; main()"
        run = subprocess.run([sys.executable, "-c", script, *arguments], stdout=writing, stderr=subprocess.PIPE, text=True)
        os.close(writing)
        assert (run.returncode, run.stderr) == (141, "")

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
    def test_a_full_disk(self):
        with open("/dev/full", "w") as full:
            script = "from rw_keras.commands.main import main; main()"
            run = subprocess.run([sys.executable, "-c", script, "--help"], stdout=full, stderr=subprocess.PIPE, text=True)
        assert (run.returncode, run.stderr) == (1, "rw-keras: [Errno 28] No space left on device\n")


class TestSpellings:
    @pytest.mark.parametrize("arguments", [["--max-side", "x"], ["--max_side", "x"], ["--max-side=x"], ["-max_side=x"]], ids=str)
    @pytest.mark.parametrize("command_line", [["index", "a", "-o", "b"], ["export", "a"], ["runtimes"]], ids=lambda words: words[0])
    def test_hyphens_and_underscores(self, command, capsys, command_line, arguments):
        assert command(*command_line, *arguments) == 2
        only_line(capsys, "flag --max_side=x: give a whole number of 1 or more")

    @pytest.mark.parametrize("name", list(main.COMMANDS))
    def test_every_help_fits_a_terminal(self, command, capsys, name):
        assert command(name, "--help") == 0
        out = capsys.readouterr().out
        assert max(map(len, out.splitlines())) <= 100
        assert out.startswith(f"rw-keras {name}")

    def test_the_usage_names_all_commands_and_fits_a_terminal(self, command, capsys):
        assert command("--help") == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 100
        assert re.findall(r"^  rw-keras ([a-z-]+)", "\n".join(lines), re.MULTILINE) == list(main.COMMANDS)

    @pytest.mark.parametrize(("given", "nearest"), [("serch", "search"), ("exports", "export"), ("dupicates", "duplicates")])
    def test_a_command_that_there_is_not(self, command, capsys, given, nearest):
        assert command(given, "photo") == 2
        only_line(capsys, f"there is no command {given!r}; did you mean {nearest}? The commands are {', '.join(main.COMMANDS)}")

    def test_a_command_that_is_like_none(self, command, capsys):
        assert command("xyz") == 2
        only_line(capsys, f"there is no command 'xyz'; choose one of {', '.join(main.COMMANDS)}")


class TestEarlierNames:
    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (["index", "a", "b", "--engine", "ncnn"], "--engine is called --runtime now."),
            (["index", "a", "b", "--anew"], "--anew is called --force now."),
            (["index", "a", "b", "--whiten=global"], "--whiten is called --whiten_on now."),
            (["search", "a", "--engine", "numpy"], "--engine is called --searcher now."),
            (["search", "a", "--network-engine", "ncnn"], "--network_engine is called --runtime now."),
            (["engines", "a"], "`rw-keras engines` is called `rw-keras runtimes` now."),
            (["runtimes", "a", "--anew"], "--anew is called --force now."),
            (["export", "a", "b", "--whiten", "regions"], "--whiten is called --whiten_on now."),
        ],
        ids=" ".join,
    )
    def test_they_work_and_tell_the_present_ones(self, command, capsys, arguments, told):
        """A wrong number of arguments ends the command after its flags were read."""
        assert command(*arguments) == 2
        first, second = capsys.readouterr().err.splitlines()
        assert first == told
        assert "argument" in second or "takes" in second

    @pytest.mark.parametrize("line", ["index a -o b --engine=ncnn --runtime=ncnn", "runtimes --anew --force"])
    def test_both_are_refused(self, command, capsys, line):
        assert command(*line.split()) == 2
        only_line(capsys, "is the earlier name of", "leave it out")

    def test_no_help_names_them(self, command, capsys):
        assert command("--help") == 0
        for name in main.COMMANDS:
            assert command(name, "--help") == 0
        assert not re.search(r"engine|anew|--whiten\b", capsys.readouterr().out)


class TestStart:
    @pytest.mark.parametrize(
        "line",
        ["--help", "--version", "search --help", "index a -o b --levels=5 --max_side=0", "index a", "find a", "search a b --box=1"],
    )
    def test_nothing_is_loaded_for_a_help_or_a_wrong_line(self, line):
        script = (
            "import sys\nfrom rw_keras.commands.main import main\ntry:\n    main()\nfinally:\n"
            "    loaded = {'tensorflow', 'keras', 'torch', 'jax', 'sqlite3', 'PIL'} & set(sys.modules)\n"
            "    print(*loaded, file=sys.stderr) if loaded else None"
        )
        run = subprocess.run([sys.executable, "-c", script, *line.split()], capture_output=True, text=True)
        assert (run.returncode, len(run.stderr.splitlines())) in ((0, 0), (2, 1))

    def test_as_a_module(self):
        for arguments, code in ((["--version"], 0), (["find"], 2)):
            run = subprocess.run([sys.executable, "-m", "rw_keras", *arguments], capture_output=True, text=True)
            assert run.returncode == code
            assert run.stdout == ("" if code else f"{rw_keras.__version__}\n")
            assert run.stderr.startswith("rw-keras: there is no command 'find'") if code else run.stderr == ""
