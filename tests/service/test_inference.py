"""KServe's inference protocol."""

import base64
import json
import struct

import numpy as np
import pytest

import rw_keras


@pytest.fixture
def photos(draw):
    return [draw(70, 64, 48), draw(71, 50, 60)]


def tensor(photos):
    return {"name": "image_bytes", "shape": [len(photos)], "datatype": "BYTES", "data": photos}


def in_base64(photos):
    return [base64.b64encode(photo).decode() for photo in photos]


class TestProbes:
    @pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready", "/v2/models/index/ready", "/v2/models/index", "/v2"])
    def test_good(self, ask, path):
        assert ask("GET", path, {"open_reading": False}).status_code == 200

    def test_about(self, ask):
        assert ask("GET", "/v2").json()["extensions"] == ["binary_tensor_data"]
        about = ask("GET", "/v2/models/index").json()
        assert about["outputs"] == [{"name": "descriptor", "datatype": "FP32", "shape": [-1, 12]}]
        assert ask("GET", "/v2/models/other").status_code == ask("GET", "/v2/models/other/ready").status_code == 404

    def test_not_ready_when_it_stops(self, serve):
        import asyncio

        async def run():
            async with serve() as client:
                client.app.state.stop()
                return [await client.get(f"/v2/health/{kind}") for kind in ("ready", "live")]

        ready, live = asyncio.run(run())
        assert (ready.status_code, live.status_code) == (503, 200)
        assert ready.json()["error"] == ready.json()["detail"]


class TestInfer:
    def test_json(self, ask, made, photos, encoded):
        body = {"id": "7", "inputs": [tensor(in_base64(map(encoded, photos)))]}
        answer = ask("POST", "/v2/models/index/infer", json=body).json()
        assert (answer["model_name"], answer["id"]) == ("index", "7")
        (output,) = answer["outputs"]
        assert (output["name"], output["datatype"], output["shape"]) == ("descriptor", "FP32", [2, 12])
        found = np.reshape(output["data"], (2, 12))
        np.testing.assert_allclose(found, rw_keras.describe(made[1], photos, max_side=80), atol=2e-6)

    def test_box(self, ask, made, photos, encoded):
        box = {"name": "box", "shape": [1, 4], "datatype": "FP32", "data": [4, 4, 40, 40]}
        body = {"inputs": [tensor(in_base64([encoded(photos[0])])), box]}
        (output,) = ask("POST", "/v2/models/index/infer", json=body).json()["outputs"]
        np.testing.assert_allclose(output["data"], rw_keras.describe(made[1], photos[0], (4, 4, 40, 40), max_side=80), atol=2e-6)

    def test_binary(self, ask, made, photos, encoded):
        data = b"".join(struct.pack("<I", len(photo)) + photo for photo in map(encoded, photos))
        about = {"name": "image_bytes", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(data)}}
        outputs = [{"name": "descriptor", "parameters": {"binary_data": True}}]
        head = json.dumps({"inputs": [about], "outputs": outputs}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        answer = ask("POST", "/v2/models/index/infer", content=head + data, headers=headers)
        place = int(answer.headers["inference-header-content-length"])
        (output,) = json.loads(answer.content[:place])["outputs"]
        assert output["parameters"] == {"binary_data_size": 96}
        found = np.frombuffer(answer.content[place:], "<f4").reshape(output["shape"])
        np.testing.assert_allclose(found, rw_keras.describe(made[1], photos, max_side=80), atol=2e-6)

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            ({"inputs": []}, 422),
            ({"inputs": [{"name": "other", "data": []}]}, 422),
            ({"inputs": [tensor([])]}, 422),
            ({"inputs": [tensor(["aGVsbG8="])]}, 422),
            ({"inputs": [tensor(["no base64"])]}, 422),
            ({"inputs": [tensor([1])]}, 422),
            ({"inputs": [tensor(["aGVsbG8="] * 9)]}, 422),
            ({"inputs": [tensor(["aGVsbG8="]) | {"shape": [2]}]}, 422),
            ({"inputs": [tensor(["aGVsbG8="]) | {"shape": []}]}, 422),
            ({"inputs": [tensor(["aGVsbG8="]) | {"datatype": "FP32"}]}, 422),
            ({"inputs": [tensor(["aGVsbG8="]) | {"parameters": {"binary_data_size": -1}}]}, 422),
            ({"inputs": [tensor(["aGVsbG8="]), {"name": "box", "datatype": "FP32", "data": [1, 2]}]}, 422),
            ({"inputs": [tensor(["aGVsbG8="]), {"name": "box", "datatype": "FP32", "data": ["a"] * 4}]}, 422),
            ({"inputs": [tensor(["aGVsbG8="])], "outputs": [{"name": "other"}]}, 422),
            ({"inputs": [tensor(["aGVsbG8="])], "more": 1}, 422),
            ({}, 422),
        ],
        ids=str,
    )
    def test_refused(self, ask, body, status):
        answer = ask("POST", "/v2/models/index/infer", json=body)
        assert answer.status_code == status
        assert answer.json()["error"] == answer.json()["detail"]

    @pytest.mark.parametrize("length", ["0", "-1", "x", "99999", ""])
    def test_no_length(self, ask, length):
        headers = {"Inference-Header-Content-Length": length}
        assert ask("POST", "/v2/models/index/infer", content=b"{}", headers=headers).status_code == 400

    def test_cut_short(self, ask):
        for data in (b"\x10\0\0\0abc", b"\1", struct.pack("<I", 2**32 - 1)):
            about = {"name": "image_bytes", "datatype": "BYTES", "parameters": {"binary_data_size": len(data)}}
            head = json.dumps({"inputs": [about]}).encode()
            headers = {"Inference-Header-Content-Length": str(len(head))}
            answer = ask("POST", "/v2/models/index/infer", content=head + data, headers=headers)
            assert answer.status_code == 422
            assert "cut short" in answer.json()["detail"]

    def test_takes_a_token(self, ask):
        assert ask("POST", "/v2/models/index/infer", {"open_reading": False}, json={}).status_code == 401
