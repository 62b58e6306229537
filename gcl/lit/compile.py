"""train.compile (true, or a backend's name): the towers' large parts through torch.compile, in place.

Names of weights stay the same.
"""

from __future__ import annotations

from torch import nn

from gcl.model.dual_encoder import DualEncoder
from gcl.schema import Modality


def compile_towers(encoder: DualEncoder, backend: bool | str = True) -> int:
    """Compiles what holds layers in each trunk; returns how many parts that is. The work is done at the first call.

    backend: True for torch's default (inductor: minutes on a CPU, and a C++ compiler), or a name such as "aot_eager".
    Heads, pooling and single layers stay as they are: there is little to fuse and their shapes change most.
    """
    parts = {
        part
        for modality in Modality
        if (tower := encoder.tower(modality)) is not None
        for part in tower.trunk_parts
        if isinstance(part, nn.Module) and any(True for _ in part.children()) and any(True for _ in part.parameters())
    }
    for part in parts:
        # The number of present rows and the longest text differ from batch to batch.
        part.compile(dynamic=True, backend="inductor" if backend is True else backend)
    return len(parts)
