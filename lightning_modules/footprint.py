"""What a network costs before it is trained: parameters, operations, and what a backward pass needs of a forward pass.

Times are those of the calling thread on a processor: what a quiet machine takes, also while others work on it.

Networks are looked at on PyTorch's meta device, where tensors have shapes and no content; those whose course depends
on content (detectors) are looked at with real zeros.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_modules.networks import example_inputs
from lightning_modules.setup import Setup, operations
from recognition.errors import ConfigurationError
from recognition.estimates import BACKWARD, Footprint

LEAST_BATCH = 2
"""Batch normalisation has no spread over one value."""
MOST_TIMED = 12e9
"""Operations of a step that is timed; a larger network is judged by `convolution_rate`."""
SECONDS_TIMED, MOST_STEPS = 0.3, 20
"""So long, or so often, steps are timed."""
NETWORKS_SHARE = 0.6
"""What networks of many layers reach of the rate of one good convolution."""
MOST_TIMED_PARAMETERS = 60_000_000


def on_meta(build: Callable[[], Setup]) -> tuple[Setup, bool]:
    """A setup without content, where its network can be built and run so; else a real one.

    Returns:
        The setup, and whether it is on the meta device.

    Raises:
        ConfigurationError: the network does not fit the images.
    """
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            setup = build()
            operations(setup.network, setup.architecture)
    except (ConfigurationError, RuntimeError, NotImplementedError):
        # whether it is the network's fault shows where there is content
        return build(), False
    return setup, True


def footprint(setup: Setup, meta: bool, critic: nn.Module | None = None) -> Footprint:
    """Measure a network that is freshly built; its parameters say themselves whether they learn.

    Args:
        setup: of the network.
        meta: whether it is on the meta device.
        critic: a GAN's discriminator, of the same device.

    Raises:
        ConfigurationError: the network does not take images of this size.
    """
    network = setup.network
    with torch.device("meta" if meta else "cpu"):
        flops = operations(network, setup.architecture)
        kept = kept_bytes(network, _inputs(setup)) // LEAST_BATCH
        step = (1 + BACKWARD * _learning_share(network)) * flops
        modules = [network]
        if critic is not None:
            judged = _images(setup)
            critic_flops = _flops_of(critic, judged)
            kept += 2 * kept_bytes(critic, judged) // LEAST_BATCH
            # the discriminator sees real and made images; then it hands the generator its gradient
            each = 1 / setup.experiment.training.critic_steps
            step = flops + (1 + BACKWARD) * (2 * critic_flops + each * (flops + critic_flops))
            modules.append(critic)
    parameters = [parameter for module in modules for parameter in module.parameters()]
    buffers = [buffer for module in modules for buffer in module.buffers()]
    return Footprint(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        learning=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        weight_bytes=sum(tensor.numel() * tensor.element_size() for tensor in (*parameters, *buffers)),
        flops=flops,
        kept_bytes=kept,
        step_flops=step,
    )


def kept_bytes(network: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """Bytes that a forward pass in training mode keeps for the backward pass, beside weights and inputs."""
    own = [*network.parameters(), *network.buffers(), *inputs]
    known = {tensor.untyped_storage()._cdata for tensor in own}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with learning_mode(network), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        outputs = network(*inputs)
    # until here what is kept is held, so that no storage's place is given to another
    del outputs
    return sum(kept.values())


@contextmanager
def learning_mode(network: nn.Module) -> Iterator[None]:
    """Training mode while the block runs, but for detectors, which then want targets."""
    before = {module: module.training for module in network.modules()}
    network.train(not hasattr(network, "first_label"))
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


def step_rate(setup: Setup, found: Footprint, freeze: Callable[[nn.Module], None]) -> float:
    """Operations a second of this machine's CPU in a step of the very network; 0 where that would take long.

    Args:
        setup: of a real network.
        found: its footprint.
        freeze: says which of its parameters learn.
    """
    network = setup.network
    freeze(network)
    network.to(memory_format=torch.channels_last)
    batch = min(setup.experiment.training.batch_size, max(LEAST_BATCH, int(MOST_TIMED // max(1, found.step_flops))))
    inputs = tuple(_repeated(tensor, batch) for tensor in _inputs(setup))
    with learning_mode(network):
        times = [_timed(lambda: _step(network, inputs))]
        # the first step sets kernels up: where steps are short it does not count
        if times[0] < SECONDS_TIMED / 2:
            times.clear()
            while sum(times) < SECONDS_TIMED and len(times) < MOST_STEPS:
                times.append(_timed(lambda: _step(network, inputs)))
    return batch * (1 + BACKWARD * _learning_share(network)) * found.flops / min(times)


def can_be_timed(setup: Setup, found: Footprint) -> bool:
    """Whether a step of the network is short, and can be made without targets."""
    small = found.step_flops * LEAST_BATCH <= MOST_TIMED and found.parameters <= MOST_TIMED_PARAMETERS
    return small and not hasattr(setup.network, "first_label")


def convolution_rate() -> float:
    """Operations a second of a network on this machine's CPU, by forward and backward passes of one convolution."""
    layer = nn.Conv2d(64, 64, 3, padding=1).to(memory_format=torch.channels_last)
    images = torch.zeros(4, 64, 56, 56, requires_grad=True).contiguous(memory_format=torch.channels_last)
    flops = (1 + BACKWARD) * 2 * 4 * 64 * 64 * 9 * 56 * 56
    layer(images).sum().backward()
    times: list[float] = []
    while sum(times) < SECONDS_TIMED:
        times.append(_timed(lambda: layer(images).sum().backward()))
    return NETWORKS_SHARE * flops / min(times)


def _timed(work: Callable[[], None]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began


def _step(network: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    for parameter in network.parameters():
        parameter.grad = None
    outputs: Any = network(*inputs)
    outputs.float().mean().backward()


def _learning_share(network: nn.Module) -> float:
    """About which share of a network's operations gradients are worked out for, by parameters."""
    parameters = list(network.parameters())
    learning = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    return learning / max(1, sum(parameter.numel() for parameter in parameters))


def _inputs(setup: Setup) -> tuple[Tensor, ...]:
    return tuple(_repeated(tensor, LEAST_BATCH) for tensor in example_inputs(setup.architecture))


def _repeated(tensor: Tensor, batch: int) -> Tensor:
    repeated = tensor[:1].expand(batch, *tensor.shape[1:]).clone()
    return repeated.contiguous(memory_format=torch.channels_last) if repeated.ndim == 4 else repeated


def _images(setup: Setup) -> tuple[Tensor, Tensor]:
    a = setup.architecture
    images = torch.zeros(LEAST_BATCH, a.image_channels, a.height, a.width)
    return images, torch.zeros(LEAST_BATCH, dtype=torch.int64)


def _flops_of(network: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(*inputs)
    return int(counter.get_total_flops()) // LEAST_BATCH
