"""Geometry of the proximity mask and the two variants against their formulas written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from facellava.errors import BadModelInput
from facellava.region_attention import (
    RegionAttention,
    check_landmarks,
    patch_centres,
    region_distances,
)
from facellava.regions import REGIONS, flip_landmarks

LEFT_EYE = list(REGIONS).index("left_eye")
RIGHT_EYE = list(REGIONS).index("right_eye")


@pytest.fixture
def points(landmarks):
    return torch.from_numpy(landmarks)


@pytest.fixture
def attention(build_config, resnet_vision):
    def build(**settings):
        torch.manual_seed(1)
        return RegionAttention(build_config(resnet_vision, image_size=(96, 64), **settings)).eval()

    return build


def test_patch_centres_are_x_y_and_row_major():
    centres = patch_centres((2, 4))
    assert centres[1].tolist() == [0.375, 0.25]  # one step right, same row
    assert centres[4].tolist() == [0.125, 0.75]  # first of the second row


@pytest.mark.parametrize("grid", [(6, 6), (8, 4), (3, 12)])
@pytest.mark.parametrize("region", list(REGIONS))
def test_nearest_patch_holds_the_regions_centroid(points, grid, region):
    off_centre = points + torch.tensor([0.03, 0.02])  # no centroid on a border between patches
    x, y = off_centre[REGIONS[region]].mean(0).tolist()
    row, column = int(y * grid[0]), int(x * grid[1])
    distances = region_distances(off_centre, grid)[:, list(REGIONS).index(region)]
    assert distances.argmin().item() == row * grid[1] + column


def test_patch_under_the_left_eye_is_nearest_the_left_eye(points):
    x, y = points[REGIONS["left_eye"]].mean(0).tolist()
    grid = (10, 14)
    patch = int(y * grid[0]) * grid[1] + int(x * grid[1])
    distances = region_distances(points, grid)[patch]
    assert distances.argmin().item() == LEFT_EYE
    # The person's left eye is at the right of the picture.
    assert x > 0.5
    assert distances[LEFT_EYE] < distances[RIGHT_EYE] - 0.1


def test_prefix_tokens_are_at_distance_zero_and_patches_keep_theirs(points):
    with_cls = region_distances(points, (4, 4), n_prefix=1)
    assert with_cls.shape == (17, 9)
    assert (with_cls[0] == 0).all()
    assert torch.equal(with_cls[1:], region_distances(points, (4, 4)))


def test_mirrored_face_has_the_mirrored_mask(points):
    grid = (5, 7)
    mirrored = torch.from_numpy(flip_landmarks(points.numpy()))
    swap = [0, 2, 1, 3, 4, 6, 5, 7, 8]
    expected = region_distances(points, grid).reshape(5, 7, 9).flip(1)[..., swap]
    np.testing.assert_allclose(
        region_distances(mirrored, grid).reshape(5, 7, 9), expected, atol=1e-6
    )


def test_paper_variant_is_its_formula(attention, points):
    module = attention(region_variant="paper", region_heads=2, mask_scale=7.0)
    inner = module.landmarks_cross_attn
    tokens = torch.randn(24, 32)
    enriched = module(tokens, points)

    region_tokens = module.region_tokens(points)
    width = 16
    token, head = 13, 1
    part = slice(head * width, (head + 1) * width)
    query = inner.q_proj(tokens[token])[part]
    keys = inner.k_proj(region_tokens)[:, part]
    centre = torch.tensor([(1 + 0.5) / 4, (3 + 0.5) / 6])  # token 13 of 6 rows by 4 columns
    mask = torch.stack(
        [-7.0 * (centre - points[region].mean(0)).norm() for region in REGIONS.values()]
    )
    expected = torch.softmax(keys @ query / math.sqrt(width) + mask, dim=0)
    torch.testing.assert_close(enriched.attention[head, token], expected)

    values = inner.v_proj(region_tokens).unflatten(-1, (2, width))
    mixed = torch.einsum("hnr,rhd->nhd", enriched.attention, values).flatten(-2)
    torch.testing.assert_close(enriched.tokens, tokens + inner.linear_proj(mixed))


def test_released_variant_is_its_formula_and_ignores_the_mask(attention, points):
    module = attention(region_variant="released", branch_scale=0.1, mask_scale=7.0)
    inner = module.landmarks_cross_attn
    tokens = torch.randn(24, 32)
    region_tokens = module.region_tokens(points)
    mixed, weights = inner.cross_attn.attn(tokens, region_tokens, region_tokens)
    expected = tokens + 0.1 * inner.linear_proj(inner.cross_attn.ln(tokens + mixed))
    enriched = module(tokens[None], points[None])
    torch.testing.assert_close(enriched.tokens[0], expected)
    torch.testing.assert_close(enriched.attention[0].mean(0), weights)


def test_released_variant_has_the_published_names_and_shapes(attention):
    shapes = {
        name: tuple(value.shape)
        for name, value in attention(region_variant="released").state_dict().items()
    }
    points_of = {
        "face": 17,
        "eyebrow1": 5,
        "eyebrow2": 5,
        "nose": 4,
        "nostril": 5,
        "eye1": 6,
        "eye2": 6,
        "lips": 12,
        "teeth": 8,
    }
    expected = {"global_landmarks_projector.weight": (32, 136)}
    expected |= {"global_landmarks_projector.bias": (32,)}
    for name, count in points_of.items():
        expected[f"landmarks_projector.region_layers.{name}.weight"] = (32, 2 * count)
        expected[f"landmarks_projector.region_layers.{name}.bias"] = (32,)
    block = "landmarks_cross_attn."
    expected |= {
        f"{block}cross_attn.attn.in_proj_weight": (96, 32),
        f"{block}cross_attn.attn.in_proj_bias": (96,),
        f"{block}cross_attn.attn.out_proj.weight": (32, 32),
        f"{block}cross_attn.attn.out_proj.bias": (32,),
        f"{block}cross_attn.ln.weight": (32,),
        f"{block}cross_attn.ln.bias": (32,),
        f"{block}linear_proj.weight": (32, 32),
        f"{block}linear_proj.bias": (32,),
        f"{block}ln.weight": (32,),
        f"{block}ln.bias": (32,),
    }
    assert shapes == expected


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_leading_dimensions_are_photos_and_frames(attention, points, variant):
    module = attention(region_variant=variant)
    tokens = torch.randn(2, 3, 24, 32)
    landmarks = points + 0.02 * torch.randn(2, 3, 68, 2)
    enriched = module(tokens, landmarks)
    assert enriched.tokens.shape == (2, 3, 24, 32)
    assert enriched.attention.shape == (2, 3, 8, 24, 9)
    torch.testing.assert_close(enriched.attention.sum(-1), torch.ones(2, 3, 8, 24))
    alone = (
        module(tokens[1, 2], landmarks[1, 2])
        if variant == "paper"
        else module(tokens[1, 2:3], landmarks[1, 2:3])
    )
    torch.testing.assert_close(alone.tokens.squeeze(0), enriched.tokens[1, 2])


def test_a_region_tokens_is_local_plus_global(attention, points):
    module = attention()
    moved = points.clone()
    moved[40, 0] += 0.1  # the right eye
    change = module.region_tokens(moved) - module.region_tokens(points)
    others = [index for index in range(9) if index != RIGHT_EYE]
    torch.testing.assert_close(change[others], change[others[:1]].expand(8, -1))
    assert not torch.allclose(change[RIGHT_EYE], change[0])


def test_standardised_landmarks_enter_the_projections_and_not_the_mask(attention, points):
    plain = attention()
    standard = attention(landmark_mean=points.tolist(), landmark_std=0.05)
    moved = points + 0.01
    torch.testing.assert_close(
        standard.region_tokens(moved), plain.region_tokens((moved - points) / 0.05)
    )
    for module in (plain, standard):
        module.landmarks_cross_attn.q_proj.weight.data.zero_()
        module.landmarks_cross_attn.q_proj.bias.data.zero_()
    tokens = torch.randn(24, 32)
    torch.testing.assert_close(plain(tokens, moved).attention, standard(tokens, moved).attention)


def test_more_mask_means_more_locality(attention, points):
    patch_of_left_eye = 2 * 4 + 2  # of 6 rows by 4 columns
    tokens = torch.randn(24, 32)
    shares = []
    for scale in (0.0, 10.0, 100.0):
        module = attention(mask_scale=scale)
        shares.append(module(tokens, points).attention[:, patch_of_left_eye, LEFT_EYE].mean())
    assert shares[0] < shares[1] < shares[2]
    assert shares[2] > 0.9


def test_half_precision_keeps_the_geometry_exact(attention, points):
    module = attention()
    tokens = torch.randn(24, 32)
    full = module(tokens, points)
    half = module.to(torch.bfloat16)(tokens.to(torch.bfloat16), points)
    assert half.tokens.dtype == torch.bfloat16
    torch.testing.assert_close(half.attention, full.attention, atol=0.05, rtol=0.0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "missing"),
        (torch.zeros(2, 5, 2), r"\(2, 5, 2\)"),
        (torch.zeros(3, 68, 2), "3 frame.* 2"),
        (torch.full((2, 68, 2), math.nan), "nan"),
        (torch.full((2, 68, 2), math.inf), "inf"),
        (torch.full((2, 68, 2), 96.0), "96"),
    ],
)
def test_unusable_landmarks_raise(given, said):
    with pytest.raises(BadModelInput, match=said):
        check_landmarks(given, 2)


def test_one_bad_point_among_good_ones_raises(points):
    broken = points.repeat(2, 1, 1)
    broken[1, 67, 1] = math.nan
    with pytest.raises(BadModelInput, match="nan"):
        check_landmarks(broken, 2)
