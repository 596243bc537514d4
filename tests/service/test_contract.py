"""The service keeps what its description (OpenAPI) says, whatever it is asked."""

import subprocess
import sys

import pytest
from service_process import serving
from small_service import WRITE

pytestmark = pytest.mark.slow
# A text that the description lets pass need not be a photo in base64, nor a name of the index.
CHECKS = ("--exclude-checks", "positive_data_acceptance")


def test_with_schemathesis(keras_made, shown, tmp_path):
    """Requests that fit the description, and such that do not: no 5xx, and no answer that it does not have."""
    import shutil

    shutil.copytree(shown / "photos", tmp_path / "own" / "photos")
    shutil.copytree(keras_made[0], tmp_path / "own" / "index")
    keras_made[1].save(tmp_path / "tiny.keras")
    arguments = (tmp_path / "own" / "index", "--model", tmp_path / "tiny.keras", "--photos", tmp_path / "own" / "photos")
    limits = ("--rate", "none", "--seconds", "50", "--runtime", "tensorflow")
    with serving(*arguments, *limits, environment={"RW_KERAS_WRITE_TOKEN": WRITE}) as service:
        command = ["run", f"{service.address}/openapi.json", *CHECKS, "--max-examples", "40", "--seed", "1"]
        command += ["-H", f"Authorization: Bearer {WRITE}", "--request-timeout", "60", "--generation-deterministic"]
        done = subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", *command], capture_output=True, text=True, timeout=900, cwd=tmp_path
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert service.stop() == 0
        assert "Traceback" not in "".join(service.errors)
