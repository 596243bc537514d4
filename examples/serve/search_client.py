"""Searches with a photo: search_client.py query.jpg [http://127.0.0.1:8000]; a token in RW_KERAS_READ_TOKEN."""

import os
import sys

from rw_keras.service import Client

photo, address = sys.argv[1], (*sys.argv[2:], "http://127.0.0.1:8000")[0]
with Client(address, os.environ.get("RW_KERAS_READ_TOKEN")) as client:
    for hit in client.search(photo, k=10)["hits"]:
        print(f"{hit['rank']:3d}  {hit['cosine']:.4f}  {hit['name']}")
