"""A bundle's own weights as a checkpoint, for torch and the peers that run our weights."""

from __future__ import annotations

from pathlib import Path

from export.bundle import Bundle
from export.from_ctranslate2 import from_ctranslate2
from export.upgrade import weights_of
from training.checkpoint import save_checkpoint
from training.model import EncoderLayer, Transformer
from training.model_config import ModelConfig

NOTE = "the weights of the bundle, in float32"


def own_weights(bundle: Bundle, out: Path) -> Path:
    """Write the checkpoint of a bundle at `out`; int8 weights keep their 7 bits.

    Raises BundleError where the bundle has no engine to take them from.
    """
    model = from_ctranslate2(weights_of(bundle))
    recipe = (bundle.path / bundle.manifest.recipe).read_text(encoding="utf-8")
    save_checkpoint(out, model.state_dict(), _config(model), bundle.tokenizer_path, recipe, {})
    return out


def _config(model: Transformer) -> ModelConfig:
    layer = model.encoder[0]
    assert isinstance(layer, EncoderLayer)
    return ModelConfig(
        width=model.width,
        heads=model.heads,
        ffn=layer.ffn.inner.out_features,
        encoder_layers=len(model.encoder),
        decoder_layers=len(model.decoder),
        activation=layer.ffn.activation,
        dropout=0.0,
        max_length=model.max_length,
    )
