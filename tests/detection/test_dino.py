"""DINO's three parts each do what they are for, and its weights are those of the authors' checkpoint."""

import itertools
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.ops import box_iou
from transformers import DeformableDetrConfig
from transformers.models.deformable_detr.modeling_deformable_detr import DeformableDetrEncoder, DeformableDetrModel

from cytosynth.annotations import Cell
from cytosynth.data.sources import Sample
from cytosynth.detection import backbones, model
from cytosynth.detection.dino import Dino, boxes, build, denoising, encoder, keys, losses, queries
from cytosynth.detection.dino.denoising import Truth
from cytosynth.detection.dino.sizes import SIZES, Sizes
from cytosynth.detection.recipe import DetectorRecipe, preset
from cytosynth.detection.train import DetectorTask
from cytosynth.errors import UserError
from cytosynth.training.optimizer import build as build_optimizer

TINY = Sizes(
    width=64, heads=4, feedforward=32, levels=2, encoder_layers=1, decoder_layers=3, queries=20, denoising=6,
    encoder_points=2,
)  # fmt: skip
BOXES = torch.tensor([[0.3, 0.4, 0.2, 0.1], [0.6, 0.5, 0.1, 0.3], [0.5, 0.7, 0.2, 0.2]])


def tiny(categories: int = 3) -> Dino:
    """Return a tiny DINO with all weights away from zero, so that everything that could flow does."""
    torch.manual_seed(0)
    network = Dino(backbones.load("small"), categories, False, TINY)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "embed" in name or "sampling" in name or "attention_weights" in name:
                parameter += 0.1 * torch.randn_like(parameter)
    return network


def target(*labels: int) -> dict[str, Tensor]:
    return {"boxes": boxes.pixels(BOXES, (96, 96))[: len(labels)], "labels": torch.tensor(labels, dtype=torch.int64)}


def truth(*labels: int) -> Truth:
    return Truth(torch.tensor(labels, dtype=torch.int64), BOXES[: len(labels)])


def decoded(network: Dino, noise: denoising.Noised, seed: int = 0) -> tuple[Tensor, Tensor, int]:
    """Return what the decoder makes of one random image and `noise`, and how many queries are denoising ones."""
    image = torch.rand(3, 96, 96, generator=torch.Generator().manual_seed(seed))
    tokens, grid = network.encoder(network.feature_maps([image], [(96, 96)]), [(96, 96)])
    found = network.selection(tokens, grid)
    content = torch.cat([network.label_embed(noise.labels), found.content], dim=1)
    references = torch.cat([noise.boxes, found.references], dim=1)
    classes, said = network.decoder(content, references, denoising.seen(noise, found.real), tokens, grid)
    return classes, said, noise.labels.shape[1]


# Contrastive denoising.


def test_matching_queries_do_not_see_the_truth_that_denoising_queries_carry() -> None:
    network = tiny()
    one = denoising.noised([truth(0, 1, 2)], 3, 6)
    assert one is not None
    other = one._replace(labels=(one.labels + 1) % 3, boxes=one.boxes.flip(1))
    classes, found, first = decoded(network, one)
    others, elsewhere, _ = decoded(network, other)
    assert torch.equal(classes[:, :, first:], others[:, :, first:])
    assert torch.equal(found[:, :, first:], elsewhere[:, :, first:])
    assert not torch.allclose(classes[:, :, :first], others[:, :, :first])


def test_denoising_groups_do_not_see_each_other_but_see_the_image() -> None:
    network = tiny()
    noise = denoising.noised([truth(0, 1, 2)], 3, 6)
    assert noise is not None
    assert (noise.groups, noise.size) == (2, 3)
    moved = noise.boxes.clone()
    moved[:, 0] += 0.1  # the first query of the first group
    classes, _, _ = decoded(network, noise)
    others, _, _ = decoded(network, noise._replace(boxes=moved))
    changed = (classes - others).abs().amax(dim=(0, 1, 3)) > 1e-6
    assert changed[:6].all(), "the whole group sees it"
    assert not changed[6:].any(), "no other group, and no matching query, does"
    elsewhere, _, first = decoded(network, noise, seed=1)
    assert not torch.allclose(classes[:, :, :first], elsewhere[:, :, :first])


