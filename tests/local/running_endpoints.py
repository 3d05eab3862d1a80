"""The endpoints of a running `okane up`."""

from __future__ import annotations

from okane.local.data_folder import Endpoints

ENDPOINTS = Endpoints(
    database_url="postgresql://okane:secret@127.0.0.1:1/okane",
    redis_url="redis://:secret@127.0.0.1:2/0",
    provider_base_url="http://127.0.0.1:3",
    api_url="http://127.0.0.1:4",
    metrics_urls={"api": "http://127.0.0.1:5/metrics"},
)
