"""The parts of a process for captures, voids and refunds: the product's, over the model of the store."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry

from okane.intake.accept import PaymentIntake
from okane.intake.operations import OperationIntake
from okane.lanes import operations_stream
from okane.worker.operation_metrics import OperationMetrics
from okane.worker.worker import OperationResources
from streams import Metrics, Producer
from tests.simulation.operations.stores import (
    RemoteOperationLists,
    RemoteOperationStore,
    as_operation_lists,
    as_operation_store,
)
from tests.simulation.operations.tables import OperationTables
from tests.simulation.postgres import Remote
from tests.simulation.scenario import Scenario

OPERATIONS_STREAM: Final = operations_stream("simulated:operations")
# One for all: what it counts is not looked at.
_metrics = OperationMetrics(CollectorRegistry())


class OperationParts:
    """The parts of one process."""

    def __init__(
        self, tables: OperationTables, remote: Remote, producer: Producer, *, scenario: Scenario, actor: str
    ) -> None:
        self.producer = producer
        self._store = as_operation_store(
            RemoteOperationStore(
                remote,
                tables,
                actor=actor,
                lease=scenario.lease,
                grace=scenario.grace,
                late_look_ups=scenario.late_look_ups,
            )
        )
        self._lists = as_operation_lists(RemoteOperationLists(remote, tables))

    def intake(self, payments: PaymentIntake) -> OperationIntake:
        """Return those of an API."""
        return OperationIntake(store=self._store, lists=self._lists, payments=payments, producer=self.producer)

    def of_worker(self, concurrency: int, stream_metrics: Metrics) -> OperationResources:
        """Return those of a worker."""
        return OperationResources(
            stream=OPERATIONS_STREAM,
            producer=self.producer,
            store=self._store,
            concurrency=concurrency,
            metrics=_metrics,
            stream_metrics=stream_metrics,
        )
