"""DeepL's stored glossaries: version 2 with one pair of languages, version 3 with several.

Both are one store (`service/glossaries.py`); version 2 shows what has exactly one dictionary.
"""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import AfterValidator, BaseModel, Field

from service.api.deepl import ERRORS, Code
from service.api.forms import described, described_query, read_body
from service.api.glossaries import GlossariesDep, find_glossary
from service.deps import AccessDep, TranslatorDep, as_api_errors, check_text
from service.errors import ApiError
from service.glossaries import GlossaryRoomError, NewDictionary, StoredDictionary, StoredGlossary
from service.languages import base_code
from service.text.glossary import MAX_TERM_CHARS, MAX_TERMS
from service.translator import Translator

router = APIRouter(tags=["DeepL"])

PATHS = (
    "/v2/glossary-language-pairs",
    "/v2/glossaries",
    "/v2/glossaries/{id}",
    "/v2/glossaries/{id}/entries",
    "/v3/glossaries",
    "/v3/glossaries/{id}",
    "/v3/glossaries/{id}/entries",
    "/v3/glossaries/{id}/dictionaries",
)
TSV = "text/tab-separated-values"
FORBIDDEN = frozenset(map(chr, (*range(32), *range(127, 160), 0x2028, 0x2029)))
"""Characters that a term must not have: controls and line breaks."""
RETRY_S = 60
LINE_END = re.compile("\r\n|\n|\r")
MAX_CHANGED = 10
"""Dictionaries that a request may change at once."""

EntriesFormat = Literal["tsv", "csv"]


def _check_name(name: str) -> str:
    if not name.strip():
        raise ValueError("the name is empty: give the glossary one")
    return check_text(name)


Name = Annotated[str, AfterValidator(_check_name), Field(max_length=1024)]
Entries = Annotated[str, AfterValidator(check_text)]


class DictionaryRequest(BaseModel):
    """The terms of a pair of languages; other fields are not read."""

    source_lang: Code = Field(examples=["EN"])
    target_lang: Code = Field(examples=["DE"])
    entries: Entries = Field(
        description="A line for each term: the term, a tab (or comma), and its translation.",
        examples=["cat\tKatze"],
    )
    entries_format: EntriesFormat = "tsv"


class GlossaryRequest(DictionaryRequest):
    """A glossary of one pair of languages."""

    name: Name


class MultilingualRequest(BaseModel):
    """A glossary with a dictionary for each pair of languages."""

    name: Name
    dictionaries: list[DictionaryRequest] = Field(min_length=1, max_length=100)


class ChangeRequest(BaseModel):
    """What to change: the name, terms to add, or both."""

    name: Name | None = None
    dictionaries: list[DictionaryRequest] = Field(default=[], max_length=MAX_CHANGED)


class PairRequest(BaseModel):
    """Which dictionary of a glossary."""

    source_lang: Code = Field(examples=["EN"])
    target_lang: Code = Field(examples=["DE"])


@router.get("/v2/glossary-language-pairs", responses=ERRORS)
async def language_pairs(
    request: Request, access: AccessDep, translator: TranslatorDep
) -> dict[str, Any]:
    """The pairs of languages that glossaries may be for: those that are translated."""
    access.key(request)
    pairs = {
        (base_code(source), base_code(target))
        for source, targets in translator.models.targets.items()
        for target in targets
    }
    named = [{"source_lang": source, "target_lang": target} for source, target in sorted(pairs)]
    return {"supported_languages": named}


@router.post(
    "/v2/glossaries",
    status_code=201,
    responses=ERRORS,
    openapi_extra=described(GlossaryRequest),
)
async def create(
    request: Request, access: AccessDep, translator: TranslatorDep, store: GlossariesDep
) -> dict[str, Any]:
    """Store a glossary of one pair of languages."""
    body = await read_body(request, GlossaryRequest)
    return _single(await _create(request, access, translator, store, body.name, [body]))


@router.get("/v2/glossaries", responses=ERRORS)
async def list_single(request: Request, access: AccessDep, store: GlossariesDep) -> dict[str, Any]:
    """The key's glossaries that have one pair of languages."""
    key = await access.authenticate(request)
    stored = store.all_of(access.owner(request, key))
    return {"glossaries": [_single(one) for one in stored if len(one.dictionaries) == 1]}


@router.get("/v2/glossaries/{id}", responses=ERRORS)
async def get_single(request: Request, id: str, access: AccessDep) -> dict[str, Any]:
    """A glossary of one pair of languages, without its terms."""
    await access.authenticate(request)
    return _single(_find_single(request, id))


@router.get(
    "/v2/glossaries/{id}/entries",
    response_class=Response,
    responses={200: {"content": {TSV: {"example": "cat\tKatze"}}}, **ERRORS},
)
async def entries(request: Request, id: str, access: AccessDep, store: GlossariesDep) -> Response:
    """The terms of a glossary of one pair of languages: lines with a tab."""
    await access.authenticate(request)
    glossary = _find_single(request, id)
    (one,) = glossary.dictionaries
    return Response(_tsv(store.terms(glossary.id, one.source, one.target)), media_type=TSV)


