"""Face finding beside the server: processes that may die, results that are found once.

A chat sends the same photo with every turn, and an analysis asks five things of it: what was seen
in a medium is kept by the hash of its bytes, and those who ask for the same at the same time wait
for one task.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import multiprocessing
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from functools import partial
from typing import Any, Final

from pebble import ProcessExpired, ProcessPool

from facellava.errors import BadMedia, BadModelInput, FacellavaError
from facellava.faces.clips import apex
from facellava.faces.face_png import FacePicture, from_png
from serve import face_worker
from serve.face_worker import Seen, Sighting
from serve.settings import Settings

STOP_SECONDS: Final = 2.0
# Workers take the next task themselves: one in hand each, and one waiting.
AHEAD: Final = 1
STUCK_FACTOR: Final = 2
STUCK_SECONDS: Final = 10.0
# Decoders leave memory behind; a fresh process has none.
TASKS_PER_WORKER: Final = 500

logger = logging.getLogger(__name__)

Key = tuple[str, str, int, int]
"""Hash of the bytes, kind of medium, frames of a clip that are looked at and that are told."""


class FacePool:
    """Finds faces in worker processes.

    Args:
        settings: number of workers, time limits and size of the cache.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool: ProcessPool | None = None
        self._places = asyncio.Semaphore(settings.face_workers + AHEAD)
        self._seen: OrderedDict[Key, Seen] = OrderedDict()
        self._seen_bytes = 0
        self._searches: dict[Key, _Search] = {}

    async def start(self) -> None:
        """Start the workers, so that the first photo does not wait for them."""
        self._pool = await asyncio.to_thread(self._new_pool)

    async def stop(self) -> None:
        """End the workers; searches under way fail."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.to_thread(_end, pool)

    async def photo(self, data: bytes) -> Seen:
        """The faces of a photo, or the one of a face picture.

        Raises:
            BadMedia: it cannot be read, is too large, or takes too long.
            BadModelInput: a face picture whose contents are damaged, or one of a clip.
        """
        carried = await _carried(data)
        if carried is not None:
            if carried.seconds is not None:
                raise BadModelInput("A clip's crops were sent as a photo; send them as a video.")
            return _unpacked(carried, data)
        work = partial(face_worker.see_photo, data)
        key = await _key(data, "image", 1, 1)
        return await self._once(key, work, self._settings.photo_seconds)

    async def clip(self, data: bytes, frames: int, shown: int) -> Seen:
        """The persons of a clip, or the one of a face picture.

        Args:
            data: the clip's bytes.
            frames: that are looked at, at most.
            shown: of these in which a person is told, at most.

        Raises:
            BadMedia, BadModelInput: as :meth:`photo`.
        """
        carried = await _carried(data)
        if carried is not None:
            if carried.seconds is None:
                raise BadModelInput("A photo's crop was sent as a video; send it as an image.")
            return _unpacked(carried, data)
        work = partial(face_worker.see_clip, data, frames, shown)
        key = await _key(data, "video", frames, shown)
        return await self._once(key, work, self._settings.clip_seconds)

    async def _once(self, key: Key, work: Callable[[], Seen], seconds: float) -> Seen:
        if key in self._seen:
            self._seen.move_to_end(key)
            return self._seen[key]
        search = self._searches.get(key)
        if search is None:
            search = _Search()
            search.task = asyncio.create_task(self._search(search, key, work, seconds))
            search.task.add_done_callback(partial(self._forget, key, search))
            self._searches[key] = search
        search.waiting += 1
        try:
            return await asyncio.shield(search.task)
        finally:
            search.waiting -= 1
            # From its start on it is cheaper to finish a search than to end its process.
            if not search.waiting and not search.started:
                self._forget(key, search)
                search.task.cancel()

    async def _search(
        self, search: _Search, key: Key, work: Callable[[], Seen], seconds: float
    ) -> Seen:
        async with self._places:
            search.started = True
            seen = await self._run(work, seconds)
        self._keep(key, seen)
        return seen

    def _forget(self, key: Key, search: _Search, task: asyncio.Task[Seen] | None = None) -> None:
        if self._searches.get(key) is search:
            del self._searches[key]
        if task is not None and not task.cancelled():
            task.exception()  # whoever waited has it; if nobody does any more, it is no news

    async def _run(self, work: Callable[[], Seen], seconds: float) -> Seen:
        try:
            return await self._scheduled(work, seconds)
        except BrokenExecutor:
            # Workers that die without a task in hand break pebble's pool: it is made anew, once.
            logger.warning("The face-finding processes had ended and are started again.")
            broken, self._pool = self._pool, None
            if broken is not None:
                await asyncio.to_thread(_end, broken)
            return await self._scheduled(work, seconds)

    async def _scheduled(self, work: Callable[[], Seen], seconds: float) -> Seen:
        if self._pool is None:
            await self.start()
        pool = self._pool
        if pool is None:
            raise FacellavaError("The face-finding processes have been stopped.")
        try:
            future: Any = pool.schedule(work, timeout=seconds)
        except RuntimeError as error:  # pebble's word for a pool that is not alive
            raise BrokenExecutor from error
        try:
            # pebble counts from the start of the work; what is waited for beyond that is a pool
            # that a process has left locked by dying while it sent.
            async with asyncio.timeout(STUCK_FACTOR * seconds + STUCK_SECONDS) as patience:
                seen: Seen = await asyncio.wrap_future(future)
        except TimeoutError as error:
            if patience.expired():
                raise BrokenExecutor from error
            logger.warning("Finding faces took more than %g s; the process was ended.", seconds)
            raise BadMedia(
                f"Finding faces took more than {seconds:g} s; send a smaller or shorter one."
            ) from error
        except ProcessExpired as error:
            logger.error("A face-finding process died with code %s.", error.exitcode)
            raise BadMedia(
                "The picture or clip cannot be worked on; save it again in another format."
            ) from error
        return seen

    def _new_pool(self) -> ProcessPool:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([face_worker.__name__])
        pool = ProcessPool(
            max_workers=self._settings.face_workers,
            max_tasks=TASKS_PER_WORKER,
            initializer=face_worker.start_worker,
            context=context,
        )
        ready: Any = pool.schedule(int)  # starts the processes
        ready.result()
        return pool

    def _keep(self, key: Key, seen: Seen) -> None:
        self._seen[key] = seen
        self._seen_bytes += seen.nbytes
        while self._seen_bytes > self._settings.cache_bytes:
            _, oldest = self._seen.popitem(last=False)
            self._seen_bytes -= oldest.nbytes


class _Search:
    """A task that several requests may wait for."""

    task: asyncio.Task[Seen]

    def __init__(self) -> None:
        self.waiting, self.started = 0, False


def _end(pool: ProcessPool) -> None:
    """End a pool's processes, whatever they do."""
    pool.stop()
    try:
        pool.join(STOP_SECONDS)
    except (TimeoutError, RuntimeError):
        logger.warning("A face-finding process did not end in time.")


async def _key(data: bytes, kind: str, frames: int, shown: int) -> Key:
    digest = await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())
    return digest, kind, frames, shown


async def _carried(data: bytes) -> FacePicture | None:
    """The faces that the bytes bring along, fully checked; None where they are to be found."""
    return await asyncio.to_thread(from_png, data)


def _unpacked(picture: FacePicture, png: bytes) -> Seen:
    seconds = picture.seconds
    index = picture.faces[apex(picture.faces)].index
    sighting = Sighting(index, picture.faces, seconds, (), None, png)
    duration = seconds[-1] if seconds else 0.0
    return Seen((sighting,), duration=duration, seconds=seconds)
