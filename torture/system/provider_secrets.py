"""The providers file of each process, with a canary for every secret that a provider can have: no log may show one (I12).

Only `http`, the mock provider, gets payments. The gateways beside it are there for their secrets, which every process loads.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from okane.local.ports import LOOPBACK

PASSWORD = "canary-provider-8d20b1"  # noqa: S105 - a canary
CANARIES = (
    PASSWORD,
    "sk_test_canary4e19c7",
    "whsec_canary0b6d52",
    "canary-payu-client-a94f",
    "canary-payu-second-c31e",
)


def write_providers_file(path: Path, *, port: int, env: Mapping[str, str]) -> None:
    """Write the file of a process that reaches the mock provider at this port. `env` has the time-outs of its settings."""
    _, api_key, webhook_secret, client_secret, second_key = CANARIES
    key_file = path.with_suffix(".key")
    key_file.touch(mode=0o600)
    key_file.write_text(f"{api_key}\n")
    path.write_text(f"""\
default = ["http"]

[providers.http]
kind = "okane_http"
base_url = "http://okane:{PASSWORD}@{LOOPBACK}:{port}"
timeout = "{env.get("OKANE_PROVIDER_TIMEOUT", "5s")}"
consistency_lag = "{env.get("OKANE_CONSISTENCY_LAG", "5s")}"
unknown_deadline = "{env.get("OKANE_UNKNOWN_DEADLINE", "24h")}"

[providers.stripe]
kind = "stripe"
base_url = "http://{LOOPBACK}:9"
api_key = "file:{key_file.name}"
webhook_secrets = ["{webhook_secret}"]

[providers.payu]
kind = "payu"
base_url = "http://{LOOPBACK}:9"
pos_id = 1
client_id = 1
client_secret = "{client_secret}"
second_keys = ["{second_key}"]
""")
