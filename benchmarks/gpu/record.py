"""What every measurement on a GPU writes down: where it ran, and each sample as soon as there is one.

A run may be cut off at any moment, so the file is written anew after each sample.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass
class Record:
    """One file of results.

    Attributes:
        path: of the file.
        device: cuda or cpu.
        tiny: whether the smallest sizes are asked for, which prove that a measurement works and measure nothing.
        seconds: for all measurements.
    """

    path: Path
    device: torch.device
    tiny: bool
    seconds: float
    began: float = field(default_factory=time.monotonic)
    found: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_command_line(cls, description: str | None) -> Record:
        """Read --output, --device, --tiny and --seconds."""
        parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--output", type=Path, required=True)
        parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
        parser.add_argument("--tiny", action="store_true", help="the smallest sizes: is everything there, does it run?")
        parser.add_argument("--seconds", type=float, default=120, help="begin nothing that will not end by then")
        options = parser.parse_args()
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        record = cls(options.output, torch.device(options.device), options.tiny, options.seconds)
        record.found = {"machine": machine(record.device), "tiny": options.tiny, "left_out": []}
        record.write()
        return record

    @property
    def left_s(self) -> float:
        return self.seconds - (time.monotonic() - self.began)

    def has_time_for(self, what: str, needed_s: float) -> bool:
        """Return whether there is; note down what is left out for lack of it."""
        if self.left_s >= needed_s:
            return True
        self.found["left_out"].append(what)
        self.write()
        return False

    def write(self) -> None:
        unfinished = self.path.with_suffix(".part")
        unfinished.write_text(json.dumps(self.found, indent=1) + "\n")
        unfinished.rename(self.path)

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def peak_memory_mb(self) -> float | None:
        """Return the most that tensors took of the GPU since the last call."""
        if self.device.type != "cuda":
            return None
        peak = torch.cuda.max_memory_allocated() / 2**20
        torch.cuda.reset_peak_memory_stats()
        return round(peak, 1)

    def timed(self, work: Callable[[], object]) -> float:
        """Return the seconds that some work takes, on the device too."""
        self.synchronize()
        began = time.perf_counter()
        work()
        self.synchronize()
        return time.perf_counter() - began


def machine(device: torch.device) -> dict[str, Any]:
    """Return where this runs."""
    found: dict[str, Any] = {
        "device": platform.machine(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
    }
    if device.type == "cuda":
        found |= {
            "device": torch.cuda.get_device_name(),
            "capability": list(torch.cuda.get_device_capability()),
            "memory_mb": torch.cuda.get_device_properties(0).total_memory // 2**20,
            "driver": _driver(),
        }
    return found


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()


def matrix_product_tflops(record: Record, name: str) -> float:
    """Return the teraflops of a large square matrix product: the most that this device does in a type of numbers."""
    size = 256 if record.tiny else 8192
    left, right = (torch.randn(size, size, device=record.device, dtype=TYPES[name]) for _ in range(2))
    record.timed(lambda: left @ right)
    seconds = min(record.timed(lambda: left @ right) for _ in range(5))
    return round(2 * size**3 / seconds / 1e12, 2)
