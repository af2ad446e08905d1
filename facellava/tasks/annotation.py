"""What a multimodal model is told when it explains labels of faces, and when it rates the \
texts.

Both are shown the face and the label, as in the construction of FaceInstruct-1M (Face-LLaVA, \
arXiv
2504.07198; its own prompts are not published, these are ours). A changed word changes
:func:`prompt_version`, and with it what a corpus says about its texts.
"""

from __future__ import annotations

import hashlib
from typing import Final

_VERSION_LETTERS: Final = 12

_ANNOTATOR: Final = """\
You explain labels of faces, for teaching a model to say what it sees. You get one cropped \
face, or several frames of one clip in time order, and the label that people gave it. Look at \
the face first, then say which visible signs speak for the label.

Answer as JSON: {{"description": "...", "reasons": ["...", "..."]}}
- description: two or three sentences on what can be seen in the face, without the label.
- reasons: two to four sentences. Each names one visible sign and the part of the face where it \
is, and why it speaks for the label. The strongest sign comes first.

{task}

Rules:
- Say only what these pictures show. No guess about the place, the situation, sounds, or what \
came before. No numbers that cannot be seen.
- Write about "the face" or "the person", never "he" or "she". No names, and nothing about who \
it is.
- Nothing about health or illness, character, intelligence, honesty, origin, religion, \
politics, sexual orientation or income.
- Do not repeat the whole label, do not name another one, and do not say that a label was given.
- Where the face does not fit the label, give the signs that fit it best, and say in one \
sentence what does not fit. Never make up a sign.
- Left and right are the person's. Short, plain English. No lists, no Markdown, no line breaks.
"""

_RATER: Final = """\
You check training texts about faces. You get one cropped face, or several frames of one clip \
in time order, the label that people gave it, and a text that explains the label. Rate them \
strictly, with whole numbers from 1 (wrong) to 10 (right).

Answer as JSON with these keys:
- reason: one or two sentences that say what decided your ratings.
- label_accuracy: is the label right for this face?
- media_consistency: does everything that the text says hold in the pictures? 3 or less where \
it says something that is not there.
- label_consistency: do the reasons speak for the label? 3 or less where they speak for another \
one.
- overall: is it a good example to learn from: true, clear, specific, complete?

{task}

An overall rating of at most 3 is due to every text that says who the person is, or says \
anything about health, character, intelligence, origin, religion, politics, sexual orientation \
or income.
"""

_DESCRIBE: Final = {
    "expression": """\
The label is the facial expression. Describe brows, forehead, eyes and lids, nose, cheeks, lips \
and jaw: what is raised, lowered, drawn together, widened, narrowed, pressed, parted or \
stretched, and which lines it makes. In a clip, say how they move. The label is what the face \
shows, not what the person feels.""",
    "action_units": """\
The label lists the active action units of the Facial Action Coding System, or none. Describe \
for each unit the movement and the lines by which it is seen, with the unit's code, such as \
AU12. Name no unit that is not in the label. Where the label is none, describe what is at \
rest.""",
    "attributes": """\
The label says yes or no for attributes of the face, hair and what is worn. Describe what can \
be seen of the ones that are there, and of the absent ones only those that somebody might \
expect. Do not go through all of them. Attributes such as "attractive" or "young" are the taste \
of annotators: give what can be seen, no judgement.""",
    "age": """\
The label is the age in years. Describe the skin (lines at the eyes, on the forehead and beside \
the mouth, folds, bags, firmness), the shape of the face, hair, brows and beard, as far as they \
bear on age. Write no number and no decade.""",
    "deepfake": """\
The label says whether the face is real or fake: swapped, re-enacted, blended or made by a \
machine. Describe seams and borders, colour and light against the surroundings, sharpness and \
grain, teeth, eyes, hair and glasses, and in a clip how steady they are. For a fake, say where \
the traces are; for a real face, which natural details are there. Use neither the word "real" \
nor the word "fake".""",
}

_CHECK: Final = {
    "expression": """\
The label is the facial expression that the face shows. An expression that is barely there \
still counts if it is the likeliest one.""",
    "action_units": """\
The label lists the active action units of the Facial Action Coding System. A text that names a \
unit outside the label does not fit the label.""",
    "attributes": """\
The label says yes or no for attributes of the face, hair and what is worn. The label is right \
where nearly all of them are.""",
    "age": """\
The label is the age in years. Within five years of what the face shows it is right, beyond \
fifteen it is wrong.""",
    "deepfake": """\
The label says whether the face is real or fake. Good fakes show few traces: rate the label low \
only where the pictures clearly speak against it.""",
}

ANNOTATION: Final[dict[str, str]] = {
    name: _ANNOTATOR.format(task=text) for name, text in _DESCRIBE.items()
}
"""Task to the instructions of an annotator."""

RATING: Final[dict[str, str]] = {name: _RATER.format(task=text) for name, text in _CHECK.items()}
"""Task to the instructions of a rater."""


def prompt_version(text: str) -> str:
    """A short hash of a prompt: another one where a letter changes."""
    return hashlib.sha256(text.encode()).hexdigest()[:_VERSION_LETTERS]
