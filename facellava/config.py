"""FaceLlavaConfig: what the weights fix, from the vision encoder to the calibration temperatures.

The two backbones are any Hugging Face vision encoder and any Hugging Face causal language model,
each with its own config inside this one.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

import torch
from transformers import AutoConfig, AutoModel, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from facellava import languagebind  # noqa: F401  (makes transformers know its video tower)
from facellava.errors import BadModelInput
from facellava.regions import N_LANDMARKS

IMAGE_TOKEN: Final = "<image>"
VIDEO_TOKEN: Final = "<video>"
REGION_VARIANTS: Final = ("paper", "released")
PROJECTOR_TYPES: Final = ("linear", "mlp2x_gelu")
FEATURE_SELECTIONS: Final = ("default", "full")
# All of them are decoded and go through the encoder at once.
MOST_CLIP_FRAMES: Final = 1024


class FaceLlavaConfig(PreTrainedConfig):
    """Configuration of a Face-LLaVA model.

    Args:
        vision_config: any HF vision encoder's config (CLIP, SigLIP, ResNet, ...), or its dict.
        text_config: any HF causal language model's config, or its dict.
        video_config: a second encoder's config for clips, or its dict: of facellava.languagebind.
            None sends the frames of clips through the image encoder, one by one.
        image_token_id: id of the placeholder that one photo's tokens replace.
        video_token_id: id of the placeholder that a clip's tokens replace.
        image_size: (height, width) in pixels of the encoder's input; by default the encoder's own
            `image_size`. An int means a square.
        image_grid: (height, width) in patches of the encoder's output, row-major; by default found
            by passing shapes through the encoder. Grids need not be square.
        n_prefix_tokens: tokens before the patches (CLS, registers); by default found likewise.
        vision_feature_layer: index into the encoder's hidden states.
        vision_feature_select: "default" drops the prefix tokens, "full" keeps them.
        video_feature_select: likewise for clips, where they have an encoder of their own.
        mirror_average: the encoder sees each frame also mirrored, and each patch's features are
            the mean of both: steadier verdicts for twice the encoder's time.
        clip_frames: frames that every clip is sampled to. An encoder for clips fixes it; otherwise
            None takes clips as they are.
        clip_pool: side of the squares of patches whose tokens are averaged into one in the frames
            of clips, after FRGCA; 2 leaves a quarter of the tokens. Prefix tokens are kept.
        clip_merge: how many consecutive frames of a clip have their tokens averaged into one
            frame's; 2 leaves half of the tokens.
        projector_type: "linear" or "mlp2x_gelu".
        region_variant: "paper" (proximity mask on) or "released" (the published checkpoint's
            layout, without mask). See facellava.region_attention.
        region_heads: attention heads of FRGCA; the released layout has 8.
        region_hidden: width of the hidden layer of each landmark projection, 0 for one linear
            layer; the released layout has 0.
        mask_scale: logits lost per crop side between a patch centre and a region's centroid
            ("paper" only).
        branch_scale: factor of the residual branch ("released" only).
        landmark_mean: (68, 2) mean shape in [0, 1] of the crop, subtracted before the landmark
            projections ("paper" only; the mask always sees the landmarks themselves).
        landmark_std: the landmarks' spread about that shape, by which they are divided.
        calibration: temperature per task, fitted on validation data; a task without one has 1.

    Raises:
        BadModelInput: a value outside what is allowed.
    """

    model_type: ClassVar[str] = "face_llava"
    sub_configs: ClassVar[dict[str, type]] = {
        "vision_config": AutoConfig,
        "video_config": AutoConfig,
        "text_config": AutoConfig,
    }
    # Without backbones there is nothing to compare a config's values with.
    has_no_defaults_at_init: ClassVar[bool] = True

    # Any: __post_init__ turns what is given into a config, (height, width) lists and a dict.
    vision_config: Any = None
    text_config: Any = None
    video_config: Any = None
    image_token_id: int = 0
    video_token_id: int = 1
    image_size: Any = None
    image_grid: Any = None
    n_prefix_tokens: Any = None
    vision_feature_layer: int = -1
    vision_feature_select: str = "default"
    video_feature_select: str = "default"
    mirror_average: bool = False
    clip_frames: int | None = None
    clip_pool: int = 1
    clip_merge: int = 1
    projector_type: str = "mlp2x_gelu"
    region_variant: str = "paper"
    region_heads: int = 8
    region_hidden: int = 0
    mask_scale: float = 10.0
    branch_scale: float = 0.1
    landmark_mean: list[list[float]] | None = None
    landmark_std: float = 1.0
    calibration: Any = None
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        self.vision_config = _backbone_config(self.vision_config, "vision_config")
        self.text_config = _backbone_config(self.text_config, "text_config")
        if self.video_config is not None:
            self.video_config = _backbone_config(self.video_config, "video_config")
        self.tie_word_embeddings = bool(getattr(self.text_config, "tie_word_embeddings", False))
        self.calibration = dict(self.calibration or {})
        self._check_values()
        size = self.image_size or getattr(self.vision_config, "image_size", None)
        if size is None:
            raise BadModelInput(
                f"image_size is needed: a {self.vision_config.model_type} config names none."
            )
        self.image_size = [size, size] if isinstance(size, int) else [int(side) for side in size]
        if self.image_grid is None or self.n_prefix_tokens is None:
            self.image_grid, self.n_prefix_tokens = _find_grid(self)
        self.image_grid = [int(side) for side in self.image_grid]
        self.check_clips()
        super().__post_init__(**kwargs)

    def _check_values(self) -> None:
        for name, allowed in (
            ("region_variant", REGION_VARIANTS),
            ("projector_type", PROJECTOR_TYPES),
            ("vision_feature_select", FEATURE_SELECTIONS),
            ("video_feature_select", FEATURE_SELECTIONS),
        ):
            if getattr(self, name) not in allowed:
                raise BadModelInput(
                    f"{name} is {getattr(self, name)!r}; use one of {', '.join(allowed)}."
                )
        if self.image_token_id == self.video_token_id:
            raise BadModelInput(
                f"image_token_id and video_token_id are both {self.image_token_id}; "
                "give each its own placeholder."
            )
        if self.hidden_size % self.region_heads:
            raise BadModelInput(
                f"region_heads is {self.region_heads}, which does not divide the language model's "
                f"width of {self.hidden_size}."
            )
        if self.region_variant == "released" and (
            self.region_hidden or self.landmark_mean is not None or self.landmark_std != 1.0
        ):
            raise BadModelInput(
                "The released layout has single-linear landmark projections on raw landmarks: "
                "leave region_hidden, landmark_mean and landmark_std at their defaults."
            )
        if self.landmark_std <= 0 or any(value <= 0 for value in self.calibration.values()):
            raise BadModelInput("landmark_std and every calibration temperature must be above 0.")
        if self.landmark_mean is not None and (
            len(self.landmark_mean) != N_LANDMARKS or any(len(p) != 2 for p in self.landmark_mean)
        ):
            raise BadModelInput(f"landmark_mean must hold {N_LANDMARKS} points of (x, y).")
        if self.video_config is not None:
            self._check_video()

    def _check_video(self) -> None:
        if getattr(self.video_config, "num_frames", None) is None:
            raise BadModelInput(
                f"A {self.video_config.model_type} config names no num_frames, so it cannot be "
                "video_config; leave it out, and clips go through the image encoder."
            )
        for name in ("hidden_size", "image_size", "patch_size"):
            photos, clips = (
                getattr(config, name, None) for config in (self.vision_config, self.video_config)
            )
            if photos != clips:
                raise BadModelInput(
                    f"{name} is {photos} in vision_config and {clips} in video_config; "
                    "both encoders share one projector and one grid, so make them equal."
                )

    def check_clips(self) -> None:
        """Check what is said of clips.

        Raises:
            BadModelInput: a value that does not fit the encoders.
        """
        for name in ("clip_frames", "clip_pool", "clip_merge"):
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, int) or not 1 <= value <= MOST_CLIP_FRAMES:
                raise BadModelInput(
                    f"{name} is {value!r}; it must be a whole number from 1 to {MOST_CLIP_FRAMES}."
                )
        if self.video_config is not None:
            own = int(self.video_config.num_frames)
            if self.clip_frames not in (None, own):
                raise BadModelInput(
                    f"clip_frames is {self.clip_frames} and video_config reads clips of {own} "
                    "frames; leave clip_frames out."
                )
            self.clip_frames = own
        height, width = self.image_grid
        if height % self.clip_pool or width % self.clip_pool:
            raise BadModelInput(
                f"clip_pool is {self.clip_pool}, which does not divide the grid of {height} x "
                f"{width} patches."
            )
        if self.clip_frames is not None and self.clip_frames % self.clip_merge:
            raise BadModelInput(
                f"clip_merge is {self.clip_merge}, which does not divide the {self.clip_frames} "
                "frames of a clip."
            )
        most = getattr(self.text_config, "max_position_embeddings", None)
        if self.clip_frames is not None and most is not None:
            tokens = self.clip_frames // self.clip_merge * self.tokens_per_clip_frame
            if tokens > most:
                raise BadModelInput(
                    f"clip_frames is {self.clip_frames}, which makes {tokens} tokens of a clip; "
                    f"the language model reads {most} at most."
                )

    @property
    def hidden_size(self) -> int:
        """Width of the language model's embeddings, and of image and region tokens."""
        return int(self.text_config.hidden_size)

    @property
    def n_patches(self) -> int:
        """Patches of one frame: grid height times grid width."""
        return int(self.image_grid[0] * self.image_grid[1])

    @property
    def tokens_per_frame(self) -> int:
        """Placeholders that one photo takes in the language model."""
        return self.n_patches + self._n_prefix(self.vision_feature_select)

    @property
    def features_per_clip_frame(self) -> int:
        """Tokens that one frame of a clip has before any are averaged."""
        return self.n_patches + self._n_prefix(self._clip_select)

    @property
    def tokens_per_clip_frame(self) -> int:
        """Placeholders of one frame of a clip, or of `clip_merge` frames that are merged."""
        return self.n_patches // self.clip_pool**2 + self._n_prefix(self._clip_select)

    @property
    def clips_differ(self) -> bool:
        """Whether the frames of clips become tokens in another way than photos do."""
        return self.video_config is not None or self.clip_pool * self.clip_merge > 1

    @property
    def _clip_select(self) -> str:
        has_own = self.video_config is not None
        return self.video_feature_select if has_own else self.vision_feature_select

    def _n_prefix(self, selection: str) -> int:
        return int(self.n_prefix_tokens) if selection == "full" else 0


