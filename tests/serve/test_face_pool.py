"""Processes that find faces: what they find, that they may die, and that they work once."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from PIL import Image

from facellava.errors import BadMedia, BadModelInput
from facellava.faces import Face, find_faces
from facellava.faces.face_png import to_png
from serve import face_worker
from serve.face_pool import FacePool
from serve.face_worker import Seen
from serve.settings import Settings
from tests.serve.bad_tasks import die, run_wild, sleep_long
from tests.serve.gateway_rig import Loop


def png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def run() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture(scope="module")
def pool(run: Loop) -> Iterator[FacePool]:
    pool = FacePool(Settings(face_workers=1, photo_seconds=20))
    run(pool.start())
    yield pool
    run(pool.stop())


def workers() -> list[psutil.Process]:
    """The face-finding processes of this process: those that the fork server has made.

    One that has just ended may still be in the table, until somebody asks how it ended.
    """
    living = [child for child in psutil.Process().children() if not _has_ended(child)]
    return [
        child
        for server in living
        if "forkserver" in " ".join(server.cmdline())
        for child in server.children()
        if not _has_ended(child)
    ]


def _has_ended(process: psutil.Process) -> bool:
    return process.status() == psutil.STATUS_ZOMBIE


def test_faces_are_those_of_the_library(
    pool: FacePool, run: Loop, couple: NDArray[np.uint8]
) -> None:
    seen = run(pool.photo(png(couple)))
    expected = find_faces(couple)
    assert seen.size == (594, 300)
    assert [sighting.index for sighting in seen.sightings] == [0, 1]
    for sighting, face in zip(seen.sightings, expected, strict=True):
        found = sighting.item
        assert isinstance(found, Face)
        np.testing.assert_array_equal(found.crop, face.crop)
        np.testing.assert_array_equal(found.landmarks, face.landmarks)
        assert (found.box, found.score, found.source) == (face.box, face.score, face.source)


def test_no_face_is_a_finding_too(pool: FacePool, run: Loop, landscape: NDArray[np.uint8]) -> None:
    seen = run(pool.photo(png(landscape)))
    assert seen.sightings == ()
    assert "No face" in seen.nothing


def test_the_same_photo_is_searched_once(pool: FacePool, run: Loop) -> None:
    photo = png(np.full((64, 64, 3), 77, np.uint8))
    begun = []

    async def both() -> list[Seen]:
        scheduled = pool._scheduled

        async def counted(*arguments: object) -> Seen:
            begun.append(1)
            return await scheduled(*arguments)  # type: ignore[arg-type]

        pool._scheduled = counted  # type: ignore[method-assign]
        try:
            together = await asyncio.gather(*(pool.photo(photo) for _ in range(5)))
            return [*together, await pool.photo(photo)]
        finally:
            pool._scheduled = scheduled  # type: ignore[method-assign]

    results = run(both())
    assert len(begun) == 1
    assert all(seen is results[0] for seen in results)


def test_findings_are_kept_within_bounds(run: Loop, portrait: NDArray[np.uint8]) -> None:
    pool = FacePool(Settings(cache_bytes=3_000_000))
    face = find_faces(portrait)[0]
    seen = Seen((face_worker.as_photo(face),))

    async def fill() -> None:
        for number in range(100):
            pool._keep((str(number), "image", 1, 1), seen)

    run(fill())
    assert sum(kept.nbytes for kept in pool._seen.values()) == pool._seen_bytes <= 3_000_000
    assert len(pool._seen) >= 10
    assert list(pool._seen)[-1] == ("99", "image", 1, 1)


def test_a_face_picture_is_taken_as_it_is(
    pool: FacePool, run: Loop, portrait: NDArray[np.uint8]
) -> None:
    face = find_faces(portrait)[0].with_index(3)
    [sighting] = run(pool.photo(to_png(face))).sightings
    assert sighting.index == 3
    np.testing.assert_array_equal(sighting.face.crop, face.crop)
    clip = to_png([face, face], [0.0, 0.5])
    seen = run(pool.clip(clip, 12, 4))
    assert (seen.seconds, len(seen.sightings[0].frames)) == ((0.0, 0.5), 2)
    with pytest.raises(BadModelInput, match="send them as a video"):
        run(pool.photo(clip))
    with pytest.raises(BadModelInput, match="send it as an image"):
        run(pool.clip(to_png(face), 12, 4))


def test_bad_media_are_told_in_the_librarys_words(pool: FacePool, run: Loop) -> None:
    with pytest.raises(BadMedia, match="not a photo that can be read"):
        run(pool.photo(b"\x00" * 100))
    with pytest.raises(BadMedia, match="not a clip"):
        run(pool.clip(b"\x00" * 100, 12, 4))


@pytest.mark.parametrize("task", [sleep_long, run_wild])
def test_a_task_that_takes_too_long_is_ended(
    pool: FacePool, run: Loop, landscape: NDArray[np.uint8], task: Callable[[], Seen]
) -> None:
    with pytest.raises(BadMedia, match=r"more than 0\.2 s"):
        run(pool._run(task, 0.2))
    assert run(pool.photo(png(landscape[:100]))).sightings == ()


def test_a_process_that_dies_costs_one_answer(
    pool: FacePool, run: Loop, landscape: NDArray[np.uint8]
) -> None:
    with pytest.raises(BadMedia, match="cannot be worked on"):
        run(pool._run(die, 5))
    assert run(pool.photo(png(landscape[:101]))).sightings == ()


def test_processes_that_die_idle_are_replaced(
    pool: FacePool, run: Loop, landscape: NDArray[np.uint8]
) -> None:
    for worker in workers():
        worker.kill()
    run(asyncio.sleep(0.5))
    assert run(pool.photo(png(landscape[:102]))).sightings == ()


def test_nobody_left_to_wait_and_not_begun_is_not_done(
    pool: FacePool, run: Loop, landscape: NDArray[np.uint8]
) -> None:
    async def work() -> None:
        busy = [asyncio.ensure_future(pool._run(sleep_long, 0.5)) for _ in range(2)]
        holders = [await pool._places.acquire() for _ in range(2)]
        asked = asyncio.ensure_future(pool.photo(png(landscape[:103])))
        await asyncio.sleep(0.1)
        assert len(pool._searches) == 1
        asked.cancel()
        await asyncio.gather(asked, *busy, return_exceptions=True)
        assert pool._searches == {}
        for _ in holders:
            pool._places.release()

    run(work())


def test_processes_are_small_and_polite(pool: FacePool, run: Loop) -> None:
    run(pool.photo(png(np.full((64, 64, 3), 5, np.uint8))))
    found = workers()
    assert len(found) == 1
    assert found[0].nice() >= min(19, psutil.Process().nice() + face_worker.NICENESS)
    assert found[0].memory_info().rss < 400 * 2**20


def test_workers_do_not_import_torch() -> None:
    code = (
        "import sys, serve.face_worker; "
        "sys.exit(sorted({'torch', 'transformers', 'fastapi'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_processes_end_with_a_server_that_is_killed() -> None:
    holder = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("pool_holder.py"))], stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        children = [psutil.Process(int(pid)) for pid in holder.stdout.readline().split()]
        assert len(children) >= 3
        holder.kill()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
