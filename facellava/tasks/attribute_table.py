"""CelebA's 40 attributes in their official order: official name, our name, ways to ask.

Order and official names: ``list_attr_celeba.txt`` (Liu et al., ICCV 2015). Our name is what an
answer says before "yes" or "no". ``No_Beard`` is called "beardless", so that no answer says
"no beard no".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Attribute:
    """One attribute and the phrases that questions about it use.

    Attributes:
        official: CelebA's column name.
        name: The name in answers.
        things: What a face may have: noun phrases.
        worn: What a person may wear: noun phrases.
        qualities: What a person may be: adjectives or participles.
        parts: (part of the face, plural?, quality): "his hair" is "black".
        others: Whole questions, with slots.
    """

    official: str
    name: str
    things: tuple[str, ...] = ()
    worn: tuple[str, ...] = ()
    qualities: tuple[str, ...] = ()
    parts: tuple[tuple[str, bool, str], ...] = ()
    others: tuple[str, ...] = ()


_BROWS, _EYES, _LIPS, _CHEEKS = "eyebrows", "eyes", "lips", "cheeks"

_TABLE: Final = (
    Attribute(
        "5_o_Clock_Shadow",
        "5 o'clock shadow",
        things=(
            "a 5 o'clock shadow", "a five o'clock shadow", "stubble", "some stubble",
            "5 o'clock shadow",
        ),
        qualities=("unshaven", "stubbly"),
        others=("when did he last shave?", "is there a shadow of stubble on {his} chin?"),
    ),
    Attribute(
        "Arched_Eyebrows",
        "arched eyebrows",
        things=("arched eyebrows", "arched brows", "curved eyebrows"),
        parts=((_BROWS, True, "arched"), ("brows", True, "arched"), (_BROWS, True, "curved")),
    ),
    Attribute(
        "Attractive",
        "attractive",
        things=("an attractive face", "a pretty face", "good looks"),
        qualities=("attractive", "good-looking", "pretty", "beautiful", "handsome", "cute", "hot"),
    ),
    Attribute(
        "Bags_Under_Eyes",
        "bags under the eyes",
        things=(
            "bags under the eyes", "eye bags", "bags under {his} eyes", "puffy bags below the eyes",
        ),
        others=("are there bags under {his} eyes?", "is the skin under {his} eyes puffy?"),
    ),
    Attribute(
        "Bald",
        "bald",
        things=("a bald head", "any hair on the head", "a shaved head", "any hair at all"),
        qualities=("bald", "completely bald", "hairless"),
        parts=(("head", False, "bald"), ("head", False, "shaved")),
    ),
    Attribute(
        "Bangs",
        "bangs",
        things=("bangs", "a fringe", "hair over the forehead", "fringe bangs"),
        others=("does hair cover {his} forehead?", "is {his} forehead covered by hair?"),
    ),
    Attribute(
        "Big_Lips",
        "big lips",
        things=("big lips", "full lips", "thick lips", "large lips", "plump lips"),
        parts=((_LIPS, True, "big"), (_LIPS, True, "full"), (_LIPS, True, "thick")),
    ),
    Attribute(
        "Big_Nose",
        "big nose",
        things=("a big nose", "a large nose", "a wide nose"),
        parts=(("nose", False, "big"), ("nose", False, "large"), ("nose", False, "wide")),
        others=("how big is {his} nose?",),
    ),
    Attribute(
        "Black_Hair",
        "black hair",
        things=("black hair", "dark black hair", "jet-black hair"),
        qualities=("black-haired",),
        parts=(("hair", False, "black"), ("hair", False, "jet black")),
    ),
    Attribute(
        "Blond_Hair",
        "blond hair",
        things=("blond hair", "blonde hair", "fair hair", "golden hair"),
        qualities=("blond", "blonde", "a blonde", "fair-haired"),
        parts=(("hair", False, "blond"), ("hair", False, "blonde")),
    ),
    Attribute(
        "Blurry",
        "blurry photo",
        things=("a blurry {photo}", "a blurred {photo}", "blur", "a sharp {photo}"),
        others=(
            "is {this_photo} blurry?", "is {this_photo} blurred?", "is {this_photo} out of focus?",
            "is {this_photo} sharp?", "is the face blurry?", "blurry?", "is it in focus?",
            "how sharp is {this_photo}?", "is the {photo} quality blurry?", "sharp or blurry?",
        ),
    ),
    Attribute(
        "Brown_Hair",
        "brown hair",
        things=("brown hair", "brunette hair", "chestnut hair"),
        qualities=("brunette", "a brunette", "brown-haired"),
        parts=(("hair", False, "brown"), ("hair", False, "chestnut brown")),
    ),
    Attribute(
        "Bushy_Eyebrows",
        "bushy eyebrows",
        things=("bushy eyebrows", "thick eyebrows", "bushy brows", "thick brows"),
        parts=((_BROWS, True, "bushy"), (_BROWS, True, "thick"), ("brows", True, "bushy")),
    ),
    Attribute(
        "Chubby",
        "chubby",
        things=("a chubby face", "chubby cheeks", "a round chubby face"),
        qualities=("chubby", "overweight", "plump", "fat", "heavy"),
        parts=(("face", False, "chubby"), ("face", False, "plump"), (_CHEEKS, True, "chubby")),
    ),
    Attribute(
        "Double_Chin",
        "double chin",
        things=("a double chin", "a second chin", "double chin"),
        others=("is {his} chin double?", "how many chins {does_he} have?"),
    ),
    Attribute(
        "Eyeglasses",
        "eyeglasses",
        things=("glasses", "eyeglasses", "glasses on", "spectacles"),
        worn=("glasses", "eyeglasses", "spectacles", "specs", "sunglasses", "a pair of glasses"),
        others=("{is_he} bespectacled?", "with or without glasses?", "glasses or no glasses?"),
    ),
    Attribute(
        "Goatee",
        "goatee",
        things=("a goatee", "a goatee beard", "a chin beard", "goatee"),
        others=("is there a small beard on {his} chin only?",),
    ),
    Attribute(
        "Gray_Hair",
        "gray hair",
        things=("gray hair", "grey hair", "white hair", "silver hair"),
        qualities=("gray-haired", "grey-haired", "going gray", "going grey"),
        parts=(("hair", False, "gray"), ("hair", False, "grey"), ("hair", False, "white")),
    ),
    Attribute(
        "Heavy_Makeup",
        "heavy makeup",
        things=("heavy makeup", "makeup on", "a lot of makeup", "make-up"),
        worn=(
            "makeup", "heavy makeup", "make-up", "a lot of makeup", "mascara", "cosmetics",
            "eyeliner",
        ),
        qualities=("made up", "heavily made up"),
    ),
    Attribute(
        "High_Cheekbones",
        "high cheekbones",
        things=("high cheekbones", "prominent cheekbones", "defined cheekbones"),
        parts=(("cheekbones", True, "high"), ("cheekbones", True, "prominent")),
    ),
    Attribute(
        "Male",
        "male",
        things=("a male face", "a man's face", "a woman's face", "a female face"),
        qualities=(
            "male", "female", "a man", "a woman", "a man or a woman", "male or female",
            "a boy or a girl",
        ),
        others=(
            "man or woman?", "male or female?", "boy or girl?", "what gender {is_he}?", "gender?",
            "what is {his} gender?", "what sex {is_he}?", "is this a man?", "is this a woman?",
            "is that a guy or a girl?", "is this a he or a she?", "is it a lady?",
        ),
    ),
    Attribute(
        "Mouth_Slightly_Open",
        "mouth slightly open",
        things=("the mouth open", "an open mouth", "a slightly open mouth", "{his} mouth open"),
        parts=(
            ("mouth", False, "open"), ("mouth", False, "slightly open"), ("mouth", False, "closed"),
            ("mouth", False, "shut"), ("mouth", False, "a little open"),
        ),
        others=("open or closed mouth?", "can you see {his} teeth?"),
    ),
    Attribute(
        "Mustache",
        "mustache",
        things=("a mustache", "a moustache", "mustache", "hair on the upper lip"),
        others=("is there hair on {his} upper lip?",),
    ),
    Attribute(
        "Narrow_Eyes",
        "narrow eyes",
        things=("narrow eyes", "small eyes", "thin eyes", "slit eyes"),
        parts=((_EYES, True, "narrow"), (_EYES, True, "small")),
    ),
    Attribute(
        "No_Beard",
        "beardless",
        things=("a beard", "no beard", "a full beard", "beard", "facial hair", "any beard"),
        qualities=("bearded", "beardless", "clean-shaven", "clean shaven", "shaved"),
        parts=(("chin", False, "clean-shaven"), ("face", False, "shaved")),
    ),
    Attribute(
        "Oval_Face",
        "oval face",
        things=("an oval face", "an oval-shaped face", "an oval head"),
        parts=(("face", False, "oval"), ("face shape", False, "oval")),
        others=("what shape is {his} face, oval?",),
    ),
    Attribute(
        "Pale_Skin",
        "pale skin",
        things=("pale skin", "fair skin", "a pale complexion", "very light skin"),
        qualities=("pale", "pale-skinned", "fair-skinned"),
        parts=(("skin", False, "pale"), ("complexion", False, "pale"), ("skin", False, "fair")),
    ),
    Attribute(
        "Pointy_Nose",
        "pointy nose",
        things=("a pointy nose", "a pointed nose", "a sharp nose"),
        parts=(("nose", False, "pointy"), ("nose", False, "pointed"), ("nose", False, "sharp")),
    ),
    Attribute(
        "Receding_Hairline",
        "receding hairline",
        things=(
            "a receding hairline", "a high hairline", "thinning hair", "hair loss",
            "a high forehead",
        ),
        qualities=("losing hair", "balding", "going bald"),
        parts=(("hairline", False, "receding"), ("hair", False, "thinning")),
    ),
    Attribute(
        "Rosy_Cheeks",
        "rosy cheeks",
        things=("rosy cheeks", "red cheeks", "pink cheeks", "flushed cheeks"),
        qualities=("blushing", "flushed"),
        parts=((_CHEEKS, True, "rosy"), (_CHEEKS, True, "red"), (_CHEEKS, True, "pink")),
    ),
    Attribute(
        "Sideburns",
        "sideburns",
        things=("sideburns", "side whiskers", "long sideburns", "hair in front of the ears"),
        others=("is there hair down the sides of {his} face?",),
    ),
    Attribute(
        "Smiling",
        "smiling",
        things=("a smile", "a smile on {his} face", "a grin", "a smiling mouth"),
        qualities=("smiling", "grinning", "smiling at the camera", "laughing"),
        others=("{does_he} smile?", "smile?", "is that a smile?", "is this a smiling face?"),
    ),
    Attribute(
        "Straight_Hair",
        "straight hair",
        things=("straight hair", "smooth straight hair"),
        parts=(("hair", False, "straight"), ("hair", False, "straight or wavy")),
    ),
    Attribute(
        "Wavy_Hair",
        "wavy hair",
        things=("wavy hair", "curly hair", "curls", "waves in {his} hair", "wavy or curly hair"),
        qualities=("curly-haired",),
        parts=(("hair", False, "wavy"), ("hair", False, "curly")),
    ),
    Attribute(
        "Wearing_Earrings",
        "wearing earrings",
        things=("earrings", "earrings on", "an earring", "something on {his} ears", "pierced ears"),
        worn=("earrings", "an earring", "ear jewellery", "ear studs", "ear rings"),
    ),
    Attribute(
        "Wearing_Hat",
        "wearing a hat",
        things=("a hat", "a hat on", "a cap", "something on {his} head", "headgear", "headwear"),
        worn=("a hat", "a cap", "a beanie", "headgear", "headwear", "a helmet", "a hat or cap"),
    ),
    Attribute(
        "Wearing_Lipstick",
        "wearing lipstick",
        things=("lipstick", "lipstick on", "painted lips", "lipstick on {his} lips"),
        worn=("lipstick", "red lipstick", "some lipstick", "lip colour"),
        parts=((_LIPS, True, "painted"),),
    ),
    Attribute(
        "Wearing_Necklace",
        "wearing a necklace",
        things=("a necklace", "a necklace on", "a chain around the neck"),
        worn=("a necklace", "a chain", "neck jewellery", "a pendant", "pearls"),
    ),
    Attribute(
        "Wearing_Necktie",
        "wearing a necktie",
        things=("a necktie", "a tie", "a tie on", "a bow tie"),
        worn=("a tie", "a necktie", "a bow tie", "some tie"),
    ),
    Attribute(
        "Young",
        "young",
        things=("a young face", "a youthful face", "youthful looks"),
        qualities=("young", "youthful", "a young person", "still young", "young-looking"),
        parts=(("face", False, "young"), ("face", False, "youthful")),
    ),
)  # fmt: skip

ATTRIBUTES: Final[dict[str, Attribute]] = {attribute.name: attribute for attribute in _TABLE}
NAMES: Final = tuple(ATTRIBUTES)
OFFICIAL_NAMES: Final[dict[str, str]] = {attribute.official: attribute.name for attribute in _TABLE}
"""CelebA's column name to the name in answers, in CelebA's order."""
