from tests.okane.conftest import api

__all__ = ["api"]
