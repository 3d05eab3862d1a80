"""An event loop with virtual time, a seeded scheduler, and processes that can be killed, stopped and continued.

Within one process callbacks run in the order in which they became ready, as asyncio promises. The seed decides which process
runs next and how long everything on the network takes. So every run is one that real processes could have had. Time passes
only when no process is ready. A killed process never runs again: no `finally`, no `except`, as after kill -9.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

EPOCH_S = 1_767_225_600.0  # the wall clock at virtual time zero: 2026-01-01
_START_S = 1_000.0
_MASK = (1 << 61) - 1


class Process:
    """One simulated process. `fuse` counts the steps until it is killed; None: it lives on."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.number = number
        self.alive = True
        self.stopped = False
        self.fuse: int | None = None
        self.ready: deque[asyncio.Handle] = deque()


class Stuck(Exception):
    """No callback is ready and none is due, or the run does not end."""


_process: contextvars.ContextVar[Process] = contextvars.ContextVar("process")


class SimulationLoop(asyncio.AbstractEventLoop):
    """The loop of one simulation. `world` is the process of all that is not simulated: servers, clients, the nemesis."""

    def __init__(self, dice: Random, *, max_steps: int = 5_000_000) -> None:
        self._dice = dice
        self._now_s = _START_S
        self._max_steps = max_steps
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timer_number = 0
        self._runnable: list[Process] = []
        self._processes = 0
        self._tasks: list[
            tuple[asyncio.Task[Any], Process]
        ] = []  # kept to the end, so that none is finalised meanwhile
        self._over = False
        self.steps = 0
        self.digest = 0
        self.errors: list[str] = []
        self.on_kill: Callable[[Process], None] = lambda _process: None
        self.on_continue: Callable[[Process], None] = lambda _process: None
        self.world = self.new_process("world")

    # Processes

    def new_process(self, name: str) -> Process:
        """Return a process that has not run yet."""
        self._processes += 1
        return Process(name, self._processes)

    def start(self, process: Process, main: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run `main` in `process`, in a context of its own."""
        return self.create_task(main, context=self.context(process))

    def context(self, process: Process) -> contextvars.Context:
        """Return a fresh context; calls in it belong to `process`."""
        context = contextvars.Context()
        context.run(_process.set, process)
        return context

    def kill(self, process: Process) -> None:
        """Kill the process, at whatever line it is."""
        if not process.alive:
            return
        process.alive = False
        process.ready.clear()
        if process in self._runnable:
            self._runnable.remove(process)
        self.on_kill(process)

    def stop_process(self, process: Process) -> None:
        """SIGSTOP: callbacks that become ready wait until `continue_process`."""
        process.stopped = True
        if process in self._runnable:
            self._runnable.remove(process)

    def continue_process(self, process: Process) -> None:
        """SIGCONT."""
        if process.stopped:
            process.stopped = False
            self.on_continue(process)
            if process.alive and process.ready:
                self._runnable.append(process)

    # Running

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run `main` in the world until it is done; everything else ends with it."""
        asyncio._set_running_loop(self)
        try:
            task = self.start(self.world, main)
            self._run_ready()
            while not task.done():
                self._pass_time()
                self._run_ready()
            return task.result()
        finally:
            asyncio._set_running_loop(None)
            self._over = True
            self._bury()

    def _run_ready(self) -> None:
        """Run until no callback is ready."""
        runnable, roll = self._runnable, self._dice.random
        while runnable:
            at = int(roll() * len(runnable)) if len(runnable) > 1 else 0
            process = runnable[at]
            if process.fuse is not None and self._burns(process):
                continue
            handle = process.ready.popleft()
            if not process.ready:
                del runnable[at]
            if not handle._cancelled:
                self.steps += 1
                self.digest = (self.digest * 1_000_003 + process.number * 7 + int(self._now_s * 1e6)) & _MASK
                handle._run()
            if self.steps > self._max_steps:
                raise Stuck(f"still running after {self.steps} steps")

    def _burns(self, process: Process) -> bool:
        """Count the process's fuse down; return True if it was killed."""
        assert process.fuse is not None
        process.fuse -= 1
        if process.fuse < 0:
            self.kill(process)
            return True
        return False

    def _pass_time(self) -> None:
        """Move on to the next timer, and make ready the callbacks that are due."""
        while self._timers:
            due_s, _, handle = heapq.heappop(self._timers)
            process = handle._context[_process]  # type: ignore[attr-defined] # private in asyncio
            if not handle._cancelled and process.alive:
                if due_s > self._now_s:
                    self._now_s = due_s
                self._enqueue(handle, process)
                return
        raise Stuck("nothing is ready and no timer is set")

    def _enqueue(self, handle: asyncio.Handle, process: Process) -> None:
        if not process.alive:
            return
        if not process.ready and not process.stopped:
            self._runnable.append(process)
        process.ready.append(handle)

    def _bury(self) -> None:
        """Close the unfinished coroutines, so that the garbage collector has nothing to warn of later."""
        for task, _ in self._tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined] # private in asyncio
                _close(task.get_coro())
            elif not task.cancelled():
                task.exception()
        self._tasks.clear()
        self._timers.clear()

    def unnoticed_failures(self) -> list[str]:
        """Return the tasks of living processes whose exception was never retrieved."""
        return [
            f"{process.name}: ended unnoticed with {task.exception()!r}: {getattr(task.get_coro(), '__qualname__', '')}"
            for task, process in self._tasks
            if process.alive and task.done() and not task.cancelled() and getattr(task, "_log_traceback", False)
        ]

    # What asyncio asks of a loop

    def time(self) -> float:
        return self._now_s

    def wall_s(self) -> float:
        """Return the wall clock of all processes: seconds since the epoch."""
        return EPOCH_S + self._now_s

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        if context is None:
            context = contextvars.copy_context()
        handle = asyncio.Handle(callback, args, self, context)
        if not self._over:
            self._enqueue(handle, context.get(_process) or self.world)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._timer_number += 1
        if not self._over:
            heapq.heappush(self._timers, (when, self._timer_number, handle))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override] # the stub takes more arguments
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[T]:
        task = asyncio.Task(coro, loop=self, name=name or "", context=context)
        owner = context.get(_process) if context is not None else _process.get(None)
        self._tasks.append((task, owner or self.world))
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self._over:
            self.errors.append(f"{context.get('message')}: {context.get('exception')!r}")

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return not self._over

    def is_closed(self) -> bool:
        return self._over

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are skipped when their time comes."""


def current_process() -> Process:
    """The process that is running."""
    return _process.get()


def _close(coroutine: Any) -> None:
    """Close a coroutine that waits; one that goes on waiting in a `finally` is closed again."""
    for _ in range(50):
        try:
            coroutine.close()
        except BaseException:  # what it raises after the end of the run is of no interest
            continue
        return
