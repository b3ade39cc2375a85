"""Finds out what torch computes on."""

import torch

from luthier_trainer.spec.precision import Device


def detect_device() -> Device:
    """Describe what torch trains on."""
    if not torch.cuda.is_available():
        return Device("the CPU", is_gpu=False, has_bf16=True)
    # Older GPUs emulate bf16, slower than fp32.
    has_bf16 = torch.cuda.get_device_capability() >= (8, 0)
    return Device(torch.cuda.get_device_name(), is_gpu=True, has_bf16=has_bf16)
