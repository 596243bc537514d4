"""duplicates, check, merge and export-vectors; what they do is in tests/retrieval."""

import json
import pathlib
import shlex
import subprocess
import sys

import numpy as np
import pytest
from command_lines import NAMES

from rw_keras.retrieval import Index


class TestDuplicates:
    @pytest.fixture
    def twins(self, tmp_path):
        """An index of 400 photos that are all the same: 79,800 pairs."""
        Index([f"photo {number}" for number in range(400)], np.ones((400, 2))).save(tmp_path / "twins")
        return str(tmp_path / "twins")

    @pytest.mark.parametrize("flag", [[], ["--groups"]])
    def test_where_there_are_none_it_says_so(self, command, capsys, index, flag):
        assert command("duplicates", index[0], "--threshold=1", *flag) == 0
        captured = capsys.readouterr()
        assert captured.out == ""  # which is for the duplicates alone
        assert captured.err == f"{index[0]}: no two photos have a cosine of 1 or more\n"
        assert command("duplicates", index[0], "--threshold=1", "--json", *flag) == 0
        assert capsys.readouterr() == ("[]\n", "")

    def test_a_reader_that_has_seen_enough(self, twins):
        program = f"{shlex.quote(sys.executable)} -c 'from rw_keras.commands.main import main; main()'"
        line = f"{program} duplicates {shlex.quote(twins)} | head -n 1"
        run = subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True)
        assert run.stdout == " 1.000  photo 0  photo 1\n"
        assert (run.returncode, run.stderr) == (141, "")


class TestKeeping:
    """check, merge and export-vectors; what they do is in tests/retrieval."""

    def test_check(self, command, capsys, index):
        assert command("check", index[0]) == 0
        assert capsys.readouterr().out == f"{index[0]}: no damage found\n"
        file = next(pathlib.Path(index[0]).glob("rows-*"))
        content = bytearray(file.read_bytes())
        content[5] ^= 1
        file.write_bytes(content)
        assert command("check", index[0]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert lines == [f"{index[0]}: {file.name}: rows 0 to 5 are not as they were written", *(f"  {name}" for name in NAMES)]
        assert command("check", index[0], "--json") == 1
        assert json.loads(capsys.readouterr().out)[0]["photos"] == NAMES
        assert command("check") == 2

    def test_merge(self, command, capsys, index, tmp_path):
        made = Index(["other"], np.ones((1, 12)), recipe=index[1].recipe)
        made.save(tmp_path / "other")
        capsys.readouterr()
        assert command("merge", index[0], tmp_path / "other", "-o", tmp_path / "all") == 0
        assert capsys.readouterr().out == f"{tmp_path / 'all'}: 7 photos of 2 indices\n"
        assert Index.load(tmp_path / "all").names == [*NAMES, "other"]
        for arguments in (["merge", index[0], "-o", tmp_path / "all"], ["merge", index[0], index[0]]):
            assert command(*arguments) == 2

    def test_export_vectors(self, command, capsys, index, tmp_path):
        assert command("export-vectors", index[0], tmp_path / "vectors.npy") == 0
        assert capsys.readouterr().out == f"{tmp_path / 'vectors.npy'}: 6 descriptors of {index[0]}\n"
        np.testing.assert_array_equal(np.load(tmp_path / "vectors.npy"), index[1].descriptors)
        assert command("export-vectors", index[0]) == 2
