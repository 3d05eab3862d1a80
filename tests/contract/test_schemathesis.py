"""Generated requests, valid and invalid, alone and in sequences: the API answers each as the document declares."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from okane.api_key import Mode, NewKey, Scope
from okane.store import ApiKeyStore
from tests.flow.system import System, running

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
EXAMPLES = int(os.environ.get("OKANE_CONTRACT_EXAMPLES", "5"))  # for each operation; the boundaries of all come besides
SEED = os.environ.get("OKANE_CONTRACT_SEED", "1")


@pytest.fixture
async def system(tmp_path: Path, database_url: str, redis_url: str) -> AsyncIterator[System]:
    async with running(tmp_path / "system", database_url, redis_url) as one:
        one.env["OKANE_AUTH"] = "keys"
        one.env["OKANE_WEBHOOK_MASTER"] = "the-master-of-webhooks-in-tests-has-48-characters"
        yield one


@pytest.mark.timeout(0 if "OKANE_CONTRACT_EXAMPLES" in os.environ else 600)
async def test_the_api_and_its_document_agree(system: System, database_url: str, tmp_path: Path) -> None:
    await system.start("w1")
    key = NewKey.make(Mode.TEST)
    store = ApiKeyStore(database_url, timeout=timedelta(seconds=3))
    await store.create(key, account_id="default", mode=Mode.TEST, scopes=tuple(Scope))
    await store.aclose()
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml"), "run"]
    options = [
        f"--max-examples={EXAMPLES}",
        f"--seed={SEED}",
        "--phases=examples,coverage,fuzzing,stateful",
        "--no-color",
    ]
    process = await asyncio.create_subprocess_exec(
        *command,
        *options,
        f"{system.url}/v1/openapi.json",
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OKANE_API_KEY": key.secret, "COLUMNS": "120"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    print(said.decode())  # noqa: T201 - with -s: how many there were
