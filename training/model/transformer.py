"""The Transformer that teachers and students share.

Pre-norm encoder-decoder (Vaswani et al. 2017; pre-norm: Xiong et al. 2020) with one embedding
table tied between source, target and output (Press & Wolf 2017). Encoder and decoder depth are
independent: a deep encoder with a shallow decoder translates as well and decodes faster
(Kasai et al. 2021). Models of others are built of the same parts with other options: post-norm, a
recurrent decoder (SSRU; Kim et al. 2019), a vocabulary of the source's own. Every option exists in
ONNX; CTranslate2 has all but the recurrent decoder. Dropout is our own, with random bits that are
cheap on a CPU.

Shapes: B batch, S source length, T target length, V vocabulary, U the source's where it has one of
its own, D width, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _random_bytes(count: int) -> Tensor:
    """`count` uniform bytes [count] from torch's CPU generator, eight from each 64-bit draw."""
    words = torch.empty((count + 7) // 8, dtype=torch.int64)
    return words.random_(-(2**63), None).view(torch.uint8)[:count]


class Dropout(nn.Module):
    """Inverted dropout (Srivastava et al. 2014).

    On a CPU torch draws one random number an element on one thread, 14 % of a small model's
    training step; here one byte an element decides, so `p` is rounded to a 256th there and
    the scale follows the rounded value. Elsewhere torch's own kernel is used. State: torch's
    default generator, so a saved generator state resumes the same masks.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout {p} must be at least 0 and below 1")
        self.p = p
        self.threshold = min(round(p * 256), 255)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        # In place, so that it stays bytes: torch converts those to floats several times as fast as
        # bools.
        keep = _random_bytes(x.numel()).ge_(self.threshold).view(x.shape)
        return x * keep.to(x.dtype).mul_(256 / (256 - self.threshold))

    def extra_repr(self) -> str:
        return f"p={self.p}"


PAD, UNK, BOS, EOS = 0, 1, 2, 3

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
}


SINUSOIDS = ("tensor2tensor", "vaswani")


def position_encodings(length: int, width: int, kind: str = "tensor2tensor") -> Tensor:
    """Position encodings [length, D]: sines in the first half, cosines in the second.

    Rates fall from 1 to 1/10,000 (`tensor2tensor`, and Marian), or as 10,000 ^ (-2i / D), which
    does not quite reach it (`vaswani`: Vaswani et al. 2017, section 3.5, and Hugging Face's
    Marian). Raises ValueError for another kind.
    """
    rates = position_rates(width, kind)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * rates[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def position_rates(width: int, kind: str = "tensor2tensor") -> Tensor:
    """Radians [D / 2] in float64 by which the angles grow from one position to the next."""
    if kind not in SINUSOIDS:
        raise ValueError(f"sinusoids {kind!r}: choose from {SINUSOIDS}")
    half = width // 2
    steps = half - 1 if kind == "tensor2tensor" else half
    return torch.exp(torch.arange(half, dtype=torch.float64) * (-math.log(10_000.0) / steps))


@dataclass
class LayerCache:
    """Keys and values of one decoder layer, each [B, H, length, D / H]; of a recurrent one its
    state [B, D] in place of those of self-attention."""

    self_keys: Tensor | None = None
    self_values: Tensor | None = None
    memory_keys: Tensor | None = None
    memory_values: Tensor | None = None
    state: Tensor | None = None

    def select(self, rows: Tensor) -> None:
        """Keep the given rows of the batch, in that order (beam search, finished rows)."""
        for field_ in fields(self):
            value = getattr(self, field_.name)
            if value is not None:
                setattr(self, field_.name, value.index_select(0, rows))


@dataclass
class DecoderCache:
    """What a step of cached decoding needs from the steps before it."""

    layers: list[LayerCache]
    length: int = 0
    memory_bias: Tensor | None = field(default=None)

    def select(self, rows: Tensor) -> None:
        for layer in self.layers:
            layer.select(rows)
        if self.memory_bias is not None:
            self.memory_bias = self.memory_bias.index_select(0, rows)


def attend(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, causal: bool = False
) -> Tensor:
    """Scaled dot-product attention, each argument [B, H, L, D / H].

    On a CPU it runs in float32 under mixed precision: torch's bf16 backward there takes 16 times
    as long as the float32 one.
    """
    dtype = query.dtype
    if dtype == torch.bfloat16 and query.device.type == "cpu":
        query, key, value = query.float(), key.float(), value.float()
        with torch.autocast("cpu", enabled=False):
            mixed = F.scaled_dot_product_attention(query, key, value, bias, is_causal=causal)
        return mixed.to(dtype)
    return F.scaled_dot_product_attention(query, key, value, bias, is_causal=causal)


class SelfAttention(nn.Module):
    """Multi-head self-attention with one fused projection to queries, keys and values."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * heads * head_width)
        self.out = nn.Linear(heads * head_width, width)

    def forward(
        self, x: Tensor, bias: Tensor | None, causal: bool, cache: LayerCache | None = None
    ) -> Tensor:
        """[B, L, D] → [B, L, D]; `bias` is added to the scores and broadcasts to [B, H, L, L]."""
        batch, length, _ = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if cache is not None:
            if cache.self_keys is not None and cache.self_values is not None:
                key = torch.cat([cache.self_keys, key], dim=2)
                value = torch.cat([cache.self_values, value], dim=2)
            cache.self_keys, cache.self_values = key, value
            causal = causal and length > 1
        mixed = attend(query, key, value, bias, causal)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, -1))