def test_positives_stay_within_the_first_noise_scale_and_negatives_between_both() -> None:
    torch.manual_seed(0)
    noise = denoising.noised([truth(0, 1, 2), truth(1)], 3, 600)
    assert noise is not None
    half = BOXES[:, 2:].repeat(1, 2) / 2
    moves = (boxes.corners(noise.boxes[0].reshape(-1, 2, 3, 4)) - boxes.corners(BOXES)).abs() / half
    assert moves[:, 0].max() <= denoising.NEAR + 1e-5
    assert moves[:, 0].max() > 0.99 * denoising.NEAR
    assert moves[:, 1].min() >= denoising.NEAR - 1e-5
    assert moves[:, 1].max() <= denoising.FAR + 1e-5
    assert moves[:, 1].max() > 0.99 * denoising.FAR
    wrong = (noise.labels[0].reshape(-1, 3) != torch.tensor([0, 1, 2])).float().mean()
    assert wrong == pytest.approx(denoising.WRONG_LABELS / 2 * 2 / 3, abs=0.03), "a random label is right by chance"
    assert noise.real[1].reshape(-1, 3).eq(torch.tensor([True, False, False])).all()


def test_positives_recover_their_object_and_negatives_are_none() -> None:
    """Against the formulas written out: focal loss over all real queries, boxes over the positives alone."""
    torch.manual_seed(1)
    images = [truth(0, 2, 1), truth(2)]
    noise = denoising.noised(images, 3, 6)
    assert noise is not None
    logits, found = torch.randn(2, 12, 3), torch.rand(2, 12, 4) * 0.3 + 0.3
    ours = losses.denoised(logits, found, noise, images)
    classification = l1 = 0.0
    for image, group, kind, place in itertools.product(range(2), range(2), range(2), range(3)):
        if place >= len(images[image].labels):
            continue
        index = group * 6 + kind * 3 + place
        for category, logit in enumerate(logits[image, index]):
            p = float(logit.sigmoid())
            positive = kind == 0 and category == images[image].labels[place]
            term = -0.25 * (1 - p) ** 2 * np.log(p) if positive else -0.75 * p**2 * np.log(1 - p)
            classification += float(term)
        if kind == 0:
            l1 += float((found[image, index] - BOXES[place]).abs().sum())
    assert float(ours["classification"]) == pytest.approx(classification / 8, rel=1e-4)
    assert float(ours["l1"]) == pytest.approx(5 * l1 / 8, rel=1e-4)


# Look forward twice.


def test_the_box_of_a_layer_teaches_the_layer_before_and_no_earlier_one() -> None:
    network = tiny()
    noise = denoising.noised([truth(0)], 3, 1)
    assert noise is not None
    for layer in network.decoder.layers:  # what flows on through the content of queries is cut
        layer.register_forward_pre_hook(lambda _, given: (given[0].detach(), *given[1:]))
    _, found, first = decoded(network, noise)
    weight = [layer.mlp.fc2.weight for layer in network.decoder.layers]
    gradients = torch.autograd.grad(found[2, :, first:].sum(), weight, allow_unused=True)
    assert gradients[0] is None or gradients[0].abs().max() == 0, "b_0 goes into layer 2 without gradient"
    assert gradients[1] is not None
    assert gradients[1].abs().max() > 0, "the box head of layer 1 learns from the box of layer 2"
    assert gradients[2] is not None
    assert gradients[2].abs().max() > 0


# Mixed query selection.


