"""The page's JavaScript against the Python it mirrors."""

from __future__ import annotations

import hashlib
import io
import random
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import sentencepiece as spm

from export.runtime.bundle import Bundle
from export.runtime.engines.base import SentenceEngine
from export.runtime.manifest import FORMAT_VERSION, Decoding
from tests.export import tiny
from tests.export.node import call, needs_node

pytestmark = needs_node

SHIPPED = Path(__file__).parents[2] / "models" / "everyday" / "en-de" / "tokenizer.model"
SENTENCES = (
    "A man is riding a bicycle down the street.",
    "Ein Mädchen im grünen Kleid läuft über die Straße – schnell!",
    "“Why?” she asked; he said: “I don't know…”",
    "On 3/4/2021, at 10:45 p.m., 1,234.56 € (≈ $1.5k) were paid.",
    "visit https://example.org/a?b=c&d=%20 or mail me@example.org",
    "日本語のテキストと한국어 и русский и العربية",
)
EDGE_CASES = (
    *("", " ", "   ", "\u2581", "a\u2581", "\u2581\u2581 a \u2581b", "\t\n\r", " \u00a0 \u3000 "),
    *("\0", "a\0b", "\x07\x1b\x7f", "\ufeffbyte order", "zero\u200bwidth\u200d", "\u2028\u2029"),
    *("e\u0301", "é", "ﬁﬂ", "①②", "ＡＢＣ", "㍿", "½", "ﷺ", "\u1100\u1161", "İı"),
    *(
        "<s>",
        "</s> a",
        "<pad>",
        "<unk>",
        "<0x41>",
        "😀",
        "👩‍👩‍👧‍👦",
        "👍🏽",
        "🇩🇪",
        "\U0010ffff",
        "\ue000",
    ),
    "a" * 300,
)
ALPHABETS = (
    "abcdefgh .,",
    "äöüßÄé e\u0301",
    "日本語テキスト",
    "\t\n\r\x00\x07\x1f\x7f\x85\u00a0\u2028\u2581 ",
    "😀👍🏽🇩🇪\u200d\ufe0f",
    "ﬁ①ＡＢ㌔½ﷺ\u1100\u1161",
    "<0x41>/s<unk>",
)


