#!/usr/bin/env bash
# bergamot 0.4.5 (PyPI, CPython 3.10): `import bergamot` downloads the index of translateLocally's models. Where that
# site cannot be reached the import itself raises, also for a program that has its models on disk.
# Seen: `requests.exceptions.ProxyError ... url: /models.json`, raised from bergamot/repository.py, exit status 1; with
# `requests.get` replaced before the import it succeeds, and the engine's classes are there.
set -euo pipefail
python=${PYTHON310:-python3.10}
"$python" -c 'import sys; assert sys.version_info[:2] == (3, 10)' ||
  { echo "needs Python 3.10: set PYTHON310 to one" >&2; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet bergamot==0.4.5 requests==2.32.3

# Nothing listens on port 9 of this machine.
export HTTPS_PROXY=http://127.0.0.1:9 HTTP_PROXY=http://127.0.0.1:9 NO_PROXY= no_proxy=
if "$folder/venv/bin/python" -c 'import bergamot' 2>"$folder/error"; then
  echo "changed: the import succeeds without the network" >&2
  exit 1
fi
tail -n 1 "$folder/error" | cut -c 1-160
grep -q 'bergamot/repository.py' "$folder/error"
grep -q '/models.json' "$folder/error"

"$folder/venv/bin/python" - <<'PYTHON'
import requests


class Empty:
    text = '{"models": []}'

    def json(self):
        return {"models": []}


requests.get = lambda *args, **kwargs: Empty()
import bergamot

print("with requests.get replaced:", bergamot.Service.__name__, bergamot.ServiceConfig.__name__)
PYTHON
echo "as described"
