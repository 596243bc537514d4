"""A real `rw-keras serve`, and Chromium that looks at its page."""

import os
import pathlib
import shutil

import httpx
import pytest
from PIL import Image
from service.browser.page_driver import HOSTILE, READ, SIZES, WRITE
from service_process import serving


@pytest.fixture(scope="session")
def gallery(tmp_path_factory):
    """A folder of the embedded photos, views of them, two copies, and photos with hostile names; and a table of metadata."""
    pytest.importorskip("skimage", reason='the embedded photos: pip install "rw_keras[demo]"')
    from rw_keras.photos import embedded

    home = tmp_path_factory.mktemp("gallery")
    folder = home / "photos"
    photos, views = embedded.load(320)
    lines = ["name,subject,width"]

    def save(name, pixels, subject):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, "JPEG", quality=90)
        if "," not in name and name.isprintable():
            lines.append(f"{name},{subject},{pixels.shape[1]}")

    for name, pixels in photos.items():
        save(f"{name}.jpg", pixels, name)
    for name, view in views.items():
        subject, _, kind = name.partition(", ")
        if kind != "half":
            save(f"views/{subject} {kind}.jpg", view.photo, subject)
    for name in ("cat", "coffee"):
        shutil.copy(folder / f"{name}.jpg", folder / f"copy of {name}.jpg")
    for place, name in enumerate(HOSTILE):
        pixels = list(photos.values())[place][20:-20, 20:-20]
        path = os.fsencode(folder / "hostile") + b"/" + os.fsencode(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            Image.fromarray(pixels).save(file, "JPEG")
    (home / "table.csv").write_text("\n".join(lines))
    return home


@pytest.fixture(scope="session")
def indices(gallery, tiny_model):
    """What `rw-keras serve` takes of two indices, the second of which has no region vectors."""
    import rw_keras
    from rw_keras.retrieval import columns

    model = tiny_model(seed=3)
    rw_keras.fit_whitening(model, sorted((gallery / "photos").glob("*.jpg")), progress=False)
    model.save(gallery / "tiny.keras")
    options = {"max_side": 320, "progress": False, "runtime": "tensorflow"}
    rw_keras.extract(model, gallery / "photos", gallery / "gallery", regions="int8", **options)
    columns.add_columns(gallery / "gallery", columns.read_columns(gallery / "table.csv"))
    rw_keras.extract(model, gallery / "photos" / "views", gallery / "views", regions=None, **options)
    return [gallery / "gallery", gallery / "views", "--model", gallery / "tiny.keras", "--runtime", "tensorflow", "--rate", "none"]


@pytest.fixture(scope="session")
def service(indices):
    """The address of a service of both indices."""
    with serving(*indices) as process:
        yield process.address


@pytest.fixture(scope="session")
def guarded(indices):
    """The address of a service that asks for a token, and takes small bodies."""
    tokens = {"RW_KERAS_READ_TOKEN": READ, "RW_KERAS_WRITE_TOKEN": WRITE}
    with serving(*indices, "--body_mib", "0.1", environment=tokens) as process:
        yield process.address


@pytest.fixture(scope="session")
def ask(service):
    """A function (fields) -> the answer to a search, without the page."""
    with httpx.Client(base_url=service, timeout=60) as client:

        def asked(**fields):
            return client.post("/v1/search", json=fields).raise_for_status().json()

        yield asked


@pytest.fixture
def visit(chromium, service):
    """A function (path, size, colours, of the context) -> the page there.

    In the end: no page had an error, and none asked another host for anything. `page.expected` are parts of messages of the console
    that a test provokes.
    """
    contexts, pages = [], []

    def visiting(path="/", size="tablet", scheme="light", address=service, context=None, **options):
        if context is None:
            context = chromium.new_context(color_scheme=scheme, **{**SIZES[size], **options})
            contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)  # a loaded machine is slow, not wrong
        page.address, page.asked, page.said, page.expected = address, [], [], []
        page.on("request", lambda request: page.asked.append(request))
        page.on("console", lambda message: message.type == "error" and page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        pages.append(page)
        page.goto(address + path)
        return page

    yield visiting
    for page in pages:
        elsewhere = [one.url for one in page.asked if not one.url.startswith((page.address + "/", "blob:", "data:"))]
        assert elsewhere == []
        assert [text for text in page.said if not any(part in text for part in page.expected)] == []
    for context in contexts:
        context.close()


@pytest.fixture
def look(request):
    """A function (page, name) that takes a screenshot, where the variable RW_KERAS_SCREENSHOTS names a folder for them."""
    folder = os.environ.get("RW_KERAS_SCREENSHOTS")

    def take(page, name):
        if folder:
            page.wait_for_load_state("networkidle")
            page.wait_for_timeout(200)  # pictures are decoded
            pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
            page.screenshot(path=str(pathlib.Path(folder) / f"{name}.png"))

    return take
