"""What the tests of the service share beside fixtures."""

import contextlib

import httpx

from rw_keras.service import create_app

READ, WRITE = "a-token-that-may-read", "a-token-that-may-write"
SHAPES = [(64, 48), (48, 64), (80, 40), (50, 50), (96, 64), (64, 96), (64, 48), (64, 48)]


@contextlib.asynccontextmanager
async def client_of(indexes, settings, raises=False):
    """A client of an application, in this process."""
    app = create_app(indexes, settings)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=raises)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000", timeout=60) as client:
            client.app, client.served = app, indexes[0]
            yield client


def pairs(answer, measure="cosine"):
    """(name, measure) of the hits of an answer."""
    return [(hit["name"], hit[measure]) for hit in answer["hits"]]