def _backbone_config(given: dict[str, Any] | PreTrainedConfig | None, name: str) -> Any:
    if isinstance(given, PreTrainedConfig):
        return given
    if not isinstance(given, dict) or given.get("model_type") not in CONFIG_MAPPING:
        found = given.get("model_type") if isinstance(given, dict) else given
        raise BadModelInput(
            f"{name} must be a transformers config or its dict with a model_type that transformers "
            f"knows, not {found!r}."
        )
    return CONFIG_MAPPING[given["model_type"]](
        **{key: value for key, value in given.items() if key != "model_type"}
    )


def _find_grid(config: FaceLlavaConfig) -> tuple[list[int], int]:
    """Grid (height, width) and number of prefix tokens, found by shapes alone, without weights."""
    height, width = config.image_size
    with torch.device("meta"):
        encoder = AutoModel.from_config(config.vision_config).eval()
        hidden_states = encoder(
            torch.empty(1, 3, height, width), output_hidden_states=True
        ).hidden_states
    features = hidden_states[config.vision_feature_layer]
    if features.ndim == 4:
        return [features.shape[2], features.shape[3]], 0
    patch_size = getattr(config.vision_config, "patch_size", None)
    if patch_size is None:
        raise BadModelInput(
            f"A {config.vision_config.model_type} encoder names no patch_size: "
            "give image_grid and n_prefix_tokens."
        )
    patch = (patch_size, patch_size) if isinstance(patch_size, int) else tuple(patch_size)
    grid = [height // patch[0], width // patch[1]]
    n_prefix = features.shape[1] - grid[0] * grid[1]
    if n_prefix < 0:
        raise BadModelInput(
            f"A {config.vision_config.model_type} encoder gives {features.shape[1]} tokens where "
            f"its patches would be {grid[0]} x {grid[1]}: give image_grid and n_prefix_tokens."
        )
    return grid, n_prefix
