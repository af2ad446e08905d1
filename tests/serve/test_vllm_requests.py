"""What a request may hold, what is refused without harm, and the forced reading of given tokens."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from facellava.claims import CLAIMS
from facellava.faces import Face
from facellava.faces.clips import read_clip, track_faces
from facellava.faces.face_png import to_png
from facellava.faces.shown_frames import looked_at, shown_of
from facellava.held_reasons import HeldReasons
from facellava.tasks import TASKS
from tests.serve.vllm_rig import (
    QUESTIONS,
    EngineProcess,
    Library,
    conversation,
    engine,
    faces,
    moved,
    nano,
    needs_vllm,
    portrait,
)

__all__ = ["engine", "faces", "nano", "portrait"]
pytestmark = needs_vllm


def test_photos_and_face_pictures_of_any_kind(
    engine: EngineProcess, nano: Library, portrait: NDArray[np.uint8], faces: list[Face]
) -> None:
    """Searched inside the processor, once; a face picture is not searched at all."""
    buffer = io.BytesIO()
    Image.fromarray(portrait).save(buffer, "PNG")
    face_png = to_png(faces[3])
    given = [
        portrait,
        Image.fromarray(portrait),
        buffer.getvalue(),
        engine.call("load_photo", data=buffer.getvalue()),
        {"image": faces[0].crop, "landmarks": faces[0].landmarks.tolist()},
        face_png,
        engine.call("load_photo", data=face_png),
    ]
    text = nano.prompt([faces[0]], QUESTIONS[0])["prompt"]
    prompts = [{"prompt": text, "multi_modal_data": {"image": one}} for one in given]
    answers = engine.call("generate", name="nano", prompts=prompts)
    largest, other = nano.ids([faces[0]], QUESTIONS[0]), nano.ids([faces[3]], QUESTIONS[0])
    assert answers["ids"] == [largest] * 5 + [other] * 2
    # The array and the Pillow image are one photo, and so are both forms of the bytes.
    assert answers["searched"] == 2


def test_clips_through_vllms_media_code(
    engine: EngineProcess, nano: Library, faces: list[Face]
) -> None:
    clip = faces[:3]
    png = to_png(clip, [0.0, 0.5, 1.0])
    loaded = engine.call("load_clip", data=png, num_frames=8)
    prompt = nano.prompt([clip], QUESTIONS[1])
    prompt["multi_modal_data"] = {"video": [loaded]}
    assert engine.call("generate", name="nano", prompts=[prompt])["ids"] == [
        nano.ids([clip], QUESTIONS[1])
    ]
    assert "give it as an image" in engine.refusal("load_clip", data=to_png(faces[0]), num_frames=8)
    assert "cannot be read" not in engine.refusal("load_clip", data=png[:2000], num_frames=8)
    assert "not a clip that can be read" in engine.refusal(
        "load_clip", data=b"\x00" * 400, num_frames=8
    )


def test_a_clips_file_is_shown_by_the_librarys_frames(engine: EngineProcess, clip: Path) -> None:
    data = clip.read_bytes()
    crops, told = engine.call("load_clip", data=data, num_frames=4).media
    person = shown_of(track_faces(read_clip(data, looked_at(4)))[0], 4)
    assert told["seconds"] == list(person.seconds)
    assert np.array_equal(crops, np.stack([face.crop for face in person.frames]))
    landmarks = np.stack([face.landmarks for face in person.frames])
    assert np.array_equal(told["landmarks"], landmarks)


def test_what_cannot_be_used_is_refused_and_the_engine_lives(
    engine: EngineProcess, nano: Library, faces: list[Face], portrait: NDArray[np.uint8]
) -> None:
    face = faces[0]
    good = nano.prompt([face], QUESTIONS[0])
    nan, pixels = face.landmarks.copy(), face.landmarks * 192
    nan[3, 1] = np.nan

    def photo(content: Any, **more: Any) -> dict[str, Any]:
        return {**good, "multi_modal_data": {"image": [content]}, **more}

    def clip(content: Any) -> dict[str, Any]:
        text = good["prompt"].replace("<image>", "<video>")
        return {"prompt": text, "multi_modal_data": {"video": [content]}}

    def pair(image: Any, landmarks: Any) -> dict[str, Any]:
        return {"image": image, "landmarks": landmarks}

    text = good["prompt"]
    bad = {
        "wrong number of points": photo(pair(face.crop, face.landmarks[:67])),
        "NaN": photo(pair(face.crop, nan)),
        "pixels for fractions": photo(pair(face.crop, pixels)),
        "words for points": photo(pair(face.crop, [["a", "b"]] * 68)),
        "no landmarks": photo({"image": face.crop}),
        "more keys": photo({**pair(face.crop, face.landmarks), "size": 9}),
        "grey crop": photo(pair(face.crop[..., 0], face.landmarks)),
        "float crop": photo(pair(face.crop / 255, face.landmarks)),
        "no face": photo(np.zeros((64, 64, 3), np.uint8)),
        "no picture": photo(b"no picture"),
        "nothing": photo(None, multi_modal_uuids={"image": ["mine"]}),
        "embeddings": {**good, "multi_modal_data": {"image": torch.zeros(1, 36, 256)}},
        "clip for a photo": photo(to_png([face, face], [0.0, 1.0])),
        "faces for a photo": photo([face, face]),
        "photo for a clip": clip(portrait),
        "raw frames": clip(np.stack([portrait, portrait])),
        "empty clip": clip({"frames": [], "landmarks": []}),
        "more landmarks than frames": clip(
            {"frames": [face.crop], "landmarks": [face.landmarks] * 2}
        ),
        "endless clip": clip({"frames": [face.crop] * 65, "landmarks": [face.landmarks] * 65}),
        "clip longer than the context": clip([face] * 40),
        "unknown settings": photo(face, mm_processor_kwargs={"image_size": 9999}),
        "landmarks as settings": photo(face, mm_processor_kwargs={"landmarks": [[0, 0]]}),
        "one placeholder too many": {**good, "prompt": text.replace("<image>", "<image><image>")},
        "no placeholder": {**good, "prompt": text.replace("<image>", "")},
        "placeholder of a clip": {**good, "prompt": text.replace("<image>", "<image><video>")},
        "five photos": {
            "prompt": text.replace("<image>", "<image>" * 5),
            "multi_modal_data": {"image": [face] * 5},
        },
        "sound": {**good, "multi_modal_data": {"audio": np.zeros(100)}},
    }
    # vLLM answers these with status 400; anything else would be a fault of the server.
    kinds = {"BadModelInput", "BadMedia", "NoFaceFound", "ValueError", "VLLMValidationError"}
    for name, prompt in bad.items():
        refusal = engine.refusal("generate", name="nano", prompts=[prompt])
        assert refusal.split(":")[0] in kinds, f"{name}: {refusal}"
    assert engine.call("generate", name="nano", prompts=[good])["ids"] == [
        nano.ids([face], QUESTIONS[0])
    ]


def test_placeholders_are_never_written(engine: EngineProcess, nano: Library) -> None:
    """Even where everything asks for them: a clip's and a photo's placeholder have no score."""
    config = nano.model.config
    both = [config.image_token_id, config.video_token_id]
    prompt = {"prompt": nano.processor.render([{"role": "user", "content": "Hello."}])}
    answer = engine.call(
        "generate",
        name="nano",
        prompts=[prompt],
        max_tokens=1,
        logprob_token_ids=both,
        logit_bias={token: 100.0 for token in both},
    )
    assert answer["ids"][0][0] not in both
    assert all(answer["logs"][0][0][token] == float("-inf") for token in both)


def test_forced_reading_scores_given_tokens(
    engine: EngineProcess, nano: Library, faces: list[Face]
) -> None:
    tokenizer = nano.processor.tokenizer
    ages = [tokenizer(f" {age}", add_special_tokens=False)["input_ids"][0] for age in range(117)]
    endings = [f"Age: {age} years." for age in (3, 34, 71)]
    for ending in endings:
        ids = tokenizer(ending, add_special_tokens=False)["input_ids"]
        answer = engine.call(
            "generate",
            name="nano",
            prompts=[nano.prompt([faces[0]], QUESTIONS[0])],
            max_tokens=len(ids) + 1,
            logprob_token_ids=ages,
            extra_args={"facellava_read": ids},
        )
        assert answer["ids"][0][: len(ids)] == ids
        assert len(answer["logs"][0]) == len(ids) + 1
        encoded = nano.processor.encode([conversation([faces[0]], QUESTIONS[0])], [faces[0]])
        encoded["input_ids"] = torch.cat([encoded["input_ids"], torch.tensor([ids])], dim=1)
        encoded["attention_mask"] = torch.ones_like(encoded["input_ids"])
        with torch.inference_mode():
            logits = nano.model(**encoded).logits[0, -len(ids) - 1 :]
        expected = logits.log_softmax(-1)[:, ages]
        found = torch.tensor([[place[age] for age in ages] for place in answer["logs"][0]])
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0.0)


def nobodys(face: Face) -> Face:
    """A face of no other test: what vLLM refuses late, it believes to have in its cache."""
    return moved(face, 3e-3)


@pytest.mark.parametrize("ids", [["1"], [-1], "1", [1.5], [True], [1] * 5000])
def test_forced_reading_takes_token_ids_only(
    engine: EngineProcess, nano: Library, faces: list[Face], ids: object
) -> None:
    refusal = engine.refusal(
        "generate",
        name="nano",
        prompts=[nano.prompt([nobodys(faces[0])], QUESTIONS[0])],
        extra_args={"facellava_read": ids},
    )
    assert "token ids" in refusal


def test_ids_beyond_the_vocabulary_are_not_forced(
    engine: EngineProcess, nano: Library, faces: list[Face]
) -> None:
    prompt = nano.prompt([faces[0]], QUESTIONS[0])
    answer = engine.call(
        "generate", name="nano", prompts=[prompt], extra_args={"facellava_read": [10**9]}
    )
    assert answer["ids"] == [nano.ids([faces[0]], QUESTIONS[0])]


def test_which_language_models(engine: EngineProcess) -> None:
    known = {
        "llama": "LlamaForCausalLM",
        "qwen2": "Qwen2ForCausalLM",
        "qwen3": "Qwen3ForCausalLM",
        "mistral": "MistralForCausalLM",
    }
    assert {name: engine.call("architecture", model_type=name) for name in known} == known
    assert "vLLM cannot run a language model of the type 'xglm'" in engine.refusal(
        "architecture", model_type="xglm"
    )


def test_registering_again_changes_nothing(engine: EngineProcess) -> None:
    assert engine.call("register_twice") == [True, True]


@pytest.mark.parametrize("task", ["expression", "age"])
def test_reasons_are_those_of_the_library(
    engine: EngineProcess, nano: Library, faces: list[Face], task: str
) -> None:
    """Several requests at once, each with its own claims and one with none of its own."""
    claims = sorted(CLAIMS)
    allowed: list[list[str] | None] = [claims[:20], claims[40:60], [], None]
    question = TASKS[task].canonical_question
    answer = engine.call(
        "generate",
        name="nano",
        prompts=[nano.prompt([faces[0]], question)] * len(allowed),
        extra_args_of_each=[{} if held is None else {"facellava_held": held} for held in allowed],
    )
    reasons = HeldReasons(nano.processor.tokenizer)
    expected = [nano.ids([faces[0]], question, held=held, reasons=reasons) for held in allowed]
    assert answer["ids"] == expected
    assert len({tuple(ids) for ids in expected}) > 1


@pytest.mark.parametrize("held", ["lips_parted", [3], ["no_such_claim"], {"lips_parted": True}])
def test_only_claims_of_the_inventory_can_be_held(
    engine: EngineProcess, nano: Library, faces: list[Face], held: object
) -> None:
    refusal = engine.refusal(
        "generate",
        name="nano",
        prompts=[nano.prompt([nobodys(faces[0])], QUESTIONS[0])],
        extra_args={"facellava_held": held},
    )
    assert "ids of the inventory's claims" in refusal
