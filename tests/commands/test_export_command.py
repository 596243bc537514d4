import json

import numpy as np
import pytest
from command_lines import only_line

import rw_keras


class TestExport:
    def test_a_name_that_no_file_can_have(self, command, capsys, model_file):
        assert command("export", "a\0b", "--model", model_file) == 1
        only_line(capsys, r"No file can have the name 'a\x00b'")

    @pytest.mark.slow
    def test_writes_what_the_function_writes(self, command, capsys, model, model_file, draw, tmp_path):
        path = tmp_path / "serving" / "1"
        assert command("export", path, "--model", model_file, "--max_side", 64, "--batching") == 0
        assert capsys.readouterr().out == f"{path}: rw_tiny, 12 dimensions\n"
        import tensorflow as tf

        pixels = tf.saved_model.load(path).signatures["pixels"]
        served = pixels(pixels=tf.constant(draw(1)[None], tf.float32))["descriptor"][0]
        np.testing.assert_allclose(served, rw_keras.describe(model, draw(1)), atol=1e-6)
        card = json.loads((path / "assets.extra" / "model_card.json").read_text())
        assert (card["max_side"], card["dtype"]) == (64, "float32")
        assert (path / "assets.extra" / "batching_params.pbtxt").is_file()

    def test_an_existing_path_is_refused(self, command, capsys, model_file, tmp_path):
        assert command("export", tmp_path, "--model", model_file) == 1
        only_line(capsys, f"{tmp_path} exists already")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("flag", "form"), [("--int8", "saved_model"), ("--int8", "onnx"), ("--batching", "litert"), ("--max_side=64", "openvino")]
    )
    def test_flags_of_another_format_are_refused(self, command, capsys, model_file, tmp_path, flag, form):
        assert command("export", tmp_path / "1", "--model", model_file, "--format", form, flag) == 2
        only_line(capsys, flag.partition("=")[0], f"--format {form}")
        assert not (tmp_path / "1").exists()

    @pytest.mark.parametrize("paths", [[], ["1", "2"]])
    def test_takes_one_path(self, command, capsys, paths):
        assert command("export", *paths) == 2
        only_line(capsys, f"{len(paths)} arguments")

    def test_what_a_terminal_would_act_upon_is_escaped(self, command, capsys):
        assert command("export", "out", "--model", "a\x1b[31m\0") == 1
        only_line(capsys, r"a\x1b[31m\x00")

    def test_a_whitening_file_is_looked_for_first(self, command, capsys, monkeypatch, tmp_path):
        from rw_keras import backbones

        monkeypatch.setattr(backbones, "network", lambda *arguments: pytest.fail("a network was built"))
        assert command("export", tmp_path / "1", "--whitening", tmp_path / "none.npz") == 1
        only_line(capsys, "There is no whitening file", "none.npz")
