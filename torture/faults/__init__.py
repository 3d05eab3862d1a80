"""All faults, one module for each part that breaks."""

from collections.abc import Mapping

from torture.faults.clock import CLOCK_FAULTS
from torture.faults.failpoints import FAILPOINT_FAULTS
from torture.faults.fault import Fault
from torture.faults.gateway import GATEWAY_FAULTS
from torture.faults.network import NETWORK_FAULTS
from torture.faults.postgres import POSTGRES_FAULTS
from torture.faults.processes import PROCESS_FAULTS
from torture.faults.promotion import PROMOTION_FAULTS
from torture.faults.provider import PROVIDER_FAULTS
from torture.faults.redis import REDIS_FAULTS
from torture.faults.redis_cluster import CLUSTER_FAULTS
from torture.faults.sentinels import SENTINEL_FAULTS
from torture.faults.webhooks import WEBHOOK_FAULTS

FAULTS: Mapping[str, Fault] = {
    fault.name: fault
    for kind in (
        PROCESS_FAULTS,
        REDIS_FAULTS,
        POSTGRES_FAULTS,
        NETWORK_FAULTS,
        PROVIDER_FAULTS,
        GATEWAY_FAULTS,
        FAILPOINT_FAULTS,
        CLOCK_FAULTS,
        WEBHOOK_FAULTS,
        PROMOTION_FAULTS,
        SENTINEL_FAULTS,
        CLUSTER_FAULTS,
    )
    for fault in kind
}

__all__ = ["FAULTS", "Fault"]
