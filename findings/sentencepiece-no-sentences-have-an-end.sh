#!/usr/bin/env bash
# SentencePiece 0.2.3 (Python): `encode` of a list of sentences returns a list of ids for each of them,
# but of an empty list, with `add_eos` or `add_bos`, it returns one flat list that holds the special id
# itself: the shape of a single sentence. Code that loops over the sentences of a batch then meets a
# number where it expects a list, and only for batches that happen to be empty.
#
# Seen with sentencepiece 0.2.3: one sentence -> [[..., 2]], no sentences -> [2]; without `add_eos` no
# sentences -> [].
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check sentencepiece==0.2.3
cat > "$folder/try.py" <<'PYTHON'
import io
import sys

import sentencepiece as spm

model = io.BytesIO()
lines = ["a small house by the sea", "the sea is near the house", "a house is small"] * 20
spm.SentencePieceTrainer.Train(
    sentence_iterator=iter(lines), model_writer=model, vocab_size=20, minloglevel=2
)
processor = spm.SentencePieceProcessor(model_proto=model.getvalue())
end = processor.eos_id()
one = processor.encode(["a house"], out_type=int, add_eos=True)
none = processor.encode([], out_type=int, add_eos=True)
both = processor.encode([], out_type=int, add_bos=True, add_eos=True)
plain = processor.encode([], out_type=int)
print("one sentence:", one, "- none:", none, both, "- none without special ids:", plain)
expected = [end], [processor.bos_id(), end], []
if not isinstance(one[0], list) or (none, both, plain) != expected:
    sys.exit("the behaviour has changed")
PYTHON
"$folder/venv/bin/python" -B "$folder/try.py"
