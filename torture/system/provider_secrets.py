"""The providers file of each process, with a canary for every secret that a provider can have: no log may show one (I12).

`http` is the mock provider, and `stripe` the gateway of torture/gateway. `payu` gets no payments: it is there for its
secrets, which every process loads.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from okane.local.ports import LOOPBACK

PASSWORD = "canary-provider-8d20b1"  # noqa: S105 - a canary
WEBHOOK_SECRET = "whsec_canary0b6d52"  # noqa: S105 - a canary
CANARIES = (
    PASSWORD,
    "sk_test_canary4e19c7",
    WEBHOOK_SECRET,
    "canary-payu-client-a94f",
    "canary-payu-second-c31e",
)


def write_providers_file(path: Path, *, port: int, gateway_port: int, env: Mapping[str, str], routes: str = "") -> None:
    """Write the file of a process that reaches the mock provider and the gateway at these ports. `env` has the time-outs of
    its settings. A file that is there is replaced at once, never half."""
    _, api_key, webhook_secret, client_secret, second_key = CANARIES
    key_file = path.with_suffix(".key")
    if not key_file.exists():
        key_file.touch(mode=0o600)
        key_file.write_text(f"{api_key}\n")
    new = path.with_suffix(".new")
    new.write_text(f"""\
default = ["http", "stripe"]

[providers.http]
kind = "okane_http"
base_url = "http://okane:{PASSWORD}@{LOOPBACK}:{port}"
timeout = "{env.get("OKANE_PROVIDER_TIMEOUT", "5s")}"
consistency_lag = "{env.get("OKANE_CONSISTENCY_LAG", "5s")}"
unknown_deadline = "{env.get("OKANE_UNKNOWN_DEADLINE", "24h")}"

[providers.stripe]
kind = "stripe"
base_url = "http://{LOOPBACK}:{gateway_port}"
timeout = "{env.get("OKANE_PROVIDER_TIMEOUT", "30s")}"
consistency_lag = "{env.get("OKANE_CONSISTENCY_LAG", "90s")}"
poll_delays = ["1s", "3s", "5s"]
rate = "100/s"
api_key = "file:{key_file.name}"
webhook_secrets = ["{webhook_secret}"]

[providers.payu]
kind = "payu"
base_url = "http://{LOOPBACK}:9"
pos_id = 1
client_id = 1
client_secret = "{client_secret}"
second_keys = ["{second_key}"]
{routes}""")
    new.replace(path)
