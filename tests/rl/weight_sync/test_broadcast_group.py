"""The weight group stands beside the trainer's own process group and disturbs it in no way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from rl.weight_sync.group import BroadcastGroup, own_address

RECEIVER = """
import os, sys, torch, torch.distributed as dist
from datetime import timedelta
from torch.distributed import distributed_c10d as c10d
host, port, name, count, out = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5]
store = dist.TCPStore(host, port, 2, is_master=False, timeout=timedelta(seconds=60))
group, _ = c10d._new_process_group_helper(
    2, 1, [], dist.Backend("gloo"), dist.PrefixStore(name, store), group_name=name, timeout=timedelta(seconds=60)
)
c10d._world.pg_group_ranks[group] = {0: 0, 1: 1}
data = torch.empty(count, dtype=torch.uint8)
dist.broadcast(data, src=0, group=group)
with open(out, "wb") as file:
    file.write(data.numpy().tobytes())
dist.destroy_process_group(group)
os._exit(0)
"""
"""A server goes on living. A process that ends here is aborted now and then, because a thread of torch's is not
joined yet when its destructor runs ("terminate called without an active exception")."""


@pytest.fixture
def trainer_group(tmp_path: Path):
    """A default group, as every trainer rank has one."""
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_bytes_of_mixed_dtypes_arrive_while_the_trainer_has_its_own_group(trainer_group, tmp_path: Path):
    tensors = [torch.randn(5, 3), torch.randn(7, dtype=torch.bfloat16), torch.randn(4, 4).t()]
    size = sum(t.nbytes for t in tensors)
    group = BroadcastGroup(receivers=1, backend="gloo", timeout_s=60)
    out = tmp_path / "received"
    arguments = [group.host, str(group.port), group.name, str(size), str(out)]
    receiver = subprocess.Popen([sys.executable, "-c", RECEIVER, *arguments])
    try:
        group.join()
        group.broadcast(tensors)
        assert receiver.wait(timeout=60) == 0
    finally:
        receiver.kill()
        receiver.wait()
        group.close()
    assert out.read_bytes() == b"".join(t.contiguous().view(torch.uint8).numpy().tobytes() for t in tensors)
    mine = torch.ones(1)
    dist.all_reduce(mine)
    assert mine.item() == 1


def test_a_receiver_that_never_comes_is_an_error_within_the_timeout():
    group = BroadcastGroup(receivers=1, backend="gloo", timeout_s=2)
    with pytest.raises(RuntimeError):
        group.join()
    group.close()


def test_a_local_server_is_told_the_local_address():
    assert own_address("http://127.0.0.1:30000") == "127.0.0.1"
    assert own_address("http://localhost:30000") in ("127.0.0.1", "::1")
