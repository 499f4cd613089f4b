"""Builds the compiled engine where there is a C compiler; everything else is in pyproject.toml."""

from pathlib import Path

from setuptools import Extension, setup

SOURCES = Path("export/runtime/native/src")

setup(
    ext_modules=[
        Extension(
            "export.runtime.native._engine",
            sorted(path.as_posix() for path in SOURCES.glob("*.c")),
            depends=sorted(path.as_posix() for path in SOURCES.glob("*.h")),
            # Without contraction, sums are the same on every kernel (src/kernel.h).
            extra_compile_args=["-std=c11", "-O3", "-ffp-contract=off", "-fvisibility=hidden"],
            libraries=["m"],
            optional=True,
        )
    ]
)
