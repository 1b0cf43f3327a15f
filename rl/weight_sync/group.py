"""A torch.distributed group for weights alone: this process is rank 0 and sends, an engine's ranks receive.

Runs on the rank that owns the rollout side. It is no part of the trainer's default group: engines come and go while
training goes on. The port is the system's choice, so it cannot be taken. gloo on CPU, NCCL on GPU. The group is
built as SGLang builds its side (`init_custom_process_group`): a store prefixed by the group's name, then a backend
that is not registered as a default group.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d as c10d


class BroadcastGroup:
    """1 sender and `receivers` receivers. Tell the receivers host, port and name, then `join` on both sides."""

    def __init__(self, *, receivers: int, backend: str, timeout_s: float, host: str = "127.0.0.1") -> None:
        """host: this machine's address as the receivers see it (`own_address`)."""
        self.host = host
        # A server remembers the names of earlier groups, also those of a trainer that was killed.
        self.name = f"osim-weights-{secrets.token_hex(6)}"
        self._world_size = 1 + receivers
        self._backend = backend
        self._timeout = timedelta(seconds=timeout_s)
        self._store = _store(host, self._world_size, self._timeout)
        self._group: Any = None

    @property
    def port(self) -> int:
        return self._store.port

    def join(self) -> None:
        """Blocks until every receiver has joined, or raises RuntimeError after the timeout."""
        store = dist.PrefixStore(self.name, self._store)
        self._group, _ = c10d._new_process_group_helper(
            self._world_size,
            0,
            [],
            dist.Backend(self._backend),
            store,
            group_name=self.name,
            timeout=self._timeout,
        )
        c10d._world.pg_group_ranks[self._group] = {rank: rank for rank in range(self._world_size)}

    def broadcast(self, tensors: Sequence[torch.Tensor]) -> None:
        """Send the bytes of `tensors`, one after the other, as one message. Blocks; RuntimeError when it fails."""
        device = "cuda" if self._backend == "nccl" else "cpu"
        flat = torch.cat([t.detach().to(device).contiguous().reshape(-1).view(torch.uint8) for t in tensors])
        options = dist.BroadcastOptions()
        options.rootRank, options.rootTensor = 0, 0
        self._group.broadcast([flat], options).wait()
        if device == "cuda":
            torch.cuda.synchronize()

    def close(self) -> None:
        """Leave the group. Never blocks on the other side."""
        if self._group is not None:
            with contextlib.suppress(ValueError):  # the trainer has already destroyed all groups
                dist.destroy_process_group(self._group)
            self._group = None


def _store(host: str, world_size: int, timeout: timedelta) -> dist.TCPStore:
    """The rendezvous, on `host` alone: left to itself it would listen on every address of the machine."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listening:
        listening.bind((host, 0))
        listening.listen()
        port = listening.getsockname()[1]
        return dist.TCPStore(
            host,
            port,
            world_size,
            is_master=True,
            timeout=timeout,
            wait_for_workers=False,
            master_listen_fd=listening.detach(),
        )


def own_address(url: str) -> str:
    """The address from which this machine reaches the server at `url`, where the server in turn reaches us.

    Sends nothing. Raises OSError for a name that does not resolve.
    """
    to = urlsplit(url)
    family, _, _, _, address = socket.getaddrinfo(to.hostname, to.port or 80, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(address)
        return str(probe.getsockname()[0])