class SSRU(nn.Module):
    """Simpler simple recurrent unit (Kim et al. 2019, "From Research to Production and Back",
    section 3.1), in the place of a decoder's self-attention:

    f = σ(Wf x + bf), c_t = f ⊙ c_{t-1} + (1 - f) ⊙ W x, y = relu(c_t); c starts at zero.
    """

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.candidate = nn.Linear(width, width, bias=False)
        self.forget = nn.Linear(width, width)

    def forward(
        self, x: Tensor, bias: Tensor | None, causal: bool, cache: LayerCache | None = None
    ) -> Tensor:
        """[B, L, D] → [B, L, D]; `bias` and `causal` are self-attention's and not needed."""
        # The sum over all positions is float32 under mixed precision too.
        forget = torch.sigmoid(self.forget(x).float())
        added = (1 - forget) * self.candidate(x).float()
        state = cache.state if cache is not None else None
        if state is None:
            state = torch.zeros_like(added[:, 0])
        states = []
        for kept, new in zip(forget.unbind(1), added.unbind(1), strict=True):
            state = torch.addcmul(new, kept, state)
            states.append(state)
        if cache is not None:
            cache.state = state
        return F.relu(torch.stack(states, dim=1))


DECODER_CELLS: dict[str, type[SelfAttention | SSRU]] = {"attention": SelfAttention, "ssru": SSRU}


class CrossAttention(nn.Module):
    """Multi-head attention from the target to the encoder's states."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, heads * head_width)
        self.kv = nn.Linear(width, 2 * heads * head_width)
        self.out = nn.Linear(heads * head_width, width)

    def project_memory(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Encoder states [B, S, D] → keys and values, each [B, H, S, D / H]."""
        batch, length, _ = memory.shape
        kv = self.kv(memory).view(batch, length, 2, self.heads, -1)
        key, value = kv.permute(2, 0, 3, 1, 4).unbind(0)
        return key, value

    def forward(
        self, x: Tensor, memory: Tensor, bias: Tensor | None, cache: LayerCache | None = None
    ) -> Tensor:
        """[B, T, D] and memory [B, S, D] → [B, T, D]."""
        batch, length, _ = x.shape
        query = self.query(x).view(batch, length, self.heads, -1).transpose(1, 2)
        if cache is None:
            key, value = self.project_memory(memory)
        else:
            if cache.memory_keys is None or cache.memory_values is None:
                # Read at every step, so laid out for it.
                key, value = self.project_memory(memory)
                cache.memory_keys, cache.memory_values = key.contiguous(), value.contiguous()
            key, value = cache.memory_keys, cache.memory_values
        mixed = attend(query, key, value, bias)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, -1))


class FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int, activation: str, dropout: float) -> None:
        super().__init__()
        self.activation = activation
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.dropout(ACTIVATIONS[self.activation](self.inner(x))))


@dataclass(frozen=True)
class LayerOptions:
    """What a layer is made of; all but heads and units is the same in every layer of a model."""

    width: int
    head_width: int
    heads: int
    cross_heads: int
    ffn: int
    activation: str
    dropout: float
    post_norm: bool
    norm_epsilon: float

    def norm(self) -> nn.LayerNorm:
        return nn.LayerNorm(self.width, eps=self.norm_epsilon)

    def feed_forward(self) -> FeedForward:
        return FeedForward(self.width, self.ffn, self.activation, self.dropout)


class Layer(nn.Module):
    """Blocks with residual connections, normalised before each block or after its sum."""

    def __init__(self, options: LayerOptions) -> None:
        super().__init__()
        self.post_norm = options.post_norm
        self.dropout = Dropout(options.dropout)

    def residual(self, x: Tensor, norm: nn.Module, block: Callable[[Tensor], Tensor]) -> Tensor:
        """[B, L, D] → [B, L, D]."""
        if self.post_norm:
            added: Tensor = norm(x + self.dropout(block(x)))
            return added
        return x + self.dropout(block(norm(x)))


