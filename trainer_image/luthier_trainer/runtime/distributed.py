"""The processes that train one model together, as torchrun describes them in the environment.

One process is the *first* (rank 0): it alone decides, serves progress, reads and writes checkpoints and publishes. One
on each node is the node's *leader*, which fills folders that the node's processes share. Alone, a process is both, and
nothing here does anything. Needs torch.
"""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from luthier_trainer.runtime.errors import PeerLost
from luthier_trainer.runtime.launch import torchrun_ranks

T = TypeVar("T")

STOP_KEY = "luthier/stop"
# While the first process exports and uploads, the others wait; a lost process is noticed at once all the same.
BARRIER_TIMEOUT = timedelta(hours=12)


@dataclass(frozen=True)
class World:
    """Which of how many processes this is.

    Attributes:
        rank, size: among all.
        local_rank, local_size: on this node.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process decides and writes."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Whether there is no other."""
        return self.size == 1

    @contextlib.contextmanager
    def leader_first(self) -> Iterator[None]:
        """Let the node's leader through a block before the node's others, which then find what it left."""
        if self.local_rank:
            self.barrier()
        yield
        if not self.local_rank:
            self.barrier()
        self.barrier()

    @contextlib.contextmanager
    def peer_errors(self) -> Iterator[None]:
        """Say that another process is gone where a collective operation says how its socket ended."""
        try:
            yield
        except RuntimeError as error:
            if self.is_alone or not is_peer_error(error):
                raise
            raise PeerLost(
                f"Process {self.rank} of {self.size} lost another one, which says why; all start again from the newest "
                "checkpoint."
            ) from error

    def barrier(self) -> None:
        """Wait for all."""
        if not self.is_alone:
            dist.barrier(_control())

    def broadcast(self, value: T) -> T:
        """Return the first process's value in each."""
        if self.is_alone:
            return value
        values: list[Any] = [value]
        dist.broadcast_object_list(values, src=0, group=_control())
        found: T = values[0]
        return found

    def receive(self, type_: type[T]) -> T:
        """Return what the first process agrees on with itself, in another one."""
        found = self.broadcast(None)
        assert isinstance(found, type_)
        return found

    def broadcast_tensors(self, tensors: Iterable[torch.Tensor]) -> None:
        """Overwrite tensors with those of the first process."""
        if not self.is_alone:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), src=0)

    def request_stop(self) -> None:
        """Ask the first process to stop all, which its `stop_requested` answers."""
        _store().set(STOP_KEY, str(self.rank))

    def stop_requested(self) -> bool:
        """Tell whether another process was asked to stop: one small request to the rendezvous' store."""
        return not self.is_alone and bool(_store().check([STOP_KEY]))


_control_group: list[dist.ProcessGroup] = []


@contextlib.contextmanager
def joined() -> Iterator[World]:
    """Join the other processes if torchrun started this one, and leave them at the end.

    Raises:
        PeerLost: when one of the others ends while this one needs it.
    """
    world = World(*torchrun_ranks())
    if world.is_alone:
        yield world
        return
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(world.local_rank)
    with world.peer_errors():
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo")
        control = dist.new_group(backend="gloo", timeout=BARRIER_TIMEOUT)
        assert isinstance(control, dist.ProcessGroup)
        _control_group.append(control)
        yield world
        world.barrier()
        _control_group.clear()
        dist.destroy_process_group()


def is_peer_error(error: RuntimeError) -> bool:
    """Tell whether a process group broke. Gloo has no error class of its own."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()


def _control() -> dist.ProcessGroup:
    """The group for waiting and agreeing: over gloo, and more patient than gradients may be."""
    return _control_group[0]


def _store() -> Any:
    # The store that all processes met at. torch has no public name for it (torch/distributed/distributed_c10d.py).
    return dist.distributed_c10d._get_default_store()
