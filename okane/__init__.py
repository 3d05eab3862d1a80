"""An asynchronous payment pipeline on Postgres and Redis Streams."""

__version__ = "0.1.0"
