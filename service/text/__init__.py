"""Cuts plain text, HTML and Markdown into sentences for a model, and restores markup afterwards.

This package needs neither a server nor a model. Its public names are below.
"""

from __future__ import annotations

from service.text.document import Document, Format, open_document
from service.text.glossary import NO_GLOSSARY, Glossary, GlossaryError
from service.text.placeholders import EN_DE, PlaceholderWords, choose_placeholder_words
from service.text.segment import Repair, RestoredText, Segment
from service.text.sentences import SentencePart, join_parts, split_text

__all__ = [
    "EN_DE",
    "NO_GLOSSARY",
    "Document",
    "Format",
    "Glossary",
    "GlossaryError",
    "PlaceholderWords",
    "Repair",
    "RestoredText",
    "Segment",
    "SentencePart",
    "choose_placeholder_words",
    "join_parts",
    "open_document",
    "split_text",
]
