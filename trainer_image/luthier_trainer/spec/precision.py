"""Chooses the numeric precision of training for the device that is there. Pure.

bf16 has the range of fp32 and needs no loss scaling; GPUs have it from compute capability 8.0 on. Older ones have fp16,
which Trainer scales the loss for. On a CPU fp32 is the fastest of the three.
"""

from dataclasses import dataclass

from luthier_api.training import Precision
from luthier_trainer.runtime.errors import InvalidSpec


@dataclass(frozen=True)
class Device:
    """What training runs on."""

    name: str
    is_gpu: bool
    has_bf16: bool


def choose_precision(wanted: Precision, device: Device) -> Precision:
    """Return fp32, fp16 or bf16.

    Raises:
        InvalidSpec: if the device does not have what is wanted, with what it has.
    """
    match wanted:
        case Precision.AUTO if not device.is_gpu:
            return Precision.FP32
        case Precision.AUTO:
            return Precision.BF16 if device.has_bf16 else Precision.FP16
        case Precision.FP16 if not device.is_gpu:
            raise InvalidSpec("precision is fp16, which needs a GPU; use auto or fp32, or set gpusPerNode: 1.")
        case Precision.BF16 if not device.has_bf16:
            fix = "auto or fp16" if device.is_gpu else "auto or fp32"
            raise InvalidSpec(f"precision is bf16, which {device.name} does not have; use {fix}.")
    return wanted
