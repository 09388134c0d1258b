"""Several processes on one training, each with its own samples: gradients are averaged (data parallel).

On a CPU with one thread each: small operations of a small network do not share well among threads. On two
cores two processes trained 44 samples of the U-Net a second (`--compile`), one of two threads 33 (without).

Started by torch's own launcher, `torchrun --nproc-per-node 2 tools/train_world.py ...`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn


def join() -> tuple[int, int]:
    """Take part if this process was started by torchrun -> (its number, how many there are)."""
    if "WORLD_SIZE" not in os.environ:
        return 0, 1
    if not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return dist.get_rank(), dist.get_world_size()


def size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def mine(items: Sequence[Tensor]) -> list[bool]:
    """Which of these this process works on: every n-th."""
    own = dist.get_rank() if dist.is_initialized() else 0
    return [n % size() == own for n in range(len(items))]


def sum_all(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its sum over the processes, in one transfer."""
    if size() == 1:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Gradients become their mean over the processes."""
    if size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    sum_all(gradients)
    for gradient in gradients:
        gradient.div_(size())
