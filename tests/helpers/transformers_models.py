"""Shrunk models of every family that has a native class, and tokenizers of SigLIP's two kinds, in folders."""

import json
from contextlib import contextmanager
from pathlib import Path

import open_clip
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from gcl.model.transformers.read import SIGLIP_TOWERS

WIDTH, LAYERS, HEADS, MLP, PATCH = 32, 2, 4, 72, 8  # of the shrunk towers
TEXTS = (
    "red running shoes for men", "blue striped cotton dress", "the photo of a mug", "size 42 leather boots black",
    "café naïve señor 1234567890", "ab cd ef gh ij kl mn op qr st uv wx yz",
)  # fmt: skip


def register_towers() -> None:
    """Shrunk SigLIP image towers under names that timm (and so open_clip) finds; exact and approximated GELU."""

    def tower(act, **shape):
        def build(pretrained=False, **extra):
            extra = {key: value for key, value in extra.items() if key in ("num_classes", "global_pool")}
            arguments = {
                "patch_size": PATCH, "img_size": 32, "embed_dim": WIDTH, "depth": LAYERS, "num_heads": HEADS,
                "mlp_ratio": MLP / WIDTH, "class_token": False, "global_pool": "map", "act_layer": act, **shape,
                **extra,
            }  # fmt: skip
            model = VisionTransformer(**arguments)
            model.default_cfg = {"input_size": (3, arguments["img_size"], arguments["img_size"])}
            return model

        return build

    for name, act, shape in (
        ("small_siglip_b_32", "gelu", {}),
        ("small_siglip_b_48", "gelu", {"img_size": 48}),
        ("small_siglip_l_32", "gelu", {"depth": 3, "num_heads": 2}),
        ("small_siglip_so400m_32", "gelu_tanh", {"mlp_ratio": 3.7362}),
        ("small_siglip_gopt_32", "gelu_tanh", {"embed_dim": 48, "mlp_ratio": 4.0}),
    ):
        function = tower(act, **shape)
        function.__name__, function.__module__ = name, "timm.models.vision_transformer"
        if not timm.is_model(name):
            timm.models.register_model(function)
    for name, published, smaller in (
        ("small_pe_core_32", "vit_pe_core_tiny_patch16_384", {
            "patch_size": PATCH, "img_size": 32, "embed_dim": WIDTH, "depth": LAYERS, "num_heads": 2,
            "ref_feat_shape": (4, 4), "attn_pool_num_heads": 2,
        }),
        ("small_fastvit_64", "fastvit_mci0", {"layers": (1, 1, 1, 1), "embed_dims": (16, 32, 64, 64)}),
    ):  # fmt: skip
        if not timm.is_model(name):
            timm.models.register_model(_shrunk(name, published, smaller))


def _shrunk(name: str, published: str, smaller: dict):
    def build(pretrained=False, **extra):
        model, size = timm.create_model(published, pretrained=False, **smaller, **extra), int(name[-2:])
        model.default_cfg = {"input_size": (3, size, size)}
        return model

    build.__name__, build.__module__ = name, "timm.models.vision_transformer"
    return build


@contextmanager
def known_towers():
    """timm and the import find the shrunk SigLIP towers by their sizes, as they find the published ones."""
    register_towers()
    added = {
        (WIDTH, LAYERS, HEADS, MLP, PATCH): ("small_siglip_b", (32, 48)),
        (WIDTH, 3, 2, MLP, PATCH): ("small_siglip_l", (32,)),
        (WIDTH, LAYERS, HEADS, 119, PATCH): ("small_siglip_so400m", (32,)),
        (48, LAYERS, HEADS, 192, PATCH): ("small_siglip_gopt", (32,)),
    }
    new = added.keys() - SIGLIP_TOWERS.keys()
    SIGLIP_TOWERS.update(added)
    yield
    for size in new:
        del SIGLIP_TOWERS[size]


def siglip(tower: str, *, vocab: int, embed: int = WIDTH, text: dict | None = None, length: int = 64) -> dict:
    return {
        "embed_dim": embed, "init_logit_bias": -10, "custom_text": True,
        "vision_cfg": {
            "image_size": 32, "timm_model_name": tower, "timm_model_pretrained": False, "timm_pool": "map",
            "timm_proj": "none",
        },
        "text_cfg": {
            "context_length": length, "vocab_size": vocab, "hf_tokenizer_name": "somebody/siglip",
            "tokenizer_kwargs": {"clean": "canonicalize"}, "width": WIDTH, "heads": HEADS, "layers": LAYERS,
            "no_causal_mask": True, "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6},
            **(text or {}),
        },
    }  # fmt: skip


def clip(**changes) -> dict:
    return {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": LAYERS, "width": WIDTH, "patch_size": PATCH, "head_width": 8,
                       **changes.pop("vision", {})},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": WIDTH, "heads": HEADS, "layers": LAYERS,
                     **changes.pop("text", {})},
        **changes,
    }  # fmt: skip


