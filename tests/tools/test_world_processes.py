"""Two processes that train together do what one would on the samples of both."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor, nn
from world import processes
from world.muon import Muon, optimizers

STEPS = 3


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 9))


def samples() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(STEPS, 8, 12, generator=generator), torch.randn(STEPS, 8, 9, generator=generator)


def trained(first: int, last: int) -> dict[str, Tensor]:
    """Weights after some steps on these of each step's eight samples."""
    torch.set_num_threads(1)
    net = network()
    active = optimizers(net, 0.02, 1e-2)
    for x, y in zip(*samples(), strict=True):
        for optimizer in active:
            optimizer.zero_grad()
        (net(x[first:last]) - y[first:last]).pow(2).mean().backward()
        processes.average_gradients(net.parameters())
        for optimizer in active:
            optimizer.step()
    return net.state_dict()


def work(rank: int, port: int, folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}.items():
            patch.setenv(name, str(value))
        patch.setenv("MASTER_ADDR", "localhost")
        assert processes.join() == (rank, 2)
        torch.save(trained(4 * rank, 4 * rank + 4), folder / f"{rank}.pt")


@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes cannot share one GPU under NCCL")
def test_two_processes_train_as_one_does_on_all_samples(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    mp.spawn(work, (port, tmp_path), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    alone = trained(0, 8)
    for name, weight in alone.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], weight, atol=2e-3, rtol=0)


def test_alone_nothing_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert processes.join() == (0, 1)
    assert processes.mine([torch.zeros(1)] * 3) == [True] * 3
    assert isinstance(optimizers(network(), 0.02, 1e-2)[0], Muon)
