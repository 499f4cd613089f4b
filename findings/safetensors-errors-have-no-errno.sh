#!/usr/bin/env bash
# safetensors 0.8.0: when the system refuses a write, `save_file` raises SafetensorError, which is no
# OSError and has no `errno`. Code that catches OSError, or looks at `errno` to tell a full disk from
# a bug, does not see it; the number is only in the text of the message.
#
# Seen with safetensors 0.8.0 and numpy 2.2.6: a file limit of 8 kB (`ulimit -f`) and 400 kB of
# weights give
#     SafetensorError, OSError: False, errno: None, "(os error 27)" in the message: True
# while Python's own `open().write()` under the same limit gives OSError with errno 27 (EFBIG).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check safetensors==0.8.0 numpy==2.2.6
cat > "$folder/try.py" <<'PYTHON'
import errno
import sys

import numpy as np
from safetensors.numpy import save_file

weights = {"weight": np.zeros(100_000, dtype=np.float32)}
try:
    save_file(weights, f"{sys.argv[1]}/weights.safetensors")
    sys.exit("the write succeeded: nothing to see")
except Exception as error:
    name, is_os_error = type(error).__name__, isinstance(error, OSError)
    number, told = getattr(error, "errno", None), f"(os error {errno.EFBIG})" in str(error)
print(f"{name}, OSError: {is_os_error}, errno: {number}, in the message: {told}")
try:
    with open(f"{sys.argv[1]}/plain", "wb") as file:
        file.write(bytes(400_000))
    sys.exit("the plain write succeeded: the limit does not hold")
except OSError as error:
    plain = error.errno
print(f"plain write: OSError, errno: {plain}")
if (name, is_os_error, number, told, plain) != ("SafetensorError", False, None, True, errno.EFBIG):
    sys.exit("the behaviour has changed")
PYTHON
(ulimit -f 8; "$folder/venv/bin/python" -B "$folder/try.py" "$folder")
