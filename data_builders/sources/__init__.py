"""The datasets that can be built from, by the name used on the command line."""

from typing import Final

from data_builders.raw_face import Source
from data_builders.sources import (
    affectnet,
    agedb,
    bp4d,
    celeb_df,
    celeba,
    ck_plus,
    crema_d,
    dfew,
    disfa,
    faceforensics,
    faceinstruct,
    fairface,
    fer2013,
    ferplus,
    ferv39k,
    ict_facekit,
    lfw,
    mafw,
    morph2,
    rafdb,
    real_fake_faces,
    utkface,
)
from facellava.errors import BadCorpus

SOURCES: Final[dict[str, Source]] = {
    "fer2013": fer2013.SOURCE,
    "ferplus": ferplus.SOURCE,
    "utkface": utkface.SOURCE,
    "celeba": celeba.SOURCE,
    "real_fake_faces": real_fake_faces.SOURCE,
    "dfew": dfew.SOURCE,
    "mafw": mafw.SOURCE,
    "ferv39k": ferv39k.SOURCE,
    "crema_d": crema_d.SOURCE,
    "affectnet7": affectnet.SOURCE_7,
    "affectnet8": affectnet.SOURCE_8,
    "rafdb": rafdb.SOURCE,
    "ck_plus": ck_plus.SOURCE,
    "disfa": disfa.SOURCE,
    "bp4d": bp4d.SOURCE,
    "fairface": fairface.SOURCE,
    "morph2_random": morph2.RANDOM,
    "morph2_subjects": morph2.SUBJECTS,
    "agedb": agedb.SOURCE,
    "faceforensics_c23": faceforensics.C23,
    "faceforensics_c40": faceforensics.C40,
    "celeb_df": celeb_df.SOURCE,
    "lfw": lfw.SOURCE,
    "ict_facekit": ict_facekit.SOURCE,
    "faceinstruct": faceinstruct.SOURCE,
}


def find_source(name: str) -> Source:
    """The source of that name.

    Raises:
        BadCorpus: there is none.
    """
    if name not in SOURCES:
        raise BadCorpus(f"There is no source {name!r}; known are {', '.join(SOURCES)}.")
    return SOURCES[name]
