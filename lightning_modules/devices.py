"""What a training will run on, and the memory there, told without touching a GPU."""

from __future__ import annotations

from typing import Literal

import psutil
import torch

from recognition.estimates import MB
from recognition.experiment import Training

Device = Literal["cpu", "cuda", "mps"]


def device_of(training: Training) -> tuple[Device, int]:
    """The kind and number of devices that a training takes on this machine; no GPU is touched."""
    # counted through NVML: nothing is allocated on any
    if training.accelerator == "gpu" or (training.accelerator == "auto" and torch.cuda.device_count()):
        return "cuda", training.devices
    if training.accelerator != "cpu" and torch.backends.mps.is_available():
        return "mps", training.devices
    return "cpu", training.devices


def device_memory(device: Device) -> tuple[float, float]:
    """Memory of one device (of several the largest) in 10^6 bytes: all of it, and what is free now; 0, 0: not known."""
    if device != "cuda":
        memory = psutil.virtual_memory()
        return memory.total / MB, memory.available / MB
    import pynvml

    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        found = [pynvml.nvmlDeviceGetMemoryInfo(handle) for handle in handles]
    except pynvml.NVMLError:
        return 0.0, 0.0
    return max(one.total for one in found) / MB, max(one.free for one in found) / MB
