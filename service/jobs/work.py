"""One job: its file read, what is not translated yet translated, the result put together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from service.batcher import ClosedError, QueueFullError
from service.fair_queue import Priority
from service.hop import SearchError
from service.jobs.folder import JobsFolder
from service.jobs.messages import in_parts
from service.jobs.readers import Readers, WorkItem
from service.jobs.store import Job, JobStore, UnitDone
from service.models import LanguageError
from service.order import TranslatedText, TranslationRequest
from service.text import Glossary
from service.translator import Translator

logger = logging.getLogger("quickstudy.service")

GROUP_CHARS = 4000
GROUP_UNITS = 32
GROUPS_IN_FLIGHT = 2
"""What is asked of the translator at a time for a job; more may be asked twice after a crash."""
FILE_S = 120.0
"""Seconds to read a file, and to put it together."""
TRIES = 3
PAUSE_S = 1.0


@dataclass(frozen=True)
class JobContext:
    """What a job's work needs."""

    folder: JobsFolder
    store: JobStore
    readers: Readers
    translator: Translator


async def run_job(job: Job, tools: JobContext, is_stopping: Callable[[], bool]) -> int | None:
    """Translate what a job lacks and write its result; its size in bytes, None if it was stopped.

    Raises FileError and FileLimitError for a file that cannot be translated after all,
    LanguageError and SearchError if what is served no longer does it, ClosedError when the service
    stops, and whatever the engine raises again and again for a group of units.
    """
    folder, readers, store = tools.folder, tools.readers, tools.store
    data = await asyncio.to_thread(folder.source(job.id).read_bytes)
    if job.source == job.target:
        await asyncio.to_thread(folder.write_result, job.id, data)
        return len(data)
    pieces = await readers.units(data, job.kind, job.source, job.target, FILE_S)
    known = {digest async for page in _pages(store, job.id) for digest, _ in page}
    groups = _groups(piece for piece in pieces if piece.digest not in known)
    glossary = Glossary(job.terms)

    async def translate_groups() -> None:
        for group in groups:
            if is_stopping():
                return
            found = await _patiently(_order(job, group, glossary), tools.translator)
            store.keep(job.id, [_done(*pair) for pair in zip(group, found, strict=True)])

    await _all_or_none([translate_groups() for _ in range(GROUPS_IN_FLIGHT)])
    if is_stopping():
        return None

    async def translations() -> AsyncIterator[list[tuple[str, str]]]:
        async for page in _pages(store, job.id):
            for part in in_parts(page, lambda row: len(row[1])):
                yield [(digest.hex(), text) for digest, text in part]

    result = await readers.rebuild(data, job.kind, job.source, job.target, translations, FILE_S)
    await asyncio.to_thread(folder.write_result, job.id, result)
    return len(result)


async def _pages(store: JobStore, id: str) -> AsyncIterator[list[tuple[bytes, str]]]:
    """A job's translations, some at a time, so that others are answered in between."""
    for page in store.pages(id):
        yield page
        await asyncio.sleep(0)


def _groups(pieces: Iterator[WorkItem]) -> Iterator[list[WorkItem]]:
    """Units of one format that go to the translator together."""
    group: list[WorkItem] = []
    chars = 0
    for piece in pieces:
        chars += len(piece.unit.text)
        is_full = len(group) == GROUP_UNITS or chars > GROUP_CHARS
        if group and (is_full or piece.unit.format != group[0].unit.format):
            yield group
            group, chars = [], len(piece.unit.text)
        group.append(piece)
    if group:
        yield group


def _order(job: Job, group: Sequence[WorkItem], glossary: Glossary) -> TranslationRequest:
    return TranslationRequest(
        texts=[piece.unit.text for piece in group],
        source=job.source,
        target=job.target,
        format=group[0].unit.format,
        beam_size=job.beam_size,
        glossary=glossary,
        priority=Priority.BULK,
    )


def _done(piece: WorkItem, found: TranslatedText) -> UnitDone:
    return UnitDone(
        digest=piece.digest,
        text=found.text,
        characters=piece.times * len(piece.unit.text),
        units=piece.times,
        warnings=[notice.code for notice in found.warnings],
    )


async def _patiently(order: TranslationRequest, translator: Translator) -> Sequence[TranslatedText]:
    """Translate, as soon as the queue has room; after a failure of the engine try again, twice."""
    failures = 0
    while True:
        try:
            return (await translator.translate(order)).texts
        except QueueFullError:
            await asyncio.sleep(translator.settings.retry_after_s)
        except (LanguageError, SearchError, ClosedError):
            raise
        except Exception:
            failures += 1
            if failures == TRIES:
                raise
            logger.warning("units of a file failed, trying again")
            await asyncio.sleep(PAUSE_S)


async def _all_or_none(works: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Do all at the same time; the first that fails cancels the others."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
