"""The chat's slow steps: search a file, have a question answered, draw a timeline.

Each writes into the tab's session; the page shows what is there while they run. Nothing here knows
how the page looks.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Final

from PIL import Image

from facellava.errors import FacellavaError
from facellava.faces.photo import read_photo
from serve.chat_api import ChatApi, Kind, Told
from serve.chat_replies import Found
from serve.chat_session import Exchange, Person, Session

REDRAW_SECONDS: Final = 0.05  # between two pictures of an answer that is being written
SIGN_OF_LIFE_SECONDS: Final = 1.0  # so often a page that was left is noticed
BROKEN: Final = "The page failed inside facellava; its terminal shows why."

logger = logging.getLogger(__name__)


async def search(api: ChatApi, file: Path, kind: Kind) -> Session:
    """The faces of an uploaded file.

    Args:
        api: finds them.
        file: as uploaded.
        kind: what it was given as; an animated picture is a clip all the same.

    Raises:
        FacellavaError: why there are none, in one sentence.
    """
    try:
        kind, url = await asyncio.to_thread(_as_url, file, kind)
        found = await api.faces(kind, url)
        return await asyncio.to_thread(_session, found, file)
    except FacellavaError:
        raise
    except Exception as error:
        # Here and below the page's outermost edge: the reader gets a sentence, the log the trace.
        logger.exception("Searching %s failed.", file.name)
        raise FacellavaError(BROKEN) from error


def _as_url(file: Path, kind: Kind) -> tuple[Kind, str]:
    if kind == "image" and file.suffix.lower() == ".gif" and _is_animated(file):
        kind = "video"
    # What the bytes are is found by who reads them; a file's name proves nothing.
    plain = "image/jpeg" if kind == "image" else "video/mp4"
    return kind, f"data:{plain};base64,{base64.b64encode(file.read_bytes()).decode()}"


def _is_animated(file: Path) -> bool:
    try:
        with Image.open(file, formats=("GIF",)) as picture:
            return bool(getattr(picture, "is_animated", False))
    except Exception as error:
        # The server says what is wrong with the file; here only its kind was asked for.
        logger.info("%s has no frames that can be counted (%s).", file.name, error)
        return False


def _session(found: Found, file: Path) -> Session:
    photo = read_photo(file.read_bytes()) if found.media.kind == "image" else None
    session = Session.of(found, photo)
    _ = session.person.plain_overlay  # drawn here, off the event loop, and kept
    return session


async def answer(api: ChatApi, session: Session, model: str | None) -> AsyncGenerator[None, None]:
    """Have the chosen face's last question answered; each step is a reason to draw it anew.

    Args:
        api: answers.
        session: whose running exchange is filled.
        model: its name; None takes the server's first.
    """
    person = session.person
    exchange = person.running
    if exchange is None or exchange.writing is not None:
        return  # of two questions in quick succession the first is not answered any more
    exchange.writing = asyncio.create_task(_write(api, person, exchange, model))
    drawn, at = "", time.monotonic()
    try:
        while not exchange.writing.done():
            await asyncio.wait({exchange.writing}, timeout=REDRAW_SECONDS)
            if exchange.text != drawn or time.monotonic() - at > SIGN_OF_LIFE_SECONDS:
                drawn, at = exchange.text, time.monotonic()
                yield
    finally:
        # Also where the tab was closed: nobody is left to read on.
        exchange.writing.cancel()
        await asyncio.wait({exchange.writing})
        if exchange.told is None and not exchange.problem:
            exchange.stopped = True


async def _write(api: ChatApi, person: Person, exchange: Exchange, model: str | None) -> None:
    try:
        asked = api.ask(
            model or (await api.models())[0],
            "image" if person.second is None else "video",
            person.crop,
            exchange.question,
            person.history(),
        )
        async with aclosing(asked) as pieces:
            async for piece in pieces:
                if isinstance(piece, Told):
                    reply = piece.reply
                    exchange.picture = await asyncio.to_thread(
                        person.overlay, reply.answer, reply.attention
                    )
                    exchange.text = exchange.text.strip()
                    exchange.told = piece
                else:
                    exchange.text += piece
    except FacellavaError as error:
        exchange.problem = str(error)
    except Exception:
        logger.exception("Answering %r failed.", exchange.question)
        exchange.problem = BROKEN


async def trace(api: ChatApi, person: Person, model: str | None) -> None:
    """The expression of a clip's person over time, once; a failure may be tried again."""
    if person.timeline is None:
        if person.drawing is None:
            person.drawing = asyncio.create_task(_trace(api, person, model))
        await asyncio.wait({person.drawing})
        person.drawing = None


async def _trace(api: ChatApi, person: Person, model: str | None) -> None:
    person.timeline_problem = ""
    try:
        person.timeline = await api.timeline(model or (await api.models())[0], person.whole)
    except FacellavaError as error:
        person.timeline_problem = str(error)
    except Exception:
        logger.exception("The timeline failed.")
        person.timeline_problem = BROKEN
