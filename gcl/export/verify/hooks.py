"""Which module of a torch model was given what and gave what, in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

Trace = dict[str, tuple[Tensor | None, Tensor]]  # module -> its first input and its output, in the order of finishing


def trace(model: nn.Module, names: Iterable[str], call: Callable[[], Any]) -> Trace:
    """Runs `call` and keeps the first input and output tensor of each named module that it reaches."""
    modules, found = dict(model.named_modules()), {}

    def hook(name: str) -> Callable:
        def keep(module: nn.Module, args: tuple, kwargs: Mapping[str, Any], output: Any) -> None:
            result = _tensor(output)
            if name not in found and result is not None:
                given = next((v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)), None)
                found[name] = (given, result.detach().clone())

        return keep

    with ExitStack() as stack:
        for name in dict.fromkeys(names):
            handle = modules[name].register_forward_hook(hook(name), with_kwargs=True)
            stack.callback(handle.remove)
        call()
    return found


def first_input(network: nn.Module, call: Callable[[], Any]) -> Tensor:
    """What the first layer of a tower is given: token ids, or normalised pixels."""
    leaves = [
        name
        for name, part in network.named_modules()
        if isinstance(part, (nn.Embedding, nn.Conv2d)) and "position" not in name
    ]
    return next(given for given, _ in trace(network, leaves, call).values() if given is not None)


def _tensor(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    if isinstance(output, tuple) and output and isinstance(output[0], Tensor):
        return output[0]
    return getattr(output, "last_hidden_state", None)
