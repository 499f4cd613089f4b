"""Jobs on disk: what is recorded, found again, and really deleted."""

from __future__ import annotations

import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service.jobs import storage as folders
from service.jobs.storage import Job, JobsFolder, JobsFolderError, JobStore, UnitDone

JOB = Job("a.txt", "txt", "en", "de", characters=100, units=4, bytes=100)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    store = JobStore(tmp_path / "jobs.db")
    yield store
    store.close()


def added(store: JobStore, **values: object) -> Job:
    return store.add(Job(**{**JOB.__dict__, "id": store.new_id(), **values}))


def test_what_is_recorded_counts_once(store: JobStore) -> None:
    job = added(store)
    twice = UnitDone(b"1", "eins", characters=40, units=2, warnings=[("echo", "It is.")])
    store.keep(job.id, [twice])
    store.keep(
        job.id, [twice, UnitDone(b"2", "zwei", characters=30, warnings=[("echo", "It is.")])]
    )
    found = store.find(job.id)
    assert found is not None
    assert (found.units_done, found.characters_done, found.progress) == (3, 70, 0.7)
    assert found.warning_counts == {"echo": 2}
    assert store.translations(job.id) == {b"1": "eins", b"2": "zwei"}


def test_a_database_of_an_older_version_gets_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    old = JobStore(path)
    job = added(old)
    old.close()
    with closing(sqlite3.connect(path)) as database:
        database.execute("ALTER TABLE jobs DROP COLUMN formality")
        database.execute("ALTER TABLE translations DROP COLUMN warnings")
    for _ in range(2):
        store = JobStore(path)
        found = store.find(job.id)
        assert found is not None
        assert (found.name, found.formality) == (job.name, None)
        polite = store.find(added(store, formality="informal").id)
        assert polite is not None
        assert polite.formality == "informal"
        store.close()


def test_what_ran_is_queued_again_and_a_unit_more_forgives_breaks(tmp_path: Path) -> None:
    first = JobStore(tmp_path / "jobs.db")
    job = added(first)
    first.begin(job.id)
    first.keep(added(first, id="deleted").id, [UnitDone(b"1", "eins", characters=40)])
    first.remove("deleted")
    second = JobStore(tmp_path / "jobs.db")  # as after a kill: the first was never closed
    second.requeue()
    second.begin(job.id)
    assert second.translations("deleted") == {}
    found = second.find(job.id)
    assert found is not None
    assert (found.status, found.starts) == ("running", 2)
    second.keep(job.id, [UnitDone(b"1", "eins", characters=40)])
    assert [one.starts for one in second.with_status("running")] == [0]


def test_the_end_drops_the_single_translations(store: JobStore) -> None:
    done, failed = added(store), added(store)
    store.keep(done.id, [UnitDone(b"1", "eins", characters=40)])
    store.keep(failed.id, [UnitDone(b"1", "eins", characters=40)])
    store.finish(done.id, 7)
    store.fail(failed.id, "bad_file", "reason")
    store.scrub([done.id, failed.id])
    assert store.translations(done.id) == store.translations(failed.id) == {}
    found = store.find(done.id)
    assert found is not None
    assert found.ended is not None
    assert (found.status, found.bytes, found.progress) == ("done", 7, 1.0)
    assert {job.id for job in store.ended_before(found.ended + 9)} == {done.id, failed.id}
    assert store.ended_before(found.ended - 9) == []


def test_what_is_deleted_is_nowhere_on_the_disk(tmp_path: Path, store: JobStore) -> None:
    secret = "a secret that nobody else may read"
    job = added(store, glossary='{"x": "confidential"}')
    for index in range(250):
        unit = UnitDone(bytes([index]), f"{secret} {index} {'.' * 500}", characters=1)
        store.keep(job.id, [unit])

    def written() -> bytes:
        return b"".join(file.read_bytes() for file in tmp_path.iterdir())

    assert secret.encode() in written()
    store.remove(job.id)
    store.scrub([job.id])
    assert store.translations(job.id) == {}
    assert secret.encode() not in written()
    assert b"confidential" not in written()


def test_ids_cannot_be_guessed(store: JobStore) -> None:
    ids = {store.new_id() for _ in range(100)}
    assert len(ids) == 100
    assert min(map(len, ids)) >= 32


def test_only_the_owner_reads_the_folder_and_one_service_uses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "LOCK_WAIT_S", 0.0)
    first = JobsFolder(tmp_path / "jobs")
    store = JobStore(first.database)
    store.add(Job(**{**JOB.__dict__, "id": "a"}))
    first.write_source("a", b"text")
    first.write_result("a", b"other")
    assert (first.source("a").exists(), first.result("a").read_bytes()) == (False, b"other")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in first.path.rglob("*") if path.is_file()}
    assert modes == {0o600}
    folders_in = [first.path, *(path for path in first.path.rglob("*") if path.is_dir())]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders_in} == {0o700}
    with pytest.raises(JobsFolderError, match="another service"):
        JobsFolder(tmp_path / "jobs")
    first.remove_others([])
    assert not first.result("a").exists()
    store.close()
    first.close()
    JobsFolder(tmp_path / "jobs").close()
    assert (tmp_path / "jobs").exists()


def test_a_private_folder_goes_with_its_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    killed, running = JobsFolder(), JobsFolder()
    killed._lock.close()  # what the system does when a process is killed
    (tmp_path / "other").mkdir()
    next_one = JobsFolder()
    assert not killed.path.exists()
    assert running.path.exists()
    next_one.close()
    running.close()
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_a_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JobsFolderError, match="QUICKSTUDY_JOBS_DIR"):
        JobsFolder(tmp_path / "file" / "jobs")
