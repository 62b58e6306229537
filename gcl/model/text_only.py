"""A text encoder alone, in the shape of a dual encoder: for catalogs without images (E5, MiniLM, BGE)."""

from __future__ import annotations

import math

import torch
from open_clip.hf_model import HFTextEncoder
from torch import Tensor, nn
from transformers import AutoConfig

_TEMPERATURE = 0.05  # what sentence encoders are usually tuned with


class TextOnly(nn.Module):
    """Queries and documents through one Hugging Face encoder, mean pooled, no projection.

    Has the attributes of open_clip's CustomTextCLIP (`text`, `logit_scale`, `logit_bias`, `context_length`), with
    `visual` None.

    source: a repository of the hub or a folder.
    """

    def __init__(self, source: str):
        super().__init__()
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        width = getattr(config, "hidden_size", None) or config.d_model
        self.visual = None
        self.text = HFTextEncoder(source, width, pooler_type="mean_pooler", proj_type=None)
        self.context_length = self.text.context_length
        self.logit_scale = nn.Parameter(torch.tensor(-math.log(_TEMPERATURE)))
        self.logit_bias = None

    def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor:
        """text[n, L] token ids -> [n, D]"""
        embedding = self.text(text)
        return nn.functional.normalize(embedding, dim=-1) if normalize else embedding

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """As open_clip's models have it."""
        self.text.set_grad_checkpointing(enable)
