"""One of several processes ends or stops: the others end within the time given, with one message in all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch.distributed as dist

WAIT = """
import os, sys, time
import torch, torch.distributed as dist
from visp.utils.distributed import largest, torchrun_processes

try:
    with torchrun_processes("cpu", seconds=4) as device:
        for number in range(10_000):
            largest(number, device)
            if number == 0:
                print("joined", flush=True)
            time.sleep(0.01)
except ConnectionError as error:
    print(error, flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_the_others_end_in_time_with_one_message(how: signal.Signals) -> None:
    store = dist.TCPStore(  # type: ignore[attr-defined]  # as torchrun keeps one
        "127.0.0.1", 0, is_master=True, wait_for_workers=False
    )
    world = {
        "WORLD_SIZE": "3",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",  # torch 2.4 asks for it
        "OMP_NUM_THREADS": "1",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WAIT],
            env={**os.environ, **world, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for rank in range(3)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "joined\n"
        processes[2].send_signal(how)
        start = time.monotonic()
        told = [process.communicate(timeout=60)[0] for process in processes[:2]]
        assert time.monotonic() - start < 30
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    messages = [line for text in told for line in text.splitlines()]
    assert len(messages) == 1
    assert "has lost another one, which has ended or not answered for 4 seconds, and ends too" in messages[0]