@router.post(
    "/v3/glossaries",
    status_code=201,
    responses=ERRORS,
    openapi_extra=described(MultilingualRequest),
)
async def create_multilingual(
    request: Request, access: AccessDep, translator: TranslatorDep, store: GlossariesDep
) -> dict[str, Any]:
    """Store a glossary with a dictionary for each pair of languages."""
    body = await read_body(request, MultilingualRequest)
    created = await _create(request, access, translator, store, body.name, body.dictionaries)
    return _multilingual(created)


@router.get("/v3/glossaries", responses=ERRORS)
async def list_multilingual(
    request: Request, access: AccessDep, store: GlossariesDep
) -> dict[str, Any]:
    """The key's glossaries."""
    key = await access.authenticate(request)
    return {"glossaries": list(map(_multilingual, store.all_of(access.owner(request, key))))}


@router.get("/v3/glossaries/{id}", responses=ERRORS)
async def get_multilingual(request: Request, id: str, access: AccessDep) -> dict[str, Any]:
    """A glossary without its terms."""
    await access.authenticate(request)
    return _multilingual(find_glossary(request, id))


@router.patch("/v3/glossaries/{id}", responses=ERRORS, openapi_extra=described(ChangeRequest))
async def change(
    request: Request, id: str, access: AccessDep, translator: TranslatorDep, store: GlossariesDep
) -> dict[str, Any]:
    """Rename a glossary, or add terms to its dictionaries; a term that is there is replaced."""
    await access.authenticate(request)
    glossary = find_glossary(request, id)
    body = await read_body(request, ChangeRequest)
    added = _read_dictionaries(translator, body.dictionaries)
    merged = []
    for new in added:
        stored = store.terms(glossary.id, new.source, new.target)
        terms = {**(json.loads(stored) if stored else {}), **new.terms}
        merged.append(NewDictionary(new.source, new.target, _checked(terms.items())))
    with _room_errors():
        store.put(glossary, merged)
        if body.name is not None:
            store.rename(glossary, body.name)
    return _multilingual(find_glossary(request, id))


@router.put(
    "/v3/glossaries/{id}/dictionaries",
    responses=ERRORS,
    openapi_extra=described(DictionaryRequest),
)
async def replace_dictionary(
    request: Request, id: str, access: AccessDep, translator: TranslatorDep, store: GlossariesDep
) -> dict[str, Any]:
    """Store a dictionary in place of the one of the same pair, if there is one."""
    await access.authenticate(request)
    glossary = find_glossary(request, id)
    body = await read_body(request, DictionaryRequest)
    (new,) = _read_dictionaries(translator, [body])
    with _room_errors():
        store.put(glossary, [new])
    return _dictionary(StoredDictionary(new.source, new.target, len(new.terms)))


@router.get(
    "/v3/glossaries/{id}/entries", responses=ERRORS, openapi_extra=described_query(PairRequest)
)
async def multilingual_entries(
    request: Request, id: str, access: AccessDep, store: GlossariesDep
) -> dict[str, Any]:
    """The terms of a dictionary."""
    await access.authenticate(request)
    glossary = find_glossary(request, id)
    source, target = await _pair(request)
    terms = store.terms(glossary.id, source, target)
    if terms is None:
        raise _no_dictionary(source, target)
    languages = {"source_lang": source, "target_lang": target}
    return {"dictionaries": [{**languages, "entries": _tsv(terms), "entries_format": "tsv"}]}


@router.delete(
    "/v3/glossaries/{id}/dictionaries",
    status_code=204,
    response_class=Response,
    responses=ERRORS,
    openapi_extra=described_query(PairRequest),
)
async def delete_dictionary(
    request: Request, id: str, access: AccessDep, store: GlossariesDep
) -> Response:
    """Delete a dictionary of a glossary."""
    await access.authenticate(request)
    glossary = find_glossary(request, id)
    source, target = await _pair(request)
    if not store.remove_dictionary(glossary.id, source, target):
        raise _no_dictionary(source, target)
    return Response(status_code=204)


@router.delete("/v2/glossaries/{id}", status_code=204, response_class=Response, responses=ERRORS)
@router.delete("/v3/glossaries/{id}", status_code=204, response_class=Response, responses=ERRORS)
async def delete(request: Request, id: str, access: AccessDep, store: GlossariesDep) -> Response:
    """Delete a glossary."""
    await access.authenticate(request)
    store.remove(find_glossary(request, id).id)
    return Response(status_code=204)


async def _create(
    request: Request,
    access: AccessDep,
    translator: Translator,
    store: GlossariesDep,
    name: str,
    dictionaries: Sequence[DictionaryRequest],
) -> StoredGlossary:
    key = await access.authenticate(request)
    if not translator.settings.max_glossaries:
        raise ApiError(403, "turned_off", "Stored glossaries are disabled on this server.")
    new = _read_dictionaries(translator, dictionaries)
    with _room_errors():
        return store.create(access.owner(request, key), access.client(request, key), name, new)


