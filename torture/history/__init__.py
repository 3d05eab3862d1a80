"""The history of a run: journals of clients, provider, Postgres and the rest, kept independently and then collected."""
