"""Hand-made filters beside a trunk's features."""

import numpy as np
import torch

from emfm import EMForSemanticSegmentation, EMFoundationConfig, predict
from emfm.backbones.filters import RESPONSES, filter_reach, filtered, responses

LABELS = {0: "a", 1: "b"}


def test_responses_know_no_direction():
    image = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    turned = responses(torch.rot90(image, 1, (2, 3)))
    torch.testing.assert_close(torch.rot90(responses(image), 1, (2, 3)), turned, atol=1e-5, rtol=1e-5)


def test_responses_are_what_their_names_say():
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    inside = (slice(None), slice(None), slice(16, 48), slice(16, 48))
    slope = responses((0.5 * columns)[None, None])[inside][0]
    torch.testing.assert_close(slope[0], 0.5 * columns[16:48, 16:48], atol=1e-3, rtol=0)  # smoothed: itself
    torch.testing.assert_close(slope[1], torch.full((32, 32), 0.5), atol=5e-3, rtol=0)
    assert slope[2:4].abs().max() < 1e-3 and slope[5].abs().max() < 1e-3  # flat, and edges one way alone
    torch.testing.assert_close(slope[4], torch.full((32, 32), 0.5), atol=5e-3, rtol=0)
    bowl = responses(((rows - 32) ** 2 / 2)[None, None])[inside][0]
    torch.testing.assert_close(bowl[2], torch.ones(32, 32), atol=0.05, rtol=0)
    assert bowl[3].abs().max() < 1e-2


def test_nothing_farther_away_than_the_reach_changes_a_response():
    image = torch.zeros(1, 1, 512, 512)
    before = filtered(image, 6)
    image[..., 256, 256] = 1
    reach = filter_reach(6)
    for level, (one, other) in enumerate(zip(before, filtered(image, 6), strict=True)):
        assert one.shape[1] == RESPONSES
        places = (one - other).abs().amax(dim=(0, 1)).nonzero()
        assert ((places * 2**level - 256).abs() <= reach).all() and len(places)


def test_a_head_with_filters_is_a_model_like_every_other(tmp_path):
    torch.manual_seed(0)
    config = EMFoundationConfig.from_name("unet2-rf44", id2label=LABELS, all_scales=True, filters=True)
    model = EMForSemanticSegmentation(config).eval()
    assert model.class_head.in_channels == sum(model.trunk.channels) + 3 * RESPONSES
    image = torch.randn(1, 1, 50, 66)
    with torch.no_grad():
        torch.testing.assert_close(
            model(image).logits, model.class_head(model.last_features(image)), atol=1e-5, rtol=1e-4
        )
    model.save_pretrained(tmp_path)
    again = EMForSemanticSegmentation.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(again(image).logits, model(image).logits)


def test_its_prediction_in_tiles_equals_that_of_the_whole():
    torch.manual_seed(0)
    fields = {"id2label": LABELS, "all_scales": True, "filters": True, "norm": "batch"}
    model = EMForSemanticSegmentation(EMFoundationConfig.from_name("unet2-rf44", **fields)).eval()
    image = np.random.default_rng(0).normal(100, 20, (90, 400)).astype(np.float32)
    whole, tiled = predict(model, image, tile=400).output, predict(model, image, tile=160).output
    assert (whole != tiled).mean() < 1e-3 and 0.01 < whole.mean() < 0.99
