"""Texts, HTML and Markdown → sentences a model can translate, and back, losing nothing."""

from __future__ import annotations

from service.text.sentences import Part, join_parts, split_text

__all__ = ["Part", "join_parts", "split_text"]
