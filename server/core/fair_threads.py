"""FairThreads: threads that run the codec work of many calls, a turn each. server/core/codec_threads.py has one for each kind.

A first-come pool would let one call with hundreds of samples hold up everybody else. Here the next task is the one that
would finish first if all calls ran side by side (weighted fair queuing, as for the device in runtime/scheduling), so a
thumbnail is next however much another call has queued. Threads are daemons: a decoder that cannot be interrupted must not
keep the process from ending.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from runtime.niceness import give_way, niceness


@dataclass(eq=False)
class Task:
    """A function to be run for a call. cost: of any unit, the same for all tasks. done: its result."""

    owner: Hashable
    cost: float
    function: Callable[[], Any]
    done: Future[Any] = field(default_factory=Future)


class FairThreads:
    """At most `threads` threads, started when they are needed.

    name: of the threads. niceness: how much less urgent they are to the operating system than the process: 0 to 19.
    """

    def __init__(self, threads: int, name: str, *, niceness: int = 0) -> None:
        self._most, self._name, self._niceness = threads, name, niceness
        self._changed = threading.Condition()
        # Owner → its waiting tasks, and the cost that it has been served, of those who wait or run.
        self._waiting: dict[Hashable, deque[Task]] = {}
        self._served: dict[Hashable, float] = {}
        self._virtual = 0.0
        self._count = 0  # of the waiting tasks
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._closed = False

    def submit(self, owner: Hashable, cost: float, function: Callable[[], Any]) -> Task:
        """Queue a task. owner: the call whose turn it takes."""
        task = Task(owner, cost, function)
        with self._changed:
            if owner not in self._waiting:
                self._waiting[owner] = deque()
                self._served[owner] = self._virtual
            self._waiting[owner].append(task)
            self._count += 1
            if self._count > self._idle and len(self._threads) < self._most:
                self._start()
            self._changed.notify()
        return task

    def drop(self, task: Task) -> bool:
        """Drop a task that still waits. Returns whether it did."""
        with self._changed:
            tasks = self._waiting.get(task.owner, deque[Task]())
            if task not in tasks:
                return False
            tasks.remove(task)
            self._count -= 1
            if not tasks:
                del self._waiting[task.owner], self._served[task.owner]
        return task.done.cancel()

    @property
    def waiting(self) -> int:
        """Tasks that wait for a thread."""
        with self._changed:
            return self._count

    @property
    def busy(self) -> int:
        """Threads that run a task."""
        with self._changed:
            return len(self._threads) - self._idle

    def close(self, within_s: float) -> None:
        """Drop the waiting tasks, and wait `within_s` seconds for those that run."""
        with self._changed:
            self._closed = True
            dropped = [task for tasks in self._waiting.values() for task in tasks]
            self._waiting.clear()
            self._count = 0
            self._changed.notify_all()
            threads = list(self._threads)
        for task in dropped:
            task.done.cancel()
        for thread in threads:
            thread.join(within_s)

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        self._idle += 1
        thread.start()

    def _work(self) -> None:
        give_way(niceness() + self._niceness)
        while (task := self._next()) is not None:
            task.done.set_running_or_notify_cancel()
            try:
                result = task.function()
            except BaseException as error:
                task.done.set_exception(error)
            else:
                task.done.set_result(result)
                del result
            del task  # and with it the call's memory
            with self._changed:
                self._idle += 1

    def _next(self) -> Task | None:
        """Wait for a task; None after `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or bool(self._waiting))
            if self._closed:
                return None
            owner = min(self._waiting, key=lambda owner: self._served[owner] + self._waiting[owner][0].cost)
            task = self._waiting[owner].popleft()
            self._virtual = max(self._virtual, self._served[owner])
            self._served[owner] += task.cost
            if not self._waiting[owner]:
                del self._waiting[owner], self._served[owner]
            self._idle -= 1
            self._count -= 1
            return task