def adversarial_texts(count: int = 400, seed: int = 5) -> list[str]:
    """Sentences, edge cases, sentences with something odd in them, and noise."""
    generator = random.Random(seed)
    texts = [*SENTENCES, *EDGE_CASES, *tiny.sentences()]
    for _ in range(count // 2):
        sentence = generator.choice((*SENTENCES, *tiny.sentences()))
        place = generator.randrange(len(sentence) + 1)
        odd = generator.choice((*EDGE_CASES, *ALPHABETS))
        texts.append(sentence[:place] + odd + sentence[place:])
    for _ in range(count // 2):
        alphabet = "".join(generator.sample(ALPHABETS, 2))
        length = generator.randrange(1, 25)
        texts.append("".join(generator.choice(alphabet) for _ in range(length)))
    return texts


def odd_ids(processor: spm.SentencePieceProcessor, count: int = 400) -> list[list[int]]:
    """Rows of any ids, half of them bytes, which rarely add up to UTF-8."""
    generator = random.Random(7)
    size = processor.get_piece_size()
    some_bytes = [index for index in range(size) if processor.is_byte(index)] or [0]
    choices = (lambda: generator.randrange(size), lambda: generator.choice(some_bytes))
    return [
        [generator.choice(choices)() for _ in range(generator.randrange(12))] for _ in range(count)
    ]


def check_parity(model: Path) -> None:
    processor = spm.SentencePieceProcessor(model_file=str(model))
    texts, ids = adversarial_texts(), odd_ids(processor)
    answer = call("ids", model=str(model), texts=texts, ids=ids)
    for text, found in zip(texts, answer["encoded"], strict=True):
        assert found == processor.encode(text), repr(text)
    for row, decoded in zip(ids, answer["decoded"], strict=True):
        assert decoded == processor.decode(row), row


def test_ids_and_texts_are_those_of_sentencepiece(tokenizer_path: Path) -> None:
    check_parity(tokenizer_path)


def test_ids_and_texts_of_the_shipped_tokenizer() -> None:
    check_parity(SHIPPED)


@pytest.mark.parametrize(
    "options",
    [
        {"normalization_rule_name": "nmt_nfkc", "user_defined_symbols": ["①", "ab"]},
        {"normalization_rule_name": "nfkc_cf", "byte_fallback": False},
        {"normalization_rule_name": "nmt_nfkc", "remove_extra_whitespaces": False},
        {"normalization_rule_name": "identity", "treat_whitespace_as_suffix": True},
        {"normalization_rule_name": "identity", "add_dummy_prefix": False},
        {"model_type": "bpe", "user_defined_symbols": ["<x>", "日本"]},
        {"model_type": "bpe", "normalization_rule_name": "identity", "byte_fallback": False},
    ],
    ids=lambda options: "-".join(str(value) for value in options.values()),
)
def test_every_kind_of_tokenizer(tmp_path: Path, options: dict[str, Any]) -> None:
    """Given teachers bring tokenizers of their own."""
    model = io.BytesIO()
    arguments: dict[str, Any] = {"byte_fallback": True, "vocab_size": 400, **options}
    if arguments.get("model_type") != "bpe":
        arguments["hard_vocab_limit"] = False
    spm.SentencePieceTrainer.Train(
        sentence_iterator=iter([*tiny.sentences(), *SENTENCES * 3]),
        model_writer=model,
        num_threads=1,
        minloglevel=2,
        **arguments,
    )
    path = tmp_path / "tokenizer.model"
    path.write_bytes(model.getvalue())
    check_parity(path)


def test_other_files_are_no_tokenizer(tokenizer_path: Path) -> None:
    whole = tokenizer_path.read_bytes()
    for bytes_ in (b"", b"not a model", whole[:-3], whole[:4000]):
        answer = call("tokenizer", bytes=list(bytes_))
        assert "tokenizer" in answer["error"], bytes_[:12]


def test_parts_add_up_to_the_text_and_are_short_enough(tokenizer_path: Path) -> None:
    texts = [*adversarial_texts(200), " ".join(SENTENCES), "old cat, " * 60 + "\n\n  " + "x" * 200]
    processor = spm.SentencePieceProcessor(model_file=str(tokenizer_path))
    cut = call("parts", model=str(tokenizer_path), texts=texts, maxTokens=40)
    for text, parts in zip(texts, cut, strict=True):
        assert "".join(part["text"] for part in parts) == unicodedata.normalize("NFC", text)
        for part in parts:
            assert not part["translate"] or len(processor.encode(part["text"])) <= 40
    assert len(cut[-1]) > 20


def test_where_sentences_begin_and_end(tokenizer_path: Path) -> None:
    text = "  Mr. Smith met J. Doe. They left!\r\n\r\n42 %\nWhy? "
    (parts,) = call("parts", model=str(tokenizer_path), texts=[text], maxTokens=200)
    assert [part["text"] for part in parts if part["translate"]] == [
        "Mr. Smith met J. Doe.",
        "They left!",
        "Why?",
    ]
    assert "".join(part["text"] for part in parts) == text


def test_output_limits_are_those_of_the_service(pristine_bundle: Bundle) -> None:
    engine = SentenceEngine(pristine_bundle)
    counts = list(range(1, pristine_bundle.manifest.decoding.max_input_tokens + 1))
    for decoding in (
        pristine_bundle.manifest.decoding,
        Decoding(max_output_ratio=1.3, max_output_constant=3, max_output_tokens=100),
    ):
        engine._decoding = decoding
        found = call("limits", decoding=decoding.model_dump(), counts=counts)
        assert found == [engine.output_limit(count) for count in counts]


def test_the_first_onnx_engine_is_taken() -> None:
    engines = [{"name": name, "kind": name[:-1]} for name in ("ctranslate20", "onnx1", "onnx2")]
    shortlisted = [{"name": "onnx0", "kind": "onnx", "shortlist": True}, *engines]
    found, today, none, newer = call(
        "engines",
        manifests=[
            {"format_version": 2, "name": "one", "engines": engines},
            {"format_version": FORMAT_VERSION, "name": "today", "engines": shortlisted},
            {"format_version": 2, "name": "two", "engines": engines[:1]},
            {"format_version": 99, "name": "three", "engines": engines},
        ],
    )
    assert found == today == "onnx1"
    assert "quickstudy export" in none["error"]
    assert "format 99" in newer["error"]


def test_no_path_leads_outside_the_bundle() -> None:
    bad = ["../x", "a/../../x", "/x", "//evil.example/x", "http://evil.example/x", "a\\b", "", "."]
    good, *refused = call("addresses", paths=["engines/onnx-int8/greedy.onnx", *bad])
    assert good == "http://page.example/model/engines/onnx-int8/greedy.onnx"
    assert all("not a plain path" in answer["error"] for answer in refused)


def test_both_ways_to_a_sha256() -> None:
    texts = [*("x" * length for length in (0, 1, 55, 56, 63, 64, 65, 119, 120, 1000)), "ä" * 500]
    expected = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    assert call("sha256", texts=texts) == [expected, expected]
