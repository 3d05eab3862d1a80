"""`okane up --stripe` before anything starts: the files it writes, and what it refuses."""

from __future__ import annotations

import stat
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from okane.cli.context import find_context
from okane.config import Settings
from okane.local.data_folder import DataFolder, lock_data_folder
from okane.local.options import UpOptions
from okane.local.programs import Programs
from okane.local.server import LocalError
from okane.local.stripe_simulator.configuration import write_configuration
from okane.providers.config import load_providers

ANY_PORT = UpOptions(
    stripe=True, port=0, console_port=0, provider_port=0, postgres_port=0, redis_port=0, metrics_port=0
)


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path)


def test_the_providers_file_is_valid_and_its_secrets_stay(folder: DataFolder) -> None:
    first = write_configuration(folder.stripe, base_url="http://127.0.0.1:8081")
    secret = first.webhook_secret.read_text()
    again = write_configuration(folder.stripe, base_url="http://127.0.0.1:8082")
    assert again.webhook_secret.read_text() == secret
    assert stat.S_IMODE(folder.stripe.stat().st_mode) == 0o700
    assert stat.S_IMODE(again.webhook_secret.stat().st_mode) == 0o600
    found = load_providers(Settings(providers_file=again.providers_file))
    assert list(found.default) == ["stripe"]
    assert tomllib.loads(again.providers_file.read_text())["providers"]["stripe"]["base_url"] == "http://127.0.0.1:8082"


def test_every_process_gets_the_file_instead_of_the_mock_provider(folder: DataFolder) -> None:
    programs = Programs(
        settings=Settings(database_url="postgresql://x/y", redis_url="redis://x"), options=ANY_PORT, folder=folder
    )
    where = programs.endpoints()
    assert programs.provider is not None
    assert programs.provider.name == "stripe"
    assert where.payment_method == "pm_card_visa"
    base_url = tomllib.loads((folder.stripe / "providers.toml").read_text())["providers"]["stripe"]["base_url"]
    assert where.provider_base_url == base_url


def test_commands_use_the_providers_file_and_the_test_card_of_the_running_system(tmp_path: Path) -> None:
    with lock_data_folder(tmp_path, report=lambda _line: None) as folder:
        settings = Settings(database_url="postgresql://x/y", redis_url="redis://x")
        where = Programs(settings=settings, options=ANY_PORT, folder=folder).endpoints()
        folder.publish(where)
        context = find_context(tmp_path, Settings())
        assert context.settings.providers_file == tmp_path / "stripe" / "providers.toml"
        assert context.payment_method == "pm_card_visa"
        own = find_context(tmp_path, Settings(providers_file=tmp_path / "own.toml"))
        assert own.settings.providers_file == tmp_path / "own.toml"


def test_a_providers_file_takes_the_place_of_the_mock_provider(folder: DataFolder) -> None:
    written = write_configuration(folder.stripe, base_url="http://127.0.0.1:8081")
    settings = Settings(database_url="postgresql://x/y", redis_url="redis://x", providers_file=written.providers_file)
    programs = Programs(settings=settings, options=replace(ANY_PORT, stripe=False), folder=folder)
    assert programs.provider is None
    assert programs.endpoints().provider_base_url == ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"provider_base_url": "http://127.0.0.1:1"}, "unset PROVIDER_BASE_URL"),
        ({"providers_file": Path("providers.toml")}, "unset PROVIDERS_FILE"),
        ({"mode": "live"}, "OKANE_MODE is live"),
    ],
)
def test_settings_that_name_another_provider_are_refused(
    folder: DataFolder, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(LocalError, match=message):
        Programs(settings=Settings.model_validate(settings), options=ANY_PORT, folder=folder)


def test_a_machine_without_a_suitable_python_is_told_what_to_install(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.path / "cache"))
    monkeypatch.setattr("okane.local.simulator_environment.find_python", lambda _versions: None)
    programs = Programs(settings=Settings(), options=ANY_PORT, folder=folder)
    assert programs.provider is not None
    with pytest.raises(LocalError, match=r"stripe-world needs Python 3\.14 or 3\.13.*pyenv install"):
        programs.provider.prepare()