class EncoderLayer(Layer):
    def __init__(self, options: LayerOptions) -> None:
        super().__init__(options)
        self.attention_norm = options.norm()
        self.attention = SelfAttention(options.width, options.heads, options.head_width)
        self.ffn_norm = options.norm()
        self.ffn = options.feed_forward()

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        x = self.residual(x, self.attention_norm, lambda y: self.attention(y, bias, causal=False))
        return self.residual(x, self.ffn_norm, self.ffn)


class DecoderLayer(Layer):
    """`attention` is self-attention, or the recurrent unit in its place."""

    def __init__(self, options: LayerOptions, cell: str) -> None:
        super().__init__(options)
        self.attention_norm = options.norm()
        self.attention = DECODER_CELLS[cell](options.width, options.heads, options.head_width)
        self.cross_norm = options.norm()
        self.cross = CrossAttention(options.width, options.cross_heads, options.head_width)
        self.ffn_norm = options.norm()
        self.ffn = options.feed_forward()

    def forward(
        self, x: Tensor, memory: Tensor, bias: Tensor | None, cache: LayerCache | None
    ) -> Tensor:
        x = self.residual(
            x, self.attention_norm, lambda y: self.attention(y, None, causal=True, cache=cache)
        )
        x = self.residual(x, self.cross_norm, lambda y: self.cross(y, memory, bias, cache))
        return self.residual(x, self.ffn_norm, self.ffn)


class LayerSize(NamedTuple):
    """Heads of self-attention (0 where a recurrent unit stands in its place), of attention to the
    source (0 in the encoder), and feed-forward units."""

    heads: int
    cross_heads: int
    ffn: int

    @classmethod
    def of(cls, layer: nn.Module) -> LayerSize:
        assert isinstance(layer, EncoderLayer | DecoderLayer)
        own = layer.attention
        return cls(
            heads=own.heads if isinstance(own, SelfAttention) else 0,
            cross_heads=layer.cross.heads if isinstance(layer, DecoderLayer) else 0,
            ffn=layer.ffn.inner.out_features,
        )


