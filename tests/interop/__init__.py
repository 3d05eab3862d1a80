"""Requests of webhooks at receivers that others wrote: Flask and Express, with the verifiers of PyPI and npm."""
