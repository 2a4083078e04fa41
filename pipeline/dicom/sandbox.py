"""Read foreign files in child processes (`pipeline.child`), and say in words what a death of one means for its file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.cases import Fault
from pipeline.child import Children

#: What a child may take: address space, its libraries included (about 0.5 GB with pydicom and numpy); and time a task.
MEMORY_BYTES, TIMEOUT_S = 4 * 2**30, 60.0


class Sandbox(Children):
    """Children that read; see `pipeline.child.Children`."""

    def __init__(
        self,
        function: Callable[[Any], Any],
        workers: int = 1,
        memory_bytes: int = MEMORY_BYTES,
        timeout_s: float = TIMEOUT_S,
        chunk: int = 1,
    ) -> None:
        super().__init__(function, workers, memory_bytes, timeout_s, chunk)

    def fault(self, how: str) -> Fault:
        """What a death means for the file: E_LIMIT or E_CRASH."""
        if how in ("time", "memory"):
            return Fault.of("E_LIMIT", f"Reading it takes more {how} than is allowed.")
        remedy = "Export the file again; reading it ends the process that reads it."
        return Fault("E_CRASH", f"Reading it crashed the reader ({how}).", remedy)
