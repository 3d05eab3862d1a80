"""The links of the system: one proxy for each process and server, so that any one can be broken alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from okane.local.ports import LOOPBACK
from torture.network.proxy import FaultProxy
from torture.system.shape import Shape


class Links:
    """Proxies by link (`worker-1>redis`, or `all>redis-0`). Clients come in through `api-1>clients`."""

    def __init__(self, shape: Shape, targets: Mapping[str, int]) -> None:
        """`targets`: the port of each server, and of each API."""
        self._proxies: dict[str, FaultProxy] = {}
        for process, servers in shape.servers_of.items():
            for server in servers:
                port = targets[process if server == "clients" else server]
                self._proxies[f"{process}>{server}"] = FaultProxy((LOOPBACK, port))
        for link in shape.shared_links:
            self._proxies[link] = FaultProxy((LOOPBACK, targets[link.partition(">")[2]]))

    async def start(self) -> None:
        await asyncio.gather(*(proxy.start() for proxy in self._proxies.values()))

    async def aclose(self) -> None:
        await asyncio.gather(*(proxy.aclose() for proxy in self._proxies.values()))

    def __getitem__(self, link: str) -> FaultProxy:
        return self._proxies[link]

    def of(self, process: str) -> list[FaultProxy]:
        """From one process to all of its servers, not from its clients."""
        return [
            proxy
            for link, proxy in self._proxies.items()
            if link.startswith(f"{process}>") and not link.endswith(">clients")
        ]

    def to(self, server: str) -> Mapping[str, FaultProxy]:
        """From all processes to one server, by process."""
        ends = f">{server}"
        return {link.removesuffix(ends): proxy for link, proxy in self._proxies.items() if link.endswith(ends)}

    def toward(self, servers: Iterable[str], processes: Iterable[str]) -> list[FaultProxy]:
        """From each of these processes to each of these servers."""
        return [self._proxies[f"{process}>{server}"] for process in processes for server in servers]

    def repoint(self, server: str, port: int, processes: Iterable[str] | None = None) -> None:
        """Lead these processes (all of them) to a server on another port: present connections break."""
        chosen = self.to(server)
        for process in chosen if processes is None else processes:
            chosen[process].point_at((LOOPBACK, port))
            chosen[process].reset()

    def heal(self) -> None:
        for proxy in self._proxies.values():
            proxy.heal()
