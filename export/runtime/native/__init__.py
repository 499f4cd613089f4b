"""The compiled int8 engine: `src/` holds its C, `library` loads it, `weights` writes its bytes."""