def test_content_is_learnt_and_positions_are_the_encoders_best() -> None:
    network = tiny()
    images = [torch.rand(3, 96, 96), torch.rand(3, 96, 96)]
    tokens, grid = network.encoder(network.feature_maps(images, [(96, 96)] * 2), [(96, 96)] * 2)
    found = network.selection(tokens, grid)
    assert torch.equal(found.content[0], found.content[1])
    assert torch.equal(found.content[0], network.selection.content.weight)
    assert not torch.allclose(found.references[0], found.references[1])
    assert not found.references.requires_grad
    part = network.selection
    proposals, valid = queries.propose(grid)
    every = part.class_embed(part.enc_output_norm(part.enc_output(tokens * valid[..., None])))
    boxes_of_all = part.enc_output_norm(part.enc_output(tokens * valid[..., None]))
    moved = (part.bbox_embed(boxes_of_all) + torch.logit(proposals)).sigmoid()
    for image in range(2):
        order = every[image].amax(dim=1).where(valid[image], -torch.inf).argsort(descending=True)[:20]
        assert torch.allclose(found.references[image], moved[image, order], atol=1e-5)
    found.boxes.sum().backward()
    assert part.content.weight.grad is None
    assert part.enc_output.weight.grad.abs().max() > 0


# Against transformers, which has the same pieces under other names.


def test_grid_proposals_and_waves_equal_transformers() -> None:
    sizes, shapes = [(64, 96), (96, 64)], [(12, 12), (6, 6)]
    grid = encoder.grid(sizes, shapes, torch.device("cpu"))
    reference = DeformableDetrEncoder.get_reference_points(tuple(shapes), grid.ratios, torch.device("cpu"))
    assert torch.allclose(grid.centres[:, :, None] * grid.ratios[:, None], reference, atol=1e-6)
    stand_in = SimpleNamespace(enc_output=torch.nn.Identity(), enc_output_norm=torch.nn.Identity())
    _, theirs = DeformableDetrModel.gen_encoder_output_proposals(stand_in, torch.ones(2, 180, 8), ~grid.real, shapes)
    ours, valid = queries.propose(grid)
    assert torch.equal(valid, theirs.isfinite().all(dim=-1))
    assert torch.allclose(ours[valid], theirs[valid].sigmoid(), atol=1e-6)
    stand_in = SimpleNamespace(config=DeformableDetrConfig(d_model=64))
    waves = DeformableDetrModel.get_proposal_pos_embed(stand_in, torch.logit(BOXES)[None])
    assert torch.allclose(boxes.sine(BOXES, 32, 10_000.0), waves[0], atol=1e-5)


# Matching and losses.