def _find_single(request: Request, id: str) -> StoredGlossary:
    glossary = find_glossary(request, id)
    if len(glossary.dictionaries) != 1:
        count = len(glossary.dictionaries)
        message = f"this glossary has {count} dictionaries: ask /v3/glossaries for it"
        raise ApiError(404, "not_found", message)
    return glossary


async def _pair(request: Request) -> tuple[str, str]:
    body = await read_body(request, PairRequest)
    return base_code(body.source_lang), base_code(body.target_lang)


def _no_dictionary(source: str, target: str) -> ApiError:
    message = f"the glossary has no dictionary for {source[:35]} → {target[:35]}"
    return ApiError(404, "not_found", message)


@contextmanager
def _room_errors() -> Iterator[None]:
    try:
        yield
    except GlossaryRoomError as error:
        if error.of_client:
            raise ApiError(429, "quota", str(error)) from error
        raise ApiError.later(503, "overloaded", str(error), RETRY_S) from error


def _read_dictionaries(
    translator: Translator, requests: Sequence[DictionaryRequest]
) -> list[NewDictionary]:
    """Checked dictionaries, under languages without their regions. Raises ApiError 400."""
    read: dict[tuple[str, str], NewDictionary] = {}
    for one in requests:
        with as_api_errors(translator.settings):
            source, target = map(
                base_code, translator.models.pair(one.source_lang, one.target_lang)
            )
        if (source, target) in read:
            raise _invalid(f"{source} → {target} is there twice: put its terms together")
        terms = _checked(_columns(one.entries, one.entries_format))
        read[source, target] = NewDictionary(source, target, terms)
    return list(read.values())


def _columns(entries: str, format: EntriesFormat) -> Iterator[tuple[str, str]]:
    """The terms of lines with a tab or a comma, each with its translation."""
    entries = entries.removeprefix("\ufeff")
    for number, columns in enumerate(_rows(entries, format), 1):
        if not any(map(str.strip, columns)):
            continue
        # CSV may name the languages of each line in two more columns.
        if len(columns) != 2 and (format == "tsv" or len(columns) != 4):
            sign = "a tab" if format == "tsv" else "a comma"
            raise _invalid(
                f"line {number} has {len(columns)} columns: give a term, {sign}, its translation"
            )
        yield columns[0], columns[1]


def _rows(entries: str, format: EntriesFormat) -> Iterator[list[str]]:
    if format == "tsv":
        for line in LINE_END.split(entries):
            yield line.split("\t")
        return
    try:
        yield from csv.reader(io.StringIO(entries, newline=""), strict=True)
    except csv.Error as error:
        raise _invalid(f"this is not CSV ({error}): quote commas and quotation marks") from error


def _checked(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Terms as a glossary takes them: each once, within its limits."""
    terms: dict[str, str] = {}
    for pair in pairs:
        source, target = map(_term, pair)
        if terms.setdefault(source, target) != target:
            raise _invalid(f"the term {source!r} has two translations: leave one out")
        if len(terms) > MAX_TERMS:
            raise _invalid(f"more than {MAX_TERMS} terms: leave some out")
    if not terms:
        raise _invalid("there are no terms: give one at least")
    return terms


def _term(text: str) -> str:
    if not FORBIDDEN.isdisjoint(text.strip()):
        raise _invalid(f"the term {text[:40]!r} has a control character or a line break: remove it")
    words = " ".join(unicodedata.normalize("NFC", text).split())
    if not words:
        raise _invalid("a term or its translation is empty: leave the line out")
    if len(words) > MAX_TERM_CHARS:
        raise _invalid(f"a term is longer than {MAX_TERM_CHARS} characters: {words[:40]}…")
    return words


def _invalid(message: str) -> ApiError:
    return ApiError(400, "invalid_request", f"`entries`: {message}", "entries")


def _tsv(terms: str | None) -> str:
    """Terms that are stored as JSON, a line for each."""
    return "\n".join(f"{source}\t{target}" for source, target in json.loads(terms or "{}").items())


def _time(glossary: StoredGlossary) -> str:
    return datetime.fromtimestamp(glossary.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _dictionary(one: StoredDictionary) -> dict[str, Any]:
    return {"source_lang": one.source, "target_lang": one.target, "entry_count": one.count}


def _single(glossary: StoredGlossary) -> dict[str, Any]:
    """A glossary of one pair as version 2 shows it."""
    (one,) = glossary.dictionaries
    return {
        "glossary_id": glossary.id,
        "name": glossary.name,
        "ready": True,
        "creation_time": _time(glossary),
        **_dictionary(one),
    }


def _multilingual(glossary: StoredGlossary) -> dict[str, Any]:
    """A glossary as version 3 shows it."""
    return {
        "glossary_id": glossary.id,
        "name": glossary.name,
        "dictionaries": list(map(_dictionary, glossary.dictionaries)),
        "creation_time": _time(glossary),
    }
