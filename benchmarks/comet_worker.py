"""COMET in a process of its own, with nothing but the standard library and `unbabel-comet`.

Run with the path of a checkpoint, maybe by another Python than ours. It first tells the package's
version in a line of JSON. Standard input is JSON lines of `src`, `mt` and `ref`, lists of as many
sentences; each is answered by a line of `scores`. Whatever a library prints goes to standard error.
"""

import json
import os
import sys

BATCH = 16


def main() -> None:
    sys.path.pop(0)  # this folder, whose files have names of modules elsewhere
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(prediction: dict) -> None:
        answers.write(json.dumps(prediction) + "\n")
        answers.flush()

    try:
        from importlib.metadata import version

        import comet

        answer({"version": version("unbabel-comet")})
    except ImportError as error:
        answer({"missing": str(error)})
        return
    model = comet.load_from_checkpoint(sys.argv[1], local_files_only=True)
    for line in sys.stdin:
        texts = json.loads(line)
        data = [
            {"src": src, "mt": mt, "ref": ref}
            for src, mt, ref in zip(texts["src"], texts["mt"], texts["ref"], strict=True)
        ]
        prediction = model.predict(data, batch_size=BATCH, gpus=0, progress_bar=False)
        answer({"scores": [float(score) for score in prediction.scores]})


if __name__ == "__main__":
    main()
