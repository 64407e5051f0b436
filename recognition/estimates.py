"""From a network's footprint to memory and time of its training: sums and measured factors, nothing loaded.

The factors were fitted to runs of five to thirty seconds of one processor core (32 bits, PyTorch 2.15): convolutional
networks at 8, 28 and 224 pixels, a Vision Transformer at 224. There estimates were 0.7 to 1.4 times the processor time
and 0.8 to 1.0 times the memory that were measured. A machine that others work on takes longer; on another machine the
rate is measured anew, the factors are not. With a GPU the rate is nominal, and so is the time.
"""

from __future__ import annotations

from dataclasses import dataclass

from recognition.access import redacted
from recognition.experiment import Training
from recognition.records import Expected, Preflight

MB = 1e6
BACKWARD = 2.0
"""A training step over a forward pass: twice as much again (gradients of inputs and of weights)."""
STATE = {"adam": 2, "adamw": 2, "sgd": 1}
"""Numbers an optimiser keeps for each parameter that learns; SGD with momentum."""
SPARE = 1.25
"""Memory of a backward pass over what the forward pass kept for it: gradients of maps, work space of kernels."""
PROCESS_MB = {"cpu": 650.0, "cuda": 600.0, "mps": 650.0}
"""A stage's process with everything loaded; on a GPU its context and the libraries' kernels."""
START_SECONDS, EPOCH_SECONDS, STEP_SECONDS = 1.0, 0.06, 0.002
"""What Lightning takes for a training, an epoch (checkpoint, scores) and a step, whatever the network."""
NOMINAL_RATE = {("cuda", "32"): 8e12, ("cuda", "16"): 40e12, ("mps", "32"): 1e12}
"""Floating-point operations a second counted on where nothing is measured: about what a data-centre GPU sustains."""
ALMOST_FULL = 0.8


@dataclass(frozen=True)
class Footprint:
    """What a network costs, measured without images."""

    parameters: int
    learning: int
    """Parameters that are trained."""
    weight_bytes: int
    """Of parameters and buffers."""
    flops: int
    """Of one image's forward pass."""
    kept_bytes: int
    """What a forward pass in 32 bits keeps of one image for the backward pass."""
    step_flops: float
    """Of a whole training step, forward and backward, for one image."""


def memory(footprint: Footprint, training: Training, expected: Expected, device: str) -> dict[str, float]:
    """Memory of training on one device by part, in 10^6 bytes."""
    learning = 4 * footprint.learning
    batch = -(-training.batch_size // training.devices)
    pixels = batch * expected.height * expected.width * expected.channels
    kept = batch * footprint.kept_bytes * (1 if training.precision == "32" else 0.6)
    state = 0 if training.optimizer == "sgd" and not training.momentum else STATE[training.optimizer]
    average = footprint.weight_bytes if training.ema_decay else 0
    parts = {
        "weights": footprint.weight_bytes + average,
        "gradients": learning,
        "optimiser": learning * state,
        "activations": kept * SPARE,
        # as bytes, and as floats
        "images": pixels * 5,
    }
    return {name: size / MB for name, size in parts.items()} | {"process": PROCESS_MB[device]}


def least_memory(footprint: Footprint, training: Training) -> float:
    """What training takes for certain on one device, in 10^6 bytes: weights, gradients and half of what is kept."""
    batch = -(-training.batch_size // training.devices)
    # in mixed precision most maps have 16 bits
    kept = batch * footprint.kept_bytes * (1 if training.precision == "32" else 0.5)
    return (footprint.weight_bytes + 4 * footprint.learning + kept) / MB


def seconds(
    footprint: Footprint, training: Training, expected: Expected, rate: float, augmenting: float, workers: int
) -> float:
    """Wall time of the stage train.

    Args:
        footprint: of the network.
        training: epochs, batch, devices.
        expected: how many images.
        rate: floating-point operations a second of one device.
        augmenting: seconds to augment one image in one process.
        workers: processes that augment; 0: the training process itself.
    """
    step = footprint.step_flops / rate / training.devices
    forward = footprint.flops / rate / training.devices
    images = augmenting / workers if workers else augmenting
    # loader workers run beside the step, but share a CPU's cores with it
    each = max(step, images) if workers else step + images
    steps = -(-expected.train_images // training.batch_size) + -(-expected.val_images // training.batch_size)
    epoch = expected.train_images * each + expected.val_images * forward + steps * STEP_SECONDS + EPOCH_SECONDS
    return START_SECONDS + training.epochs * epoch


def told(found: Preflight) -> list[tuple[str, str]]:
    """What a preflight found, as name and text, for a table."""
    data = found.data
    images = f"{data.images:,} images of {data.height}x{data.width}x{data.channels} in {data.classes} classes"
    how = {"assumed": "assumed: nothing is known before they are fetched"}.get(data.known, data.known)
    if data.kind != "classes":
        images = images.replace(" in ", f" with {data.kind} of ")
    rows = [
        ("data", f"{redacted(data.source)}: {images} ({how})"),
        ("splits", f"about {data.train_images:,} train, {data.val_images:,} val"),
        ("network", f"{found.network} for {found.task.replace('_', ' ')}"),
        ("device", f"{found.devices} x {found.device}"),
    ]
    if found.policy:
        rows.append(("augmentation", found.policy))
    if found.parameters:
        rows += [
            ("parameters", f"{found.parameters:,}"),
            ("FLOPs an image", f"{found.flops:,}"),
            ("memory", _told_memory(found)),
        ]
    if found.store_mb:
        rows.append(("prepared images", f"{found.store_mb:,.0f} MB on the disk"))
    if found.seconds:
        rows.append(
            ("training", f"about {as_duration(found.seconds)} ({found.rate / 1e9:,.0f} GFLOP/s, {found.rate_from})")
        )
    rows.append(("model", found.model_name or "not registered"))
    return rows


def _told_memory(found: Preflight) -> str:
    parts = ", ".join(f"{name} {size:,.0f}" for name, size in found.memory_mb.items() if size >= 1)
    total = f" of {found.total_mb:,.0f} MB, {found.free_mb:,.0f} MB free" if found.total_mb else ""
    return f"about {found.needed_mb:,.0f} MB{total} ({parts})"


def as_duration(seconds: float) -> str:
    """Seconds as people say them: 40 s, 12 min, 3.5 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
