"""What a base is made of: two backbones of given shape, or nothing but a corpus."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

from train.encoder import EncoderSettings

Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
# NumPy's generators take 32 bits, and a teacher's seed is the next one.
MOST_SEED: Final = 2**32 - 2


class Strict(BaseModel):
    """Settings that refuse what they do not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Backbone(Strict):
    """The config values of a base that is not at hand, for `estimate`.

    Attributes:
        vision: a vision encoder's config, with its model_type.
        text: a causal language model's config, with its model_type.
        face: further values of FaceLlavaConfig.
    """

    vision: dict[str, Any]
    text: dict[str, Any]
    face: dict[str, Any] = {}


class ScratchSettings(Strict):
    """A base that is made from the corpus: its encoder is trained, the rest starts at random.

    Attributes:
        encoder: how the vision encoder is trained, under heads for every label of the faces.
        teacher: how a larger encoder is trained before, whose heads the encoder learns from too.
        variants: how often each face's features are stored, in other light and position.
        width: of the language model.
        layers: of the language model.
        heads: of its attention.
        swapped: share of stage 2's samples that are shown with another face and teach no more than
            which task a question belongs to (see InstructionRows).
        switches: so many conversations that turn from one task to another are added, as a share of
            stage 2's samples (see switching_rows).
        mirror_average: the model sees each face mirrored, too (see FaceLlavaConfig).
        twins: JSON answers learn the probabilities of the prose answers, too (see train.twins).
        further_json: so many JSON answers are added beside prose ones, as a share of stage 2's
            samples; needs twins (see further_json_twins).
        expressive_clips: so many clips of which one frame shows something are added beside their
            photos, as a share of stage 2's samples (see clip_twins).
        most_doubt: the highest chance, as far as stage 1's tokens tell, that a reason is
            contradicted; from a less certain one on, an answer is not learned (see
            train.sure_reasons). At 1 all reasons are.
        soft_labels: stage 2's verdicts learn probabilities, too, so much of which are the soft
            labels' and the rest the labels' (see train.soft_labels); at 0 the labels alone. Real
            or fake faces of small datasets keep theirs (see train.rare_fakes).
        verdict_rows: so many rows are added that teach verdicts alone, as a share of stage 2's
            samples; needs soft_labels (see train.verdict_rows).
        mixed_fakes: so many rows are added that show means of real and generated faces of small
            datasets, as a share of stage 2's samples; needs soft_labels (see train.rare_fakes).
    """

    encoder: EncoderSettings = EncoderSettings()
    teacher: EncoderSettings | None = None
    variants: Count = 2
    width: Count = 256
    layers: Count = 4
    heads: Count = 4
    swapped: Annotated[float, Field(ge=0, le=1)] = 0.0
    switches: Annotated[float, Field(ge=0, le=1)] = 0.0
    mirror_average: bool = False
    twins: bool = False
    further_json: Annotated[float, Field(ge=0, le=1)] = 0.0
    expressive_clips: Annotated[float, Field(ge=0, le=1)] = 0.0
    most_doubt: Annotated[float, Field(ge=0, le=1)] = 1.0
    soft_labels: Annotated[float, Field(ge=0, le=1)] = 0.0
    verdict_rows: Annotated[float, Field(ge=0, le=2)] = 0.0
    mixed_fakes: Annotated[float, Field(ge=0, le=1)] = 0.0

    @model_validator(mode="after")
    def _fits_together(self) -> ScratchSettings:
        for part, encoder in (("encoder", self.encoder), ("teacher", self.teacher)):
            if encoder is None:
                continue
            for name in ("pictures", "batch", "round_pictures"):
                if getattr(encoder, name) < 1:
                    raise ValueError(f"scratch.{part}.{name} must be at least 1")
            if encoder.seed:
                raise ValueError(f"a run has one seed: give seed, and no scratch.{part}.seed")
        if self.further_json and not self.twins:
            raise ValueError("scratch.further_json needs scratch.twins")
        for name in ("verdict_rows", "mixed_fakes"):
            if getattr(self, name) and not self.soft_labels:
                raise ValueError(f"scratch.{name} needs scratch.soft_labels")
        if self.width % self.heads or self.width // self.heads % 2:
            raise ValueError(
                f"scratch.width is {self.width}; make it an even multiple of scratch.heads "
                f"({self.heads})"
            )
        return self