TANH = {"act_kwargs": {"approximate": "tanh"}}
# family -> (model_cfg, preprocess_cfg, kind of tokenizer); the differences between the published configurations
FAMILIES = {
    "siglip-B": (siglip("small_siglip_b_32", vocab=300), {}, "t5"),
    "siglip-L": (siglip("small_siglip_l_32", vocab=300), {}, "t5"),
    "siglip-SO400M": (siglip("small_siglip_so400m_32", vocab=300, text={"mlp_ratio": 3.7362}), {}, "t5"),
    "siglip2-B": (siglip("small_siglip_b_32", vocab=400, text=TANH), {}, "gemma"),
    "siglip2-SO400M": (siglip("small_siglip_so400m_32", vocab=400, text={"mlp_ratio": 3.7362, **TANH}), {}, "gemma"),
    "siglip2-gopt": (siglip("small_siglip_gopt_32", vocab=400, embed=48, text=TANH), {}, "gemma"),
    "clip": (clip(), {"resize_mode": "shortest"}, None),
    "clip-quickgelu": (clip(quick_gelu=True), {"resize_mode": "shortest"}, None),
    "clip-H": (clip(vision={"mlp_ratio": 4.9231}, text={"heads": 2}), {"resize_mode": "shortest"}, None),
    "clip-custom-eos": (
        clip(custom_text=True, text={"pool_type": "eos", "eos_id": 49407}), {"resize_mode": "squash"}, None,
    ),
    "metaclip2": (
        clip(quick_gelu=True, text={"pool_type": "eos", "eos_id": 2, "vocab_size": 300,
                                    "hf_tokenizer_name": "somebody/metaclip"}), {"resize_mode": "shortest"}, "xlm",
    ),
}  # fmt: skip

# without a native class
OTHERS = {
    "pe-core": (
        clip(custom_text=True, text={"context_length": 32}) | {"vision_cfg": {
            "image_size": 32, "timm_model_name": "small_pe_core_32", "timm_pool": "map", "timm_proj": None,
        }}, {}, None,
    ),
    "mobileclip2": (
        clip(custom_text=True, text={"no_causal_mask": True}) | {"vision_cfg": {
            "image_size": 64, "timm_model_name": "small_fastvit_64", "timm_pool": "avg", "timm_proj": None,
        }}, {"size": 64, "mean": [0.0] * 3, "std": [1.0] * 3}, None,
    ),
}  # fmt: skip


def write_t5(folder: Path) -> None:
    """As SigLIP's: a unigram vocabulary of T5's kind, texts end with </s>, which is the padding, too."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("  ", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator(
        TEXTS,
        trainers.UnigramTrainer(
            vocab_size=200, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    _config(folder, "T5Tokenizer", eos_token="</s>", pad_token="</s>", unk_token="<unk>", extra_ids=0)


def write_xlm(folder: Path) -> None:
    """As XLM-V's, which MetaCLIP 2 has: a unigram vocabulary, texts between <s> and </s>, padded with <pad>."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer.train_from_iterator(
        TEXTS, trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    _config(
        folder, "PreTrainedTokenizerFast", bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        cls_token="<s>", sep_token="</s>",
    )  # fmt: skip


def write_gemma(folder: Path) -> None:
    """As SigLIP2's: byte-level fallback, texts end with <eos>, padded with <pad> on the right."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    trainer = trainers.BpeTrainer(
        vocab_size=380, special_tokens=[*special, *(f"<0x{byte:02X}>" for byte in range(256))], show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    _config(
        folder, "GemmaTokenizer", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>", bos_token="<bos>",
        padding_side="right", add_bos_token=False, add_eos_token=True,
    )  # fmt: skip


def _config(folder: Path, name: str, **content) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name, **content}))


def write_family(family: str, folder: Path) -> Path:
    """An open_clip folder of this family with random weights, as somebody could have published it."""
    register_towers()
    folder.mkdir(parents=True, exist_ok=True)
    model_cfg, preprocess, tokenizer = (FAMILIES | OTHERS)[family]
    if tokenizer:
        {"t5": write_t5, "gemma": write_gemma, "xlm": write_xlm}[tokenizer](folder)
    cfg = {key: value for key, value in model_cfg.items() if key != "custom_text"}
    torch.manual_seed(len(family))
    kind = open_clip.model.CustomTextCLIP if model_cfg.get("custom_text") else open_clip.model.CLIP
    model = kind(**json.loads(json.dumps(cfg)))
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms are drawn, too: a zero would hide that it is lost
            parameter.add_(torch.randn_like(parameter) * 0.05)
        if any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules()):
            size = model_cfg["vision_cfg"]["image_size"]
            for _ in range(40):  # with the statistics it begins with, all images would have one vector
                model.visual.train()(torch.randn(8, 3, size, size) + torch.randn(8, 3, 1, 1))
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    settings = {"size": 32, "mean": [0.5, 0.4, 0.3], "std": [0.5, 0.6, 0.7], "resize_mode": "squash", **preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model_cfg, "preprocess_cfg": settings}))
    return folder
