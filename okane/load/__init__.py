"""`okane load`: N payments to a running API, each followed to its end and checked against the provider's journal."""

from okane.load.options import LoadOptions
from okane.load.rendering import render
from okane.load.report import JournalCheck, Latency, LoadReport
from okane.load.run import ApiUnreachableError, run_load

__all__ = ["ApiUnreachableError", "JournalCheck", "Latency", "LoadOptions", "LoadReport", "render", "run_load"]