def test_matching_is_the_cheapest_of_all_assignments() -> None:
    torch.manual_seed(2)
    logits, found, image = torch.randn(5, 3), torch.rand(5, 4) * 0.3 + 0.3, truth(0, 2, 1)
    real = torch.tensor([True, True, False, True, True])
    p = logits.sigmoid()
    focal = 0.25 * (1 - p) ** 2 * -p.log() - 0.75 * p**2 * -(1 - p).log()
    iou = box_iou(boxes.corners(found), boxes.corners(BOXES))

    def cost(query: int, item: int) -> float:
        a, b = boxes.corners(found[query]), boxes.corners(BOXES[item])
        hull = (torch.maximum(a[2:], b[2:]) - torch.minimum(a[:2], b[:2])).prod()
        union = (a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod()
        union = union / (1 + iou[query, item])
        giou = iou[query, item] - (hull - union) / hull
        l1 = (found[query] - BOXES[item]).abs().sum()
        return float(2 * focal[query, image.labels[item]] + 5 * l1 - 2 * giou)

    best = min(itertools.permutations([0, 1, 3, 4], 3), key=lambda chosen: sum(map(cost, chosen, range(3))))
    matched, items = losses.match(logits, found, real, image)
    assert dict(zip(items.tolist(), matched.tolist(), strict=True)) == dict(enumerate(best))


def test_losses_of_every_layer_count_and_all_weights_learn() -> None:
    network = tiny().train()
    said = network([torch.rand(3, 96, 96), torch.rand(3, 96, 96)], [target(1, 3), target(2)])
    assert set(said) == {
        f"{part}_{name}" for part in ("encoder", "decoder", "denoising") for name in ("classification", "l1", "giou")
    }
    torch.stack(list(said.values())).sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
    network.zero_grad()
    empty = network([torch.rand(3, 96, 96)], [target()])
    total = torch.stack(list(empty.values())).sum()
    total.backward()
    assert total.isfinite()
    assert all(p.grad is not None for p in network.parameters())
    assert float(empty["decoder_l1"].detach()) == 0
    assert float(empty["decoder_classification"].detach()) > 0


# Batches.


def test_what_is_found_does_not_depend_on_the_rest_of_the_batch() -> None:
    network = tiny().eval()
    torch.nn.init.constant_(network.decoder.class_embed.bias, 0.0)
    sizes = [(96, 96), (60, 131), (21, 30), (96, 96), (7, 5)]
    images = [torch.rand(3, *size) for size in sizes]
    with torch.no_grad():
        together = network(images)
        alone = [network([image])[0] for image in images]
    assert len(together[0]["scores"]) == 60
    assert 0 < len(together[2]["scores"]) < 60, "fewer tokens than queries"
    for a, b, (height, width) in zip(together, alone, sizes, strict=True):
        assert torch.equal(a["labels"], b["labels"])
        assert torch.allclose(a["scores"], b["scores"], atol=1e-4)
        assert torch.allclose(a["boxes"], b["boxes"], atol=1e-2)
        assert a["boxes"].min() >= 0
        assert a["boxes"][:, [0, 2]].max() <= width
        assert a["boxes"][:, [1, 3]].max() <= height


def test_training_losses_of_unequal_images_are_the_means_of_each_alone() -> None:
    network = tiny().train()
    images, targets = [torch.rand(3, 96, 96), torch.rand(3, 64, 80)], [target(1, 3), target(2)]
    with torch.no_grad():
        together = network(images, targets)
        first, second = (network([i], [t]) for i, t in zip(images, targets, strict=True))
    for name in ("encoder_l1", "decoder_classification", "decoder_giou"):
        assert float(together[name]) == pytest.approx((2 * float(first[name]) + float(second[name])) / 3, rel=1e-4)


# The authors' checkpoint.


def published(classes: int = 91) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of all tensors of checkpoint0011_4scale.pth, as the authors' public code makes them."""
    found: dict[str, tuple[int, ...]] = {}

    def add(name: str, *shape: int) -> None:
        found[f"{name}.weight"] = shape
        found[f"{name}.bias"] = shape[:1]

    def norm(name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            found[f"{name}.{part}"] = (channels,)

    def deformable(name: str) -> None:
        add(f"{name}.sampling_offsets", 8 * 4 * 4 * 2, 256)
        add(f"{name}.attention_weights", 8 * 4 * 4, 256)
        add(f"{name}.value_proj", 256, 256)
        add(f"{name}.output_proj", 256, 256)

    def mlp(name: str, *widths: int) -> None:
        for index, (before, after) in enumerate(itertools.pairwise(widths)):
            add(f"{name}.layers.{index}", after, before)

    found["transformer.level_embed"] = (4, 256)
    for side, attention, norms in (("encoder", "self_attn", 2), ("decoder", "cross_attn", 3)):
        for number in range(6):
            layer = f"transformer.{side}.layers.{number}"
            deformable(f"{layer}.{attention}")
            for index in range(norms):
                add(f"{layer}.norm{index + 1}", 256)
            add(f"{layer}.linear1", 2048, 256)
            add(f"{layer}.linear2", 256, 2048)
            if side == "decoder":
                found[f"{layer}.self_attn.in_proj_weight"] = (768, 256)
                found[f"{layer}.self_attn.in_proj_bias"] = (768,)
                add(f"{layer}.self_attn.out_proj", 256, 256)
    add("transformer.decoder.norm", 256)
    mlp("transformer.decoder.ref_point_head", 512, 256, 256)
    for prefix in ("transformer.decoder.", ""):
        for number in range(6):
            mlp(f"{prefix}bbox_embed.{number}", 256, 256, 256, 4)
            add(f"{prefix}class_embed.{number}", classes, 256)
    found["transformer.tgt_embed.weight"] = (900, 256)
    add("transformer.enc_output", 256, 256)
    add("transformer.enc_output_norm", 256)
    mlp("transformer.enc_out_bbox_embed", 256, 256, 256, 4)
    add("transformer.enc_out_class_embed", classes, 256)
    found["label_enc.weight"] = (classes + 1, 256)
    for level, (channels, kernel) in enumerate(((512, 1), (1024, 1), (2048, 1), (2048, 3))):
        add(f"input_proj.{level}.0", 256, channels, kernel, kernel)
        add(f"input_proj.{level}.1", 256)
    body = "backbone.0.body"
    found[f"{body}.conv1.weight"] = (64, 3, 7, 7)
    norm(f"{body}.bn1", 64)
    before = 64
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 1):
        for number in range(blocks):
            block = f"{body}.layer{stage}.{number}"
            shapes = ((width, before, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1))
            for index, shape in enumerate(shapes, 1):
                found[f"{block}.conv{index}.weight"] = shape
                norm(f"{block}.bn{index}", shape[0])
            if number == 0:
                found[f"{block}.downsample.0.weight"] = (4 * width, before, 1, 1)
                norm(f"{block}.downsample.1", 4 * width)
            before = 4 * width
    return found


def checkpoint(classes: int = 91, seed: int = 0) -> dict[str, Tensor]:
    """Return random weights with the authors' names; their shared heads are one here too."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for name, shape in published(classes).items():
        state[name] = 0.01 * torch.randn(shape, generator=generator)
        shared = re.match(r"(?:transformer\.decoder\.)?((?:class|bbox)_embed)\.\d\.(.*)", name)
        if shared:
            state[name] = state[f"transformer.decoder.{shared[1]}.0.{shared[2]}"].clone()
    return state


def test_every_weight_of_the_public_checkpoint_has_its_place_and_size() -> None:
    with torch.device("meta"):
        network = build("resnet50", 91, pretrained=True)
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    reached: dict[str, tuple[int, ...]] = {}
    for name, shape in published().items():
        names = keys.ours(name)
        assert names, name
        for ours in names:
            part = (shape[0] // len(names), *shape[1:])
            assert reached.setdefault(ours, part) == part
    assert reached == wanted
    trained = [value for value in network.parameters() if value.requires_grad]
    assert sum(value.numel() for value in trained) == 46_670_782, "as the authors' log of R50 4-scale says"
    assert SIZES["large"].queries == 900
    assert keys.ours("transformer.refpoint_embed.weight") == []


def test_a_converted_checkpoint_is_loaded_whole_or_but_for_its_categories(tmp_path: Path) -> None:
    state = checkpoint()
    path = tmp_path / "dino.safetensors"
    save_file(state, path)
    network = build("resnet50", 91, pretrained=True)
    assert network.start(str(path)) == "all layers are initialised from DINO's weights except: none"
    layer = network.decoder.layers[2]
    projection = state["transformer.decoder.layers.2.self_attn.in_proj_weight"]
    assert torch.equal(layer.self_attn.k_proj.weight, projection[256:512])
    assert torch.equal(layer.self_attn.v_proj.weight, projection[512:])
    assert torch.equal(layer.encoder_attn_layer_norm.weight, state["transformer.decoder.layers.2.norm1.weight"])
    assert torch.equal(network.backbone.body.layer4[2].conv3.weight, state["backbone.0.body.layer4.2.conv3.weight"])

    recipe = DetectorRecipe(architecture="dino", weights=str(path), categories=["NILM", "LSIL"])
    task = DetectorTask(recipe, [], [])
    fresh = build("resnet50", 2, pretrained=True)
    said = fresh.start(str(path))
    assert "decoder.class_embed.weight" in said
    assert "depend on the number of categories (2)" in said
    assert task.network.decoder.class_embed.weight.shape == (2, 256)
    assert torch.equal(task.network.selection.content.weight, state["transformer.tgt_embed.weight"])
    rates = {factor: len(group) for group, factor in task.groups()}
    assert set(rates) == {1.0, 0.1}
    optimizer = build_optimizer(preset("paper", "dino"), task.groups())
    slow = {id(p) for group in optimizer.param_groups if group["factor"] == 0.1 for p in group["params"]}
    assert slow == {id(p) for p in task.network.backbone.parameters() if p.requires_grad}


def test_other_checkpoints_are_refused(tmp_path: Path) -> None:
    with torch.device("meta"):
        network = build("resnet50", 91, pretrained=True)
    state = {name: torch.empty(shape, device="meta") for name, shape in published().items()}

    def refused(change: dict[str, Any], match: str) -> None:
        other = {name: value for name, value in {**state, **change}.items() if value is not None}
        with pytest.raises(UserError, match=match):
            keys.start(network, other, "x.safetensors")

    single = {name: value for name, value in state.items() if not keys.ours(name)[0].startswith(("decoder.class_embed",
              "decoder.bbox_embed"))}  # fmt: skip
    with pytest.raises(UserError, match=r"decoder\.class_embed\.weight is missing, should be \(91, 256\)"):
        keys.start(network, single, "x.safetensors")
    state = single | {name: value for name, value in state.items() if "_embed.0." in name and "decoder" in name}
    refused({"transformer.patterns.weight": torch.zeros(1)}, r"patterns\.weight: not a weight of DINO R50 4-scale")
    refused(
        {"transformer.level_embed": torch.empty(5, 256)}, r"encoder\.level_embed is \(5, 256\), should be \(4, 256\)"
    )
    unequal = {f"class_embed.{n}.bias": torch.full((91,), float(n)) for n in range(2)}
    unequal["transformer.decoder.class_embed.0.bias"] = torch.zeros(91)
    refused(unequal, "a head of its own for each layer")
    (tmp_path / "checkpoint0011_4scale.pth").write_bytes(b"pickle")
    with pytest.raises(UserError, match="a pickle can run code"):
        network.start(str(tmp_path / "checkpoint0011_4scale.pth"))


# Use.


def test_large_images_are_read_in_windows_of_the_training_size(tmp_path: Path) -> None:
    """Boxes are fractions of the image, so that a network trained on windows must be shown windows."""
    image = Sample("a.png", "x", np.zeros((96, 96, 3), np.uint8), (Cell((10.0, 10.0, 30.0, 30.0), "NILM"),))
    task = DetectorTask(DetectorRecipe(architecture="dino", backbone="small", window=96), [image], [])
    model.save(task.network, task.config, tmp_path)
    detector = model.load(tmp_path)
    shapes: list[tuple[int, ...]] = []
    detector.network.register_forward_pre_hook(lambda _, given: shapes.append(tuple(given[0][0].shape)))
    detector.find(np.zeros((150, 200, 3), np.uint8))
    assert set(shapes) == {(3, 96, 96)}
    assert len(shapes) > 4
    whole = DetectorTask(DetectorRecipe(architecture="retinanet", backbone="small", window=96), [image], [])
    assert whole.config.tile == model.TILE


def test_the_papers_settings() -> None:
    """Section IV-C: AdamW at 1e-4, batch 2, 20 epochs."""
    recipe = preset("paper", "dino")
    assert (recipe.optimizer, recipe.learning_rate, recipe.batch_size, recipe.epochs) == ("adamw", 1e-4, 2, 20)
    assert recipe.backbone == "resnet50"
