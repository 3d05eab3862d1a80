"""The folder in memory of the tests' servers: none is left behind, and none is deleted under a running pytest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import memory_folder
from tests.memory_folder import folder_in_memory


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(memory_folder, "_MEMORY", tmp_path)
    monkeypatch.setattr(memory_folder, "_ENOUGH_BYTES", 1)
    return tmp_path


def test_the_folder_is_deleted_after_its_use() -> None:
    with folder_in_memory() as folder:
        assert folder is not None
        (folder / "file").touch()
    assert not folder.exists()


def test_the_folder_of_a_killed_pytest_is_deleted_and_that_of_a_running_one_is_not() -> None:
    with folder_in_memory() as running:
        assert running is not None
        abandoned = running.parent / "abandoned"
        abandoned.mkdir()
        with folder_in_memory() as another:
            assert another not in (None, running)
            assert running.exists()
            assert not abandoned.exists()


def test_without_room_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_folder, "_ENOUGH_BYTES", 2**60)
    with folder_in_memory() as folder:
        assert folder is None


def test_a_link_that_another_user_put_there_is_not_followed(memory: Path) -> None:
    with folder_in_memory() as folder:
        assert folder is not None
        root = folder.parent
    root.rmdir()
    root.symlink_to(memory)
    with folder_in_memory() as folder:
        assert folder is None