class Transformer(nn.Module):
    """Encoder-decoder Transformer over a joint vocabulary, or one a side.

    `width` must be a multiple of `heads` and even. With `source_vocab_size` the source has a table
    of its own. `sizes` are heads and units of single layers (`training.config.model.LayerSizes`). A
    model that starts from a zero vector, as Marian's do, has a row of zeros for BOS. Sequences
    longer than `max_length` positions raise ValueError when they are embedded.
    """

    def __init__(
        self,
        vocab_size: int,
        width: int = 256,
        heads: int = 4,
        ffn: int = 1024,
        encoder_layers: int = 6,
        decoder_layers: int = 2,
        activation: str = "relu",
        dropout: float = 0.1,
        max_length: int = 512,
        norm: str = "pre",
        norm_epsilon: float = 1e-5,
        decoder_cell: str = "attention",
        sinusoids: str = "tensor2tensor",
        source_vocab_size: int | None = None,
        sizes: Mapping[str, Sequence[int] | None] | None = None,
    ) -> None:
        super().__init__()
        if width % heads or width % 2:
            raise ValueError(f"width {width} must be even and a multiple of heads {heads}")
        self.width = width
        self.heads = heads
        self.max_length = max_length
        self.post_norm = norm == "post"
        self.decoder_cell = decoder_cell
        self.sinusoids = sinusoids
        self.embedding = nn.Embedding(vocab_size, width, padding_idx=PAD)
        self.source_embedding = (
            nn.Embedding(source_vocab_size, width, padding_idx=PAD) if source_vocab_size else None
        )
        self.register_buffer(
            "positions", position_encodings(max_length, width, sinusoids), persistent=False
        )
        self.dropout = Dropout(dropout)
        whole = LayerOptions(
            width=width,
            head_width=width // heads,
            heads=heads,
            cross_heads=heads,
            ffn=ffn,
            activation=activation,
            dropout=dropout,
            post_norm=self.post_norm,
            norm_epsilon=norm_epsilon,
        )

        def options(side: str, number: int) -> LayerOptions:
            def own(name: str, whole_size: int) -> int:
                chosen = (sizes or {}).get(f"{side}_{name}")
                return chosen[number] if chosen else whole_size

            return replace(
                whole,
                heads=own("heads", heads),
                cross_heads=own("cross_heads", heads),
                ffn=own("ffn", ffn),
            )

        self.encoder = nn.ModuleList(
            EncoderLayer(options("encoder", number)) for number in range(encoder_layers)
        )
        self.encoder_norm = nn.Identity() if self.post_norm else whole.norm()
        self.decoder = nn.ModuleList(
            DecoderLayer(options("decoder", number), decoder_cell)
            for number in range(decoder_layers)
        )
        self.decoder_norm = nn.Identity() if self.post_norm else whole.norm()
        self.output_bias = nn.Parameter(torch.zeros(vocab_size))
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        tables = [self.embedding, *([self.source_embedding] if self.source_embedding else [])]
        for table in tables:
            nn.init.normal_(table.weight, std=self.width**-0.5)
            with torch.no_grad():
                table.weight[PAD].zero_()
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @property
    def encoder_sizes(self) -> list[LayerSize]:
        return list(map(LayerSize.of, self.encoder))

    @property
    def decoder_sizes(self) -> list[LayerSize]:
        return list(map(LayerSize.of, self.decoder))

    @property
    def vocab_size(self) -> int:
        return self.embedding.num_embeddings

    @property
    def source_table(self) -> nn.Embedding:
        """The source's embeddings: a table of its own, or the joint one."""
        return self.embedding if self.source_embedding is None else self.source_embedding

    def embed(self, ids: Tensor, start: int = 0, table: nn.Embedding | None = None) -> Tensor:
        """Token ids [B, L] at positions start… → [B, L, D], by the target's or a given table."""
        end = start + ids.shape[1]
        if end > self.max_length:
            raise ValueError(
                f"a sequence of {end} tokens is longer than the model's max_length "
                f"{self.max_length}: split the text or raise max_length in the recipe"
            )
        positions: Tensor = self.positions  # type: ignore[assignment]
        vectors = (self.embedding if table is None else table)(ids)
        return self.dropout(vectors * math.sqrt(self.width) + positions[start:end])

    @staticmethod
    def padding_bias(ids: Tensor, dtype: torch.dtype = torch.float32) -> Tensor | None:
        """Score bias [B, 1, 1, S] that hides padding; None where there is none to hide."""
        padding = ids == PAD
        if not bool(padding.any()):
            return None
        bias = torch.zeros(ids.shape, dtype=dtype, device=ids.device)
        return bias.masked_fill_(padding, float("-inf"))[:, None, None, :]

    def encode(self, src: Tensor) -> tuple[Tensor, Tensor | None]:
        """Source ids [B, S], EOS last, PAD right → states [B, S, D] and their padding bias."""
        bias = self.padding_bias(src)
        x = self.embed(src, table=self.source_table)
        for layer in self.encoder:
            x = layer(x, bias)
        memory: Tensor = self.encoder_norm(x)
        return memory, bias

    def decode(
        self,
        trg_in: Tensor,
        memory: Tensor,
        memory_bias: Tensor | None,
        cache: DecoderCache | None = None,
    ) -> Tensor:
        """Target ids [B, T], BOS first → states [B, T, D]; with a cache only the new positions."""
        start = cache.length if cache is not None else 0
        x = self.embed(trg_in, start)
        for index, layer in enumerate(self.decoder):
            x = layer(x, memory, memory_bias, cache.layers[index] if cache is not None else None)
        if cache is not None:
            cache.length += trg_in.shape[1]
        states: Tensor = self.decoder_norm(x)
        return states

    def logits(self, states: Tensor) -> Tensor:
        """States [..., D] → scores over the vocabulary [..., V]."""
        return F.linear(states, self.embedding.weight, self.output_bias)

    def scoring(self, words: Tensor, offset: Tensor) -> Transformer:
        """This model with its weights, but scores [..., C] of these words [C] alone, to which
        `offset` [C] is added."""
        narrowed = _NarrowedTransformer.__new__(_NarrowedTransformer)
        narrowed.__dict__.update(self.__dict__)
        narrowed.words, narrowed.offset = words, offset
        return narrowed

    def forward(self, src: Tensor, trg_in: Tensor) -> Tensor:
        """Teacher-forced logits [B, T, V] for source ids [B, S] and target inputs [B, T]."""
        memory, bias = self.encode(src)
        return self.logits(self.decode(trg_in, memory, bias))

    def new_cache(self, memory_bias: Tensor | None = None) -> DecoderCache:
        return DecoderCache([LayerCache() for _ in self.decoder], memory_bias=memory_bias)


class _NarrowedTransformer(Transformer):
    """A Transformer that shares another's weights and scores a few words."""

    words: Tensor
    offset: Tensor

    def logits(self, states: Tensor) -> Tensor:
        rows = self.embedding.weight.index_select(0, self.words)
        return F.linear(states, rows, self.output_bias[self.words] + self.offset)


def parameter_count(model: nn.Module) -> int:
    """Parameters, frozen ones too; tied ones once."""
    return sum(p.numel() for p in model.parameters())
