"""Bergamot's native engine on standard input and output, one JSON value a line.

    PYTHON native.py '{"model": PATH, "shortlist": PATH, "vocabulary": PATH, "workers": N}'

PYTHON is one that has the PyPI package `bergamot`, whose wheels end with Python 3.10, so nothing of
this project is imported here. Says {"ready": true, "version": …} once the model is there. An order
{"sentences": […], "batch": N} is answered by {"texts": […]}: N sentences a call.
"""

import json
import sys
from importlib.metadata import version
from types import SimpleNamespace
from unittest import mock

# The package asks two servers for lists of models as it is imported; no model of theirs is used.
with mock.patch("requests.get", return_value=SimpleNamespace(text='{"models": []}')):
    from bergamot import ResponseOptions, Service, ServiceConfig, VectorString

CONFIG = """
models: [{model}]
vocabs: [{vocabulary}, {vocabulary}]
shortlist: [{shortlist}, false]
beam-size: 1
normalize: 1.0
word-penalty: 0
max-length-break: 128
mini-batch-words: 1024
workspace: 128
max-length-factor: 2.5
gemm-precision: int8shiftAlphaAll
skip-cost: true
ssplit-mode: sentence
ssplit-prefix-file: ""
cpu-threads: 0
quiet: true
"""
"""As Firefox sets it, with what the package's own commands change; each text is one sentence."""


def say(value: object) -> None:
    print(json.dumps(value), flush=True)


def main() -> None:
    about = json.loads(sys.argv[1])
    service = Service(ServiceConfig(numWorkers=about.pop("workers"), cacheSize=0))
    model = service.modelFromConfig(CONFIG.format(**about))
    options = ResponseOptions(qualityScores=False, sentenceMappings=False)
    say({"ready": True, "version": version("bergamot")})
    for line in sys.stdin:
        order = json.loads(line)
        sentences, size = order["sentences"], order["batch"]
        texts = []
        for start in range(0, len(sentences), size):
            call = VectorString(sentences[start : start + size])
            texts += [answer.target.text for answer in service.translate(model, call, options)]
        say({"texts": texts})


main()
