"""The processes that train one model together, as torchrun describes them in the environment.

One process is the *first* (rank 0): it alone decides, serves progress, reads and writes checkpoints and publishes. One
process on each node is the node's *leader* (local rank 0), which fills folders that the node's processes share. A
single process is both, and then nothing here does anything. Needs torch.
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
# While the first process exports and uploads, the others wait; a lost process is still noticed at once.
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
        """Run a block in the node's leader first; the node's other processes then find its files."""
        if self.local_rank:
            self.barrier()
        yield
        if not self.local_rank:
            self.barrier()
        self.barrier()

    @contextlib.contextmanager
    def peer_errors(self) -> Iterator[None]:
        """Raise PeerLost where a collective operation fails because another process is gone."""
        try:
            yield
        except RuntimeError as error:
            if self.is_alone or not is_peer_error(error):
                raise
            raise PeerLost(
                f"Process {self.rank} of {self.size} lost another one, whose own result says why; all restart from the "
                "newest checkpoint."
            ) from error

    def barrier(self) -> None:
        """Wait for all processes."""
        if not self.is_alone:
            dist.barrier(_control())

    def broadcast(self, value: T) -> T:
        """Return the first process's value in every process."""
        if self.is_alone:
            return value
        values: list[Any] = [value]
        dist.broadcast_object_list(values, src=0, group=_control())
        found: T = values[0]
        return found

    def receive(self, type_: type[T]) -> T:
        """Return what the first process broadcasts; called by the others."""
        found = self.broadcast(None)
        assert isinstance(found, type_)
        return found

    def broadcast_tensors(self, tensors: Iterable[torch.Tensor]) -> None:
        """Overwrite tensors with those of the first process."""
        if not self.is_alone:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), src=0)

    def request_stop(self) -> None:
        """Ask the first process to stop them all; it polls `stop_requested`."""
        _store().set(STOP_KEY, str(self.rank))

    def stop_requested(self) -> bool:
        """Tell whether another process was asked to stop: one small request to the rendezvous' store."""
        return not self.is_alone and bool(_store().check([STOP_KEY]))


_control_group: list[dist.ProcessGroup] = []


@contextlib.contextmanager
def joined() -> Iterator[World]:
    """Join the process group if torchrun started this process, and leave it at the end.

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
    """The group for barriers and broadcasts of objects: over gloo, with a longer timeout than gradients have."""
    return _control_group[0]


def _store() -> Any:
    # The store that all processes met at. torch has no public name for it (torch/distributed/distributed_c10d.py).
    return dist.distributed_c10d._get_default_store()
