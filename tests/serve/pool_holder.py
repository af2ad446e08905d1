"""Starts face-finding processes, tells their ids, and waits to be killed."""

from __future__ import annotations

import asyncio

import psutil

from serve.face_pool import FacePool
from serve.settings import Settings


async def hold() -> None:
    pool = FacePool(Settings(face_workers=2))
    await pool.start()
    print(*(child.pid for child in psutil.Process().children(recursive=True)), flush=True)
    await asyncio.sleep(60)


if __name__ == "__main__":
    asyncio.run(hold())
