"""Stored glossaries in the requests of every API: `glossary_id`.

They are made in DeepL's shapes (`service/api/deepl_glossaries.py`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Annotated

from fastapi import Depends, Request
from pydantic import Field

from service.deps import as_api_errors, get_access, get_translator
from service.errors import ApiError
from service.glossaries import GlossaryStore, StoredGlossary
from service.languages import AUTO, base_code
from service.pivot import TranslationRequest
from service.text.glossary import Glossary, GlossaryError

MAX_ID_CHARS = 100
GlossaryId = Annotated[str, Field(max_length=MAX_ID_CHARS)]
GLOSSARY_ID = "A stored glossary; `source` must name a language."


def get_glossaries(request: Request) -> GlossaryStore:
    """The app's stored glossaries."""
    store: GlossaryStore = request.app.state.glossaries
    return store


async def _glossaries(request: Request) -> GlossaryStore:
    return get_glossaries(request)


GlossariesDep = Annotated[GlossaryStore, Depends(_glossaries)]


async def with_stored(
    request: Request,
    wanted: TranslationRequest,
    ids: Sequence[str | None],
    key: str | None = None,
) -> TranslationRequest:
    """A translation that follows stored glossaries, too; empty ids are none.

    Of a term that several have, the request's own counts, then that of the first id. `key` is an
    API key that was not in the headers. Raises ApiError: 401 or 403 for the key, 404 for a glossary
    that is not there, 422 for one that has no terms of the pair, or for too many terms.
    """
    if not any(ids):
        return wanted
    found = _dictionaries(request, wanted.source, wanted.target, ids, key)
    if wanted.glossary.terms:
        found.insert(0, json.dumps(dict(wanted.glossary.terms), ensure_ascii=False))
    return replace(wanted, glossary=await _compiled(found))


async def with_stored_terms(
    request: Request,
    terms: Mapping[str, str],
    ids: Sequence[str | None],
    source: str | None,
    target: str | None,
    key: str | None = None,
) -> dict[str, str]:
    """The terms of a file's request, and those of stored glossaries. Raises as `with_stored`."""
    if not any(ids):
        return dict(terms)
    wanted = TranslationRequest([], source, target, glossary=Glossary(terms))
    return dict((await with_stored(request, wanted, ids, key)).glossary.terms)


def find_glossary(request: Request, id: str, key: str | None = None) -> StoredGlossary:
    """The glossary with an id. Raises ApiError: 401 or 403 for the key, 404 if there is none."""
    access = get_access(request)
    owner = access.owner(request, access.key(request, key))
    glossary = get_glossaries(request).find(id, owner) if len(id) <= MAX_ID_CHARS else None
    if glossary is None:
        message = f"there is no glossary {id[:50]!r} here, or it is another key's"
        raise ApiError(404, "not_found", message, "glossary_id")
    return glossary


def _dictionaries(
    request: Request,
    source: str | None,
    target: str | None,
    ids: Sequence[str | None],
    key: str | None,
) -> list[str]:
    """The terms of each glossary for a pair of languages, as JSON; at least one has some."""
    store = get_glossaries(request)
    glossaries = [find_glossary(request, id, key) for id in ids if id]
    if source == AUTO:
        message = "`source` must name a language where a glossary is used: it is for a pair of them"
        raise ApiError(422, "invalid_request", message, "source")
    translator = get_translator(request)
    with as_api_errors(translator.settings):
        pair = translator.models.pair(source, target)
    codes = base_code(pair[0]), base_code(pair[1])
    found = [store.terms(glossary.id, *codes) for glossary in glossaries]
    terms = [text for text in found if text is not None]
    if not terms:
        pairs = [f"{one.source} → {one.target}" for each in glossaries for one in each.dictionaries]
        message = (
            f"the glossary has no terms for {codes[0]} → {codes[1]}, but for "
            f"{', '.join(pairs[:20]) or 'nothing'}: leave it out, or add them"
        )
        raise ApiError(422, "invalid_request", message, "glossary_id")
    return terms


async def _compiled(terms: Sequence[str]) -> Glossary:
    """The glossary of these JSON objects. Making one takes up to 0.2 s, so a thread does it."""
    try:
        return await asyncio.to_thread(_glossary_of, tuple(terms))
    except GlossaryError as error:
        raise ApiError(422, "invalid_request", f"the glossary: {error}", "glossary_id") from error


@lru_cache(16)
def _glossary_of(terms: tuple[str, ...]) -> Glossary:
    merged: dict[str, str] = {}
    for text in terms:
        for source, target in json.loads(text).items():
            merged.setdefault(source, target)
    return Glossary(merged)
