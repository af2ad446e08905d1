"""Who builds the shards: processes of this machine, or Ray Data on this machine or a cluster.

Both call :func:`data_builders.progress.build_noted` on the same jobs, so both give the same bytes.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from itertools import islice
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any, Final, Literal

import cv2
import pyarrow as pa

from data_builders.progress import build_noted
from data_builders.shard import ShardJob, ShardReport
from facellava.errors import BadCorpus, MissingBackend

Executor = Literal["local", "ray"]
RAY_WINDOW: Final = 16
"""Jobs a worker that are handed to Ray at once: rows are read no faster than they are used up."""


def build_local(jobs: Iterable[ShardJob], workers: int) -> Generator[ShardReport]:
    """Reports of shards in the order in which they finish, from processes of this machine.

    Where it is broken off, by an error or Ctrl-C, the processes end at once.

    Raises:
        BadCorpus: a process was killed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["data_builders.progress"])
    running: set[Future[ShardReport]] = set()
    alive, held = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(alive,))
    try:
        for job in jobs:
            running.add(pool.submit(build_noted, job))
            # A queue of two a worker: rows are read no faster than they are used up.
            while len(running) >= 2 * workers:
                yield from _collect(running)
        while running:
            yield from _collect(running)
    except BrokenProcessPool as error:
        raise BadCorpus(
            "A worker process was killed, perhaps for lack of memory; run the build again with "
            "fewer --workers: finished shards are kept."
        ) from error
    finally:
        held.close()
        pool.shutdown(wait=True, cancel_futures=True)
        alive.close()


def _collect(running: set[Future[ShardReport]]) -> Iterator[ShardReport]:
    done, still = wait(running, return_when=FIRST_COMPLETED)
    running.clear()
    running.update(still)
    for future in done:
        yield future.result()


def _start_worker(alive: Connection) -> None:
    _use_one_core()
    # Ctrl-C reaches the whole terminal; it is the parent that ends the build.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(alive,), daemon=True).start()


def _end_with_parent(alive: Connection) -> None:
    """Wait until the other end of the pipe is closed, by the parent or by its death."""
    connection.wait([alive])
    os._exit(0)


def _use_one_core() -> None:
    """In a worker: the libraries' own threads would fight the other workers for the cores."""
    cv2.setNumThreads(1)
    pa.set_cpu_count(1)


def build_ray(jobs: Iterable[ShardJob], workers: int) -> Generator[ShardReport]:
    """Reports of shards from Ray Data, a window of jobs after the other.

    It joins the cluster that RAY_ADDRESS names, whose machines must share the corpus folder and
    have facellava installed, or starts Ray on this machine with `workers` cores.

    Raises:
        MissingBackend: Ray is not installed.
        BadCorpus: a task failed for good.
    """
    try:
        import ray
        from ray.exceptions import RayError
    except ImportError as error:
        raise MissingBackend(
            "--executor ray needs Ray: pip install 'facellava[ray]', or leave the option out."
        ) from error
    started = not ray.is_initialized()
    if started:
        on_cluster = bool(os.environ.get("RAY_ADDRESS"))
        ray.init(
            num_cpus=None if on_cluster else workers,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    ray.data.DataContext.get_current().enable_progress_bars = False
    remaining = iter(jobs)
    try:
        while window := list(islice(remaining, RAY_WINDOW * workers)):
            rows = ray.data.from_items(
                [{"job": job} for job in window], override_num_blocks=len(window)
            )
            built = rows.map(_build_row)
            for row in built.iter_rows():
                yield ShardReport(**json.loads(row["report"]))
    except RayError as error:
        if isinstance(error, OSError):  # Ray makes its error one of the task's own kind too
            raise
        raise BadCorpus(
            "A task of Ray failed for good, perhaps for lack of memory; run the build again: "
            "finished shards are kept."
        ) from error
    finally:
        if started:
            ray.shutdown()


def _build_row(row: Mapping[str, Any]) -> dict[str, str]:
    """One job on a worker of Ray. A report goes as text: tables of Ray have flat columns."""
    _use_one_core()
    return {"report": json.dumps(asdict(build_noted(row["job"])))}


EXECUTORS: Final[dict[Executor, Callable[[Iterable[ShardJob], int], Generator[ShardReport]]]] = {
    "local": build_local,
    "ray": build_ray,
}
