"""Each mechanism of RefT against a plain formula: one that is off, constant or shifted fails here."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

import torch
import torch.nn.functional as F
from torch import nn

from benchsuite_reft import distillation, losses, training
from benchsuite_reft.config import Mask2FormerConfig, RefTConfig
from benchsuite_reft.images import Pictures, View, jittered, normalised
from benchsuite_reft.inference import instances_of
from benchsuite_reft.method import build_model
from benchsuite_reft.mini import MiniMask2Former, _attendable
from benchsuite_reft.model import Prediction, ReferenceOptions, RefT
from benchsuite_reft.network import CosineHead, Decoded, to_cosine, with_novel_rows
from benchsuite_reft.references import DynamicWeighting, LinkLogits, QueryLink, References, Shots
from benchsuite_reft.training import BaseTeacher, Stage, Step, base_draw, gradient_step, step_generator, tune_draw

CPU = torch.device("cpu")


def close(found, expected, atol=1e-5):
    return torch.allclose(torch.as_tensor(found), torch.as_tensor(expected), rtol=0, atol=atol)


def shaken(module, scale=0.3):
    """Return a module with all its parameters moved away from where they start."""
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return module


def by_torch(attention, output):
    """Return torch's own attention with the same weights."""
    width = output.in_features
    oracle = nn.MultiheadAttention(width, attention.heads, batch_first=True)
    layers = (attention.query, attention.key, attention.value)
    with torch.no_grad():
        oracle.in_proj_weight.copy_(torch.cat([layer.weight for layer in layers]))
        oracle.in_proj_bias.copy_(torch.cat([layer.bias for layer in layers]))
        oracle.out_proj.load_state_dict(output.state_dict())
    return lambda queries, memory: oracle(queries, memory, memory, need_weights=False)[0]


def references_of(model, classes=4, per_class=2, seed=3):
    torch.manual_seed(seed)
    width = model.network.width
    centres = tuple(torch.randn(classes, width) for _ in range(model.network.levels))
    labels = torch.arange(classes).repeat_interleave(per_class)
    return References(centres, torch.randn(len(labels), width), labels)


def view_of(*labels, size=64, seed=0):
    """Return a random image whose objects are squares."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(len(labels), size, size, dtype=torch.bool)
    for number in range(len(labels)):
        masks[number, 8 + 20 * number : 24 + 20 * number, 4:24] = True
    image = torch.randint(0, 255, (3, size, size), dtype=torch.uint8, generator=generator)
    return View(image, torch.tensor(labels, dtype=torch.int64), masks)


@dataclass
class SomePictures:
    """Images in memory, with what drawing needs of `Pictures`."""

    views: list[View]
    classes: int
    labels: dict[int, int] = field(init=False)

    def __post_init__(self):
        self.labels = {10 + label: label for label in range(self.classes)}

    def __len__(self):
        return len(self.views)

    def fitted(self, number, size):
        return self.views[number]

    def original(self, number):
        return self.views[number]

    def instances_by_label(self):
        found = {label: [] for label in range(self.classes)}
        for number, view in enumerate(self.views):
            for place, label in enumerate(view.labels.tolist()):
                found[label].append((number, place))
        return found


def pictures_of(images=24, classes=8):
    return SomePictures([view_of(n % classes, (n + 3) % classes, seed=n) for n in range(images)], classes)


class TestFirstReference:
    def block(self, mode="gate"):
        torch.manual_seed(0)
        return shaken(DynamicWeighting(16, 4, mode))

    @pytest.mark.parametrize("mode", ["gate", "add"])
    def test_cells_change_by_what_they_find_among_the_centres(self, mode):
        block = self.block(mode)
        x, centres = torch.randn(2, 16, 3, 5), torch.randn(6, 16)
        cells = x.flatten(2).transpose(1, 2)
        found = by_torch(block.attention, block.output)(cells, centres.expand(2, -1, -1))
        found = found.transpose(1, 2).unflatten(2, (3, 5))
        assert close(block(x, centres), x * (1 + found) if mode == "gate" else x + found)

    def test_own_centres_are_not_those_of_other_images(self):
        x, centres = torch.randn(2, 16, 4, 4), torch.randn(2, 1, 16)
        both = self.block()(x, centres)
        for number in range(2):
            assert close(both[number], self.block()(x[number : number + 1], centres[number])[0])

    def test_maps_and_masks_and_classes_of_an_image_follow_the_centres(self):
        model = build_model(RefTConfig(), 4).eval()
        shaken(model.weighting)
        images, one = torch.randn(1, 3, 64, 64), references_of(model)
        two = References(references_of(model, seed=4).centres, one.tokens, one.token_labels)
        with torch.no_grad():
            first, second = model(images, one), model(images, two)
        assert not close(first.decoded.mask_logits[0], second.decoded.mask_logits[0], 1e-2)
        assert not close(first.class_logits, second.class_logits, 1e-2)

    def test_mask_features_are_made_from_re_weighted_maps(self):
        torch.manual_seed(0)
        network = MiniMask2Former(3).eval()
        network._decode = lambda pyramid, mask_features, projected, cells: mask_features
        images = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            plain, doubled = network(images), network(images, lambda levels: [2 * level for level in levels])
        assert not close(plain, doubled, 1e-2)


class TestSupportBranch:
    def model(self, **options):
        torch.manual_seed(0)
        network = MiniMask2Former(4)
        return RefT(network, ReferenceOptions(**options)).eval()

    def supports(self, count=3):
        views = [view_of(0, seed=n) for n in range(count)]
        return normalised([view.image for view in views], CPU), torch.cat([view.masks for view in views])

    def test_each_support_image_is_re_weighted_by_its_own_centre(self):
        model, seen = self.model(), []
        shaken(model.weighting)
        for block in model.weighting:
            block.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[1]))
        images, masks = self.supports()
        with torch.no_grad():
            shots = model.support(images, masks)
            identity = self.model().support(images, masks)
            alone = model.support(images[:1], masks[:1])
        assert [tuple(centres.shape) for centres in seen[:3]] == [(3, 1, 64)] * 3
        assert all(torch.equal(a[:, 0], b) for a, b in zip(seen, shots.centres, strict=False))
        assert not close(shots.tokens, identity.tokens, 1e-2)
        assert close(shots.tokens[:1], alone.tokens, 1e-3)

    def test_the_temperature_is_that_of_the_settings(self):
        images, masks = self.supports()
        with torch.no_grad():
            sharp, flat = (self.model(temperature=t).support(images, masks).centres for t in (0.1, 1e6))
            model = build_model(RefTConfig(temperature=1e6), 4).eval()
            model.load_state_dict(self.model().state_dict())
            built = model.support(images, masks).centres
        assert not close(sharp[0], flat[0], 1e-2)
        assert close(built[0], flat[0])

    def test_tokens_are_queries_of_the_last_prediction(self):
        model = self.model(queries_per_shot=2)
        images, masks = self.supports()
        with torch.no_grad():
            tokens, decoded = model.support(images, masks).tokens, model.network(images)
        assert tokens.shape == (3, 2, 64)
        for states, among in ((decoded.states[-1], True), (decoded.states[0], False)):
            nearest = torch.cdist(tokens, states).amin(dim=2)
            assert bool((nearest < 1e-3).all()) is among

    def test_tokens_are_all_or_the_mean_of_each_class(self):
        images, masks = self.supports()
        labels = torch.tensor([1, 0, 1])
        with torch.no_grad():
            every = self.model(queries_per_shot=2).references(images, masks, labels, [0, 1])
            mean = self.model(queries_per_shot=2, tokens="mean").references(images, masks, labels, [0, 1])
        assert every.token_labels.tolist() == [1, 1, 0, 0, 1, 1]
        assert mean.token_labels.tolist() == [0, 1]
        for label in (0, 1):
            assert close(mean.tokens[label], every.tokens[every.token_labels == label].mean(dim=0))

    def test_several_queries_of_a_shot_keep_their_class(self):
        shots = Shots((torch.zeros(2, 1),), torch.arange(6.0).reshape(2, 3, 1))
        found = shots.by_class(torch.tensor([4, 7]), [4, 7])
        assert found.token_labels.tolist() == [4, 4, 4, 7, 7, 7]
        assert found.tokens.flatten().tolist() == [0, 1, 2, 3, 4, 5]


class TestSecondReference:
    def test_queries_attend_to_the_tokens_in_a_pre_norm_block(self):
        torch.manual_seed(0)
        link = shaken(QueryLink(16, 4))
        states, tokens = torch.randn(2, 5, 16), torch.randn(7, 16)
        attend = by_torch(link.attention, link.output)
        linked = states + attend(link.norm_queries(states), link.norm_tokens(tokens).expand(2, -1, -1))
        expected = linked + link.hidden_output(F.relu(link.hidden(link.norm_hidden(linked))))
        assert close(link(states, tokens), expected)
        assert not close(linked, states, 1e-1)
        assert not close(linked, expected, 1e-1)

    def test_the_class_head_sees_linked_queries_of_every_prediction_and_the_mask_head_does_not(self):
        model = build_model(RefTConfig(), 4).eval()
        shaken(model.link)
        images, refs = torch.randn(2, 3, 64, 64), references_of(model)
        with torch.no_grad():
            found, plain = model(images, refs), model(images)
            states = found.decoded.states
            expected = torch.stack([model.network.head(model.link(layer, refs.tokens)) for layer in states])
        assert close(found.class_logits, expected)
        assert (found.class_logits - plain.class_logits).abs().amax(dim=(1, 2, 3)).min() > 1e-2
        for linked, unlinked in zip(found.decoded.mask_logits, plain.decoded.mask_logits, strict=True):
            assert close(linked, unlinked)

    def test_link_logits_are_mean_likeness_and_leave_no_object_alone(self):
        torch.manual_seed(0)
        model = build_model(RefTConfig(link_logits=True), 4).eval()
        refs = references_of(model, per_class=3)
        with torch.no_grad():
            found = model(torch.randn(1, 3, 64, 64), refs)
            plain = model.network.head(found.decoded.states)
        likeness = F.cosine_similarity(found.decoded.states[..., None, :], refs.tokens, dim=-1)
        assert close(
            found.class_logits[..., :4] - plain[..., :4], 5 * likeness.unflatten(-1, (4, 3)).mean(dim=-1), 1e-4
        )
        assert close(found.class_logits[..., 4], plain[..., 4])
        assert model.link_logits.scale.requires_grad

    def test_plain_reft_has_no_link_logits(self):
        assert not any(isinstance(module, LinkLogits) for module in build_model(RefTConfig(), 4).modules())


class TestSmallNetwork:
    def test_queries_attend_inside_their_masks_and_everywhere_if_these_are_empty(self):
        logits = torch.full((1, 2, 4, 4), -5.0)
        logits[0, 0, :2, :2] = 5.0
        allowed = _attendable(logits, (2, 2))
        assert allowed[0].tolist() == [[True, False, False, False], [True] * 4]

    def test_keys_know_where_they_are(self):
        torch.manual_seed(0)
        network, seen = MiniMask2Former(3).eval(), []
        network.layers[0].cross.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs))
        with torch.no_grad():
            network(torch.randn(1, 3, 64, 64))
        _, keys, values, allowed = seen[0]
        assert not allowed.all()
        positions = (keys - values)[0]  # (hw, d) of the coarsest level
        assert torch.unique(positions.round(decimals=3), dim=0).shape[0] == 16

    def test_given_cells_are_taken(self):
        model = build_model(RefTConfig(), 3).eval()
        images, cells = torch.randn(2, 3, 64, 64), torch.arange(12).expand(2, -1)
        with torch.no_grad():
            for refs in (None, references_of(model)):
                assert torch.equal(model(images, refs, cells).decoded.cells, cells)


# --- losses ----------------------------------------------------------------------------------------------------------


def constant(class_logits, values, size=16):
    """Return class logits (P, B, N, C + 1) and masks that have one value (P, B, N) everywhere."""
    maps = torch.as_tensor(values)[..., None, None].expand(*torch.as_tensor(values).shape, size, size)
    states = torch.zeros(*class_logits.shape[:3], 4)
    return class_logits, Decoded(states, tuple(maps.unbind(0)), ())


def everywhere(*labels, size=16, inside=True):
    masks = torch.full((len(labels), size, size), inside)
    return losses.Target(torch.tensor(labels, dtype=torch.int64), masks)


def softplus(x):
    return math.log1p(math.exp(x))


def dice_of(value, points, true=1.0):
    p = 1 / (1 + math.exp(-value))
    return 1 - (2 * points * p * true + 1) / (points * p + points * true + 1)


@pytest.fixture
def inner_points(monkeypatch):
    """Draw points away from the border, where samples of a constant map are that constant."""
    draw = torch.rand
    monkeypatch.setattr(torch, "rand", lambda *shape, generator: 0.25 + 0.5 * draw(*shape, generator=generator))


class TestLosses:
    def test_costs_of_matching_are_those_of_all_three_terms(self):
        torch.manual_seed(0)
        logits, values, true = torch.randn(5, 4), 2 * torch.randn(5, 30), (torch.rand(3, 30) > 0.5).float()
        labels = torch.tensor([2, 0, 1])
        found = losses.pairwise_costs(logits, values, labels, true)
        for query in range(5):
            for number in range(3):
                likely = logits[query].softmax(0)[labels[number]]
                entropy = F.binary_cross_entropy_with_logits(values[query], true[number])
                p = values[query].sigmoid()
                dice = 1 - (2 * (p * true[number]).sum() + 1) / (p.sum() + true[number].sum() + 1)
                assert close(found[query, number], -2 * likely + 5 * entropy + 5 * dice)

    @pytest.mark.usefixtures("inner_points")
    def test_the_loss_is_that_of_classes_masks_and_overlap_of_every_prediction(self):
        values = torch.tensor([[[2.0, -3.0]], [[1.0, -3.0]]])  # two predictions, one image, two queries
        logits = torch.tensor([[[[1.0, 0.0, 0.0], [0.0, 0.0, 2.0]]], [[[3.0, 0.0, 0.0], [0.0, 0.0, 1.0]]]])
        targets = [everywhere(0)]
        normaliser = losses.Normaliser.of(targets, 2)
        assert (normaliser.objects, normaliser.queries) == (1, pytest.approx(1.1))
        loss, matching = losses.set_loss(*constant(logits, values), targets, normaliser, 40, [step_generator(0, 0)])
        assert matching.query.tolist() == [0]
        of_class = -(logits[:, 0, 0].log_softmax(1)[:, 0] + 0.1 * logits[:, 0, 1].log_softmax(1)[:, 2]).sum() / 1.1
        entropy, dice = (sum(f(v) for v in (2.0, 1.0)) for f in (lambda v: softplus(-v), lambda v: dice_of(v, 40)))
        assert loss == pytest.approx(float(2 * of_class + 5 * entropy + 5 * dice), abs=1e-4)

    @pytest.mark.usefixtures("inner_points")
    def test_masks_are_averaged_over_points_and_over_the_objects_of_the_batch(self):
        values = torch.tensor([[[2.0, 1.0]]])
        targets = [everywhere(0, 1)]
        matching = losses.Matching(*(torch.tensor(x) for x in ([0, 0], [0, 0], [0, 1], [0, 1])))
        maps = values.transpose(0, 1)[..., None, None].expand(1, 1, 2, 16, 16)
        found = losses.mask_losses(maps, matching, targets, losses.Normaliser(2, 1.0), 40, [step_generator(0, 0)])
        expected = [sum(f(v) for v in (2.0, 1.0)) / 2 for f in (lambda v: softplus(-v), lambda v: dice_of(v, 40))]
        assert [float(x) for x in found] == pytest.approx(expected, abs=1e-4)

    @pytest.mark.usefixtures("inner_points")
    def test_objects_are_those_of_their_own_image(self):
        targets = [everywhere(0), everywhere(1, inside=False)]
        matching = losses.Matching(*(torch.tensor(x) for x in ([0, 0], [0, 1], [0, 0], [0, 0])))
        maps = torch.tensor([9.0, -9.0])[:, None, None, None, None].expand(2, 1, 1, 16, 16)
        entropy, _ = losses.mask_losses(
            maps, matching, targets, losses.Normaliser(2, 1.0), 40, [step_generator(0, n) for n in (0, 1)]
        )
        assert entropy < 1e-3
        logits = torch.full((1, 2, 1, 3), -9.0)
        logits[0, 0, 0, 0] = logits[0, 1, 0, 1] = 9.0
        assert losses.class_loss(logits, matching, targets, losses.Normaliser(2, 2.0)) < 1e-3

    def test_sums_are_divided_by_objects_and_weighted_queries_of_the_batch(self):
        targets = [everywhere(0, 1, 1), everywhere(), everywhere(2)]
        assert losses.Normaliser.of(targets, 10) == losses.Normaliser(4, pytest.approx(4 + 0.1 * 26))
        assert losses.Normaliser.of(targets, 2) == losses.Normaliser(3, pytest.approx(3 + 0.1 * 3))
        assert losses.Normaliser.of([everywhere()], 2) == losses.Normaliser(1, 1.0)

    def test_objectness_is_learned_at_centroids_with_a_focal_loss(self):
        target = losses.Target(torch.tensor([0]), torch.zeros(1, 64, 64, dtype=torch.bool))
        target.masks[0, 8:16, 32:40] = True  # the centroid lies in row 1, column 4 of 8
        normaliser = losses.Normaliser(1, 1.0)
        assert losses.objectness_loss(torch.zeros(1, 8, 8), [target], normaliser) == pytest.approx(16 * math.log(2))
        logits = torch.full((1, 8, 8), -12.0)
        logits[0, 1, 4] = 12.0
        assert losses.objectness_loss(logits, [target], normaliser) < 1e-3
        classes, decoded = constant(torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1), 64)
        with_it, without = (
            losses.set_loss(classes, replace(decoded, objectness=o), [target], normaliser, 9, [step_generator(0, 0)])[0]
            for o in (torch.zeros(1, 8, 8), None)
        )
        assert float(with_it - without) == pytest.approx(16 * math.log(2), abs=1e-3)


# --- distillation ----------------------------------------------------------------------------------------------------


class TestDistillation:
    def test_the_mean_is_over_the_queries_that_count(self):
        torch.manual_seed(0)
        teacher, student = torch.randn(4, 3), torch.randn(4, 5)
        keep = torch.tensor([True, False, False, True])
        some = distillation.class_distillation(teacher, student, keep, 2)
        those = distillation.class_distillation(teacher[keep], student[keep], torch.ones(2, dtype=torch.bool), 2)
        assert close(some, those)
        assert those > 0.1

    def test_weights_of_the_two_terms(self):
        found = [
            float(distillation.distillation_loss(torch.tensor(a), torch.tensor(b))) for a, b in ((1.0, 0.0), (0.0, 1.0))
        ]
        assert found == pytest.approx([2.0, 0.1])

    def teacher(self, enhancement=1.0):
        return BaseTeacher(RefT(MiniMask2Former(2), None), None, 2, enhancement)

    def predictions(self):
        """Return what teacher (two classes) and student (one more) agree on: three queries of one image."""
        torch.manual_seed(0)
        teacher = torch.randn(1, 3, 3)
        student = torch.cat([teacher[..., :2], torch.full((1, 3, 1), -1e9), teacher[..., 2:]], dim=-1)[None]
        features, states = (torch.randn(1, 8, 4, 4),), torch.zeros(1, 1, 3, 8)
        belief = distillation.Belief(teacher, torch.zeros(1, 16, 16), features)
        return belief, Prediction(student, Decoded(states, (), features))

    def changed(self, prediction, query=None, cell=None):
        logits, features = prediction.class_logits.clone(), prediction.decoded.projected[0].clone()
        if query is not None:
            logits[0, 0, query, 0] += 3.0
        if cell is not None:
            features[0, :, cell[0], cell[1]] += 2.0
        return Prediction(logits, replace(prediction.decoded, projected=(features,)))

    def loss(self, belief, after):
        target = losses.Target(torch.tensor([2]), torch.zeros(1, 64, 64, dtype=torch.bool))
        target.masks[0, :16, :16] = True  # the first cell of four times four
        matching = losses.Matching(*(torch.tensor([n]) for n in (0, 0, 1, 0)))
        normaliser = self.teacher().normaliser([belief], [[target]])
        assert normaliser.queries == 2
        return float(self.teacher().loss(belief, after, matching, [target], normaliser))

    def test_only_queries_and_cells_outside_novel_objects_are_held(self):
        before, after = self.predictions()
        assert self.loss(before, after) == pytest.approx(0.0, abs=1e-5)
        assert self.loss(before, self.changed(after, query=1)) == pytest.approx(0.0, abs=1e-5)
        assert self.loss(before, self.changed(after, query=0)) > 0.1
        assert self.loss(before, self.changed(after, cell=(0, 0))) == pytest.approx(0.0, abs=1e-5)
        assert self.loss(before, self.changed(after, cell=(2, 3))) == pytest.approx(0.1 * 4 / 15, abs=1e-5)

    def test_the_teachers_base_objects_weigh_more(self):
        before, after = self.predictions()
        base = before.base.clone()
        base[0, 8:12, 12:] = 1.0  # over the cell in row 2, column 3
        found = self.changed(after, cell=(2, 3))
        assert self.loss(replace(before, base=base), found) == pytest.approx(0.1 * 2 * 4 / 16, abs=1e-5)

    def test_a_teacher_believes_what_its_last_prediction_says(self):
        torch.manual_seed(0)
        teacher, images = self.teacher(), torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            teacher.model.network.head.bias[0] = 9.0  # sure of the first class
            found = teacher.model(images)
        belief = teacher.believe(images)
        assert torch.equal(belief.class_logits, found.class_logits[-1])
        assert torch.equal(belief.base, (found.decoded.mask_logits[-1] > 0).any(dim=1).float())
        assert torch.equal(belief.cells, found.decoded.cells)
        assert all(torch.equal(a, b) for a, b in zip(belief.projected, found.decoded.projected, strict=True))

    def test_what_no_query_is_sure_of_is_no_base_object(self):
        logits = torch.tensor([[[0.3, 0.0, 0.2]]])
        assert distillation.base_masks(logits, torch.ones(1, 1, 2, 2)).sum() == 0

    @pytest.mark.parametrize("micro_batch", [4, 2])
    def test_a_teachers_loss_counts_once_whatever_the_parts(self, micro_batch):
        """Each part adds what the teacher says of it, divided by what the teacher says of all of them."""

        class Constant:
            def believe(self, images):
                cells = torch.arange(12).expand(len(images), -1)
                return distillation.Belief(torch.zeros(len(images), 12, 1), torch.zeros(1), (), cells)

            def normaliser(self, beliefs, targets):
                assert [len(part) for part in targets] == [micro_batch] * (4 // micro_batch)
                return distillation.DistillationNormaliser(sum(len(belief.class_logits) for belief in beliefs), ())

            def loss(self, belief, after, matching, targets, normaliser):
                assert torch.equal(after.decoded.cells, belief.cells)
                return torch.tensor(100.0) * len(targets) / normaliser.queries

        class Free(Constant):
            def loss(self, belief, after, matching, targets, normaliser):
                return torch.tensor(0.0)

        torch.manual_seed(0)
        model, step = build_model(RefTConfig(), 4), Step([view_of(0, 1, seed=n) for n in range(4)])
        config = RefTConfig(micro_batch=micro_batch, points=32)
        held, free = (
            gradient_step(model, step, config, CPU, step_generator(0, 0), teacher) for teacher in (Constant(), Free())
        )
        assert held - free == pytest.approx(100.0, abs=1e-2)


# --- heads -----------------------------------------------------------------------------------------------------------


class TestHeads:
    def test_length_of_states_and_rows_does_not_count_for_classes(self):
        torch.manual_seed(0)
        head = with_novel_rows(to_cosine(nn.Linear(6, 4)), [0, 1, 2], 2)
        states = torch.randn(5, 6)
        with torch.no_grad():
            logits = head(states)
            rows = torch.cat([head.known, head.novel])
            for row in (head.known[1], head.novel[0]):
                row.mul_(3.0)
            scaled = head(2 * states)
        assert close(logits[:, :5], 20 * F.cosine_similarity(states[:, None], rows, dim=-1), 1e-4)
        assert close(scaled[:, :5], logits[:, :5], 1e-4)
        assert not close(scaled[:, 5], logits[:, 5], 1e-2)

    def test_imprinted_rows_have_the_directions_given_and_the_length_of_others(self):
        torch.manual_seed(0)
        rows, linear = 50 * torch.randn(2, 6), nn.Linear(6, 4)
        with torch.no_grad():
            grown = with_novel_rows(linear, [0, 1, 2], 2, rows)
            found = grown.weight[3:5]
            assert close(F.cosine_similarity(found, rows), torch.ones(2))
            assert close(found.norm(dim=1), linear.weight[:3].norm(dim=1).mean().expand(2))
            cosine = with_novel_rows(CosineHead(6, 3), [0, 1, 2], 2, rows)
            assert close(F.cosine_similarity(cosine.novel, rows), torch.ones(2))


# --- what steps see --------------------------------------------------------------------------------------------------


class TestDrawing:
    stage = Stage(10, 6, 1.0, 3)

    def steps(self, config, numbers=range(8)):
        draw = base_draw(pictures_of(), config, self.stage)
        return [draw(number, step_generator(3, number)) for number in numbers]

    def labels(self, views):
        return {int(label) for view in views for label in view.labels}

    def test_an_episode_shows_and_supports_a_few_base_classes_only(self):
        steps = self.steps(RefTConfig(episode_classes=3))
        for step in steps:
            assert len(self.labels(step.supports)) == len(step.supports) == 3
            assert self.labels(step.views) <= self.labels(step.supports)
            assert len(step.views) == 6  # images stay, objects lose their label
            assert step.active is None
        assert any(len(view.labels) == 0 for step in steps for view in step.views)
        assert len({tuple(sorted(self.labels(step.supports))) for step in steps}) > 4

    def test_without_episodes_no_object_loses_its_label_and_what_is_shown_is_supported(self):
        for step in self.steps(RefTConfig(support_classes=7)):
            assert all(len(view.labels) == 2 for view in step.views)
            assert self.labels(step.views) <= self.labels(step.supports)
            assert len(step.supports) == max(7, len(self.labels(step.views)))
        few = self.steps(RefTConfig(support_classes=1))
        assert all(self.labels(step.supports) == self.labels(step.views) for step in few)
        assert any(len(step.supports) < 8 for step in few)

    def test_absent_classes_are_drawn_at_random(self):
        stage = replace(self.stage, batch_size=1)
        draw = base_draw(pictures_of(), RefTConfig(support_classes=4), stage)
        absent = set()
        for number in range(12):
            step = draw(number, step_generator(3, number))
            assert len(step.supports) == 4
            absent |= self.labels(step.supports) - self.labels(step.views)
        assert absent == set(range(8))

    def test_only_link_logits_narrow_the_softmax_to_an_episode(self):
        for step in self.steps(RefTConfig(episode_classes=3, link_logits=True)):
            assert step.active == sorted(self.labels(step.supports))

    def test_inactive_classes_take_no_part_in_a_step(self):
        torch.manual_seed(0)
        model, views = build_model(Mask2FormerConfig(), 4), [view_of(0, seed=1)] * 2
        for active, touched in (([0, 2], [0, 2, 4]), (None, [0, 1, 2, 3, 4])):
            model.zero_grad()
            gradient_step(model, Step(views, active=active), Mask2FormerConfig(points=32), CPU, step_generator(0, 0))
            rows = model.network.class_head.weight.grad.abs().amax(dim=1)
            assert rows.nonzero().flatten().tolist() == touched

    def test_a_row_with_references_sees_the_images_of_one_without(self):
        for plain, referring in zip(self.steps(Mask2FormerConfig()), self.steps(RefTConfig()), strict=True):
            assert not plain.supports
            assert all(torch.equal(a.image, b.image) for a, b in zip(plain.views, referring.views, strict=True))

    def test_views_are_flipped_at_random_with_their_masks(self):
        pictures = pictures_of()
        draw = base_draw(pictures, RefTConfig(), self.stage)
        flips, supports = [], []
        for number in range(8):
            step = draw(number, step_generator(3, number))
            chosen = training.batch_numbers(24, 6, number, 3)
            for view, index in zip(step.views, chosen, strict=True):
                flipped = not torch.equal(view.image, pictures.views[index].image)
                assert torch.equal(view.masks.flip(2) if flipped else view.masks, pictures.views[index].masks)
                flips.append(flipped)
            supports += [bool(view.masks[0, :, -6:].any()) for view in step.supports]  # the squares lie at the left
        assert 12 < sum(flips) < 36
        assert 12 < sum(supports) < len(supports) - 12
        assert flips[:6] * 8 != flips  # steps draw for themselves

    def test_tuning_draws_some_shots_of_every_class_anew(self):
        shots = SomePictures([view_of(n % 4, seed=n) for n in range(20)], 4)
        stored = References((), torch.zeros(1, 1), torch.tensor([9]))
        draw = tune_draw(shots, RefTConfig(support_shots=2), self.stage, stored)
        seen = set()
        for number in range(6):
            step = draw(number, step_generator(3, number))
            assert [int(view.labels[0]) for view in step.supports] == [0, 0, 1, 1, 2, 2, 3, 3]
            assert step.stored is stored
            seen.add(tuple(int(view.image.long().sum()) for view in step.supports))
        assert len(seen) > 3
        assert not tune_draw(shots, Mask2FormerConfig(), self.stage)(0, step_generator(3, 0)).supports

    def test_scales_and_places_of_jitter_are_random(self):
        view = View(torch.zeros(3, 64, 64, dtype=torch.uint8), torch.tensor([0]), torch.zeros(1, 64, 64).bool())
        view.masks[0, 24:40, 24:40] = True
        areas = [int(jittered(view, 64, (0.5, 1.0), step_generator(0, n)).masks.sum()) for n in range(20)]
        assert min(areas) < 110
        assert max(areas) > 180
        places = {
            tuple(jittered(view, 64, (2.0, 2.0), step_generator(0, n)).masks[0].nonzero()[0].tolist()) for n in range(9)
        }
        assert len({row for row, _ in places}) > 2
        assert len({column for _, column in places}) > 2
        draw = base_draw(pictures_of(), Mask2FormerConfig(jitter=(0.1, 2.0)), self.stage)
        areas = [int(v.masks.sum()) for v in draw(0, step_generator(3, 0)).views]
        assert len(set(areas)) > 3


# --- steps -----------------------------------------------------------------------------------------------------------


class TestSteps:
    def step(self):
        return Step([view_of(0, 1, seed=n) for n in range(2)], [view_of(n, seed=9 + n) for n in range(2)])

    def gradients(self, stored=None, **settings):
        torch.manual_seed(0)
        model, seen, enabled = shaken(build_model(RefTConfig(), 4), 0.03), [], []
        model.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[1]))
        model.network.backbone.register_forward_pre_hook(lambda *_: enabled.append(torch.is_grad_enabled()))
        config = RefTConfig(points=32, **settings)
        gradient_step(model, replace(self.step(), stored=stored), config, CPU, step_generator(0, 0))
        return model, seen, enabled

    def test_gradients_flow_through_the_support_branch_unless_it_is_detached(self):
        through, seen, enabled = self.gradients()
        assert enabled == [True, True]
        assert seen[0].tokens.grad.abs().max() > 0
        detached, seen, enabled = self.gradients(detach_support=True)
        assert enabled == [False, True]
        assert not seen[0].tokens.requires_grad
        assert not any(level.requires_grad for level in seen[0].centres)
        one, two = (next(m.network.backbone.parameters()).grad for m in (through, detached))
        assert not close(one, two, 1e-3 * float(one.abs().max()))

    def test_stored_references_stand_beside_those_of_the_step(self):
        model = build_model(RefTConfig(), 4)
        stored = replace(references_of(model, 3, 1), token_labels=torch.tensor([5, 6, 7]))
        _, seen, _ = self.gradients(stored)
        assert seen[0].token_labels.tolist() == [5, 6, 7, 0, 1]
        assert [len(level) for level in seen[0].centres] == [5, 5, 5]

    def test_a_step_has_the_rate_of_its_group_and_place_and_a_clipped_gradient(self, monkeypatch):
        class Two(nn.Module):
            def __init__(self):
                super().__init__()
                self.slow, self.fast = (nn.Parameter(torch.zeros(1)) for _ in range(2))

        def gradients(model, step, *_):
            for parameter in model.parameters():
                assert parameter.grad is None or parameter.grad.abs().max() == 0
                parameter.grad = torch.full((1,), 300.0)
            return 0.0

        monkeypatch.setattr(training, "gradient_step", gradients)
        model = Two()
        groups = [{"params": [model.slow], "rate": 1.0}, {"params": [model.fast], "rate": 3.0}]
        optimizer, config = torch.optim.SGD(groups, lr=0.0), Mask2FormerConfig(schedule="step", clip=0.5)
        stage = Stage(40, 1, 0.2, 0, (30,))
        places = []
        for number in (20, 35):
            reached = training.train(model, optimizer, lambda *_: None, config, stage, [number], CPU)
            assert reached == number + 1
            places.append([float(model.slow.detach()), float(model.fast.detach())])
        share = 0.5 / math.sqrt(2)  # of a gradient of length 0.5
        assert places[0] == pytest.approx([-0.2 * share, -0.6 * share], rel=1e-4)
        assert places[1] == pytest.approx([-0.22 * share, -0.66 * share], rel=1e-4)

    def test_the_one_cycle_warms_up_over_a_tenth_and_ends_at_zero(self):
        stage = Stage(100, 1, 1.0, 0)
        found = [training.rate_factor(Mask2FormerConfig(), stage, number) for number in (0, 9, 10, 55, 99)]
        assert found == pytest.approx([0.1273, 0.9127, 1.0, 0.5, 0.0003], abs=2e-3)

    def test_incremental_tuning_changes_projections_new_rows_and_references_only(self):
        model = build_model(RefTConfig(head="cosine"), 4)
        model.network.replace_head(with_novel_rows(to_cosine(model.network.head), range(4), 2))
        training.restrict_to_projections(model)
        free = {name for name, p in model.named_parameters() if p.requires_grad}
        expected = {name for name, _ in model.named_parameters() if name.startswith(("weighting", "link"))}
        expected |= {name for name, _ in model.named_parameters() if name.startswith("network.projections")}
        assert free == expected | {f"network.class_head.{n}" for n in ("novel", "no_object.weight", "no_object.bias")}

    def test_batch_norms_keep_still(self):
        from benchsuite_reft.hf import freeze_batch_norm

        network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).train()
        freeze_batch_norm(network)
        network(5 + torch.randn(2, 3, 4, 4))
        assert network[1].running_mean.abs().max() == 0
        assert not network[1].weight.requires_grad
        assert network[0].weight.requires_grad


class TestImages:
    def test_pixels_lose_the_mean_and_are_in_deviations(self):
        grey = torch.tensor([124, 116, 104], dtype=torch.uint8)[:, None, None].expand(3, 2, 2)
        found = normalised([grey, grey + 50], CPU)
        assert found[0].abs().max() < 0.02
        assert found[1, :, 0, 0].tolist() == pytest.approx([50 / 58.395, 50 / 57.12, 50 / 57.375], abs=0.02)

    def test_crowds_are_no_objects_of_an_image(self, tmp_path):
        pytest.importorskip("hotcoco")
        from PIL import Image

        from benchsuite.datasets.coco.reader import Record

        Image.new("RGB", (4, 4)).save(tmp_path / "1.png")
        square = {"bbox": [0, 0, 2, 2], "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]], "area": 4}
        annotations = tuple({"id": n, "category_id": 7, "iscrowd": n - 1, **square} for n in (1, 2))
        pictures = Pictures([Record(1, 4, 4, str(tmp_path / "1.png"), annotations)], {7: 0})
        assert pictures.original(0).masks.shape == (1, 4, 4)

    def test_masks_that_are_sure_rank_first(self):
        classes = torch.tensor([[3.0, 0.0], [2.0, 0.0]])
        masks = torch.stack([torch.full((8, 8), 0.1), torch.full((8, 8), 9.0)])
        found = instances_of(classes, masks, (8, 8), (8, 8), (8, 8))
        scores = [
            float(torch.tensor([c, 0.0]).softmax(0)[0] * torch.tensor(m).sigmoid()) for c, m in ((2, 9.0), (3, 0.1))
        ]
        assert [f.score for f in found] == pytest.approx(scores, abs=1e-4)


# --- stages ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dataset():
    pytest.importorskip("hotcoco")
    from benchsuite.datasets.coco.generated import load_generated

    return load_generated(None, 0)


class TestStages:
    """Stages without a step, or of very few: what they start from and how long they would be."""

    tiny = {"batch_size": 2, "tune_batch_size": 2, "points": 32}

    def fitted(self, config, dataset, tmp_path, setting="fsis", shots=2):
        from benchsuite.harness.context import HarnessContext
        from benchsuite.tasks.fewshot_instance_segmentation import task
        from benchsuite.tasks.fewshot_instance_segmentation.contract import FewShotProtocol
        from benchsuite_reft.method import Mask2FormerFineTuned, RefTFineTuned

        kinds = {"fsis": task.FewShot, "gfsis": task.GeneralisedFewShot, "ifsis": task.IncrementalFewShot}
        base, few, _ = kinds[setting]().few_shot_data(dataset, dataset.train, FewShotProtocol(shots=shots), 3)
        (tmp_path / "work").mkdir(exist_ok=True)
        ctx = HarnessContext(
            workdir=tmp_path / "work",
            artifact_folder=tmp_path / "artifacts",
            cache_root=tmp_path / "cache",
            seeds={"base": 0, "shots": 0},
            seed_axes=("base", "shots"),
            shared_digest="same",
        )
        method = RefTFineTuned if isinstance(config, RefTConfig) else Mask2FormerFineTuned
        return method(config).tune(method(config).learn_base(base, ctx), few, ctx)

    @pytest.fixture
    def stages(self, monkeypatch):
        """Take no step in any stage and return the stages and lengths asked for."""
        from benchsuite.harness.context import HarnessContext

        asked = []

        def nothing(self, name, total, *arguments, **keywords):
            asked.append((name, total))
            return iter(())

        monkeypatch.setattr(HarnessContext, "resumable", nothing)
        return asked

    def test_rows_with_and_without_references_have_stages_of_equal_length(self, dataset, tmp_path, stages):
        for config in (Mask2FormerConfig(**self.tiny), RefTConfig(**self.tiny)):
            self.fitted(config, dataset, tmp_path)
        assert [total for _, total in stages] == [350, 100, 80, 100, 80]  # the first is shared

    def test_tuning_is_as_long_as_there_are_shots(self, dataset, tmp_path, stages):
        for shots, expected in ((2, 500), (10, 1000)):
            self.fitted(Mask2FormerConfig(**self.tiny, tune_steps=0), dataset, tmp_path, shots=shots)
            assert stages[-1][1] == expected

    @pytest.mark.parametrize("head", ["linear", "cosine"])
    def test_imprinted_classes_start_at_the_mean_of_their_tokens(self, dataset, tmp_path, stages, head):
        config = RefTConfig(**self.tiny, imprint=True, head=head)
        segmenter = self.fitted(config, dataset, tmp_path, "gfsis")
        found, refs = segmenter.model.network.head, segmenter.references
        rows = found.novel if head == "cosine" else found.weight[8:12]
        tokens = torch.stack([refs.tokens[refs.token_labels == label].mean(dim=0) for label in range(8, 12)])
        assert close(F.cosine_similarity(rows, tokens), torch.ones(4), 1e-3)

    def test_the_distillation_changes_what_is_learned(self, dataset, tmp_path):
        settings = {**self.tiny, "base_steps": 1, "refine_steps": 1, "tune_steps": 2}
        settings |= {"head": "cosine", "trainable": "projections", "tune_lr": 0.01}
        held, free = (
            self.fitted(RefTConfig(**settings, distillation=distillation), dataset, tmp_path, "ifsis")
            for distillation in (True, False)
        )
        one, two = (m.model.network.projections.state_dict()["0.0.weight"] for m in (held, free))
        assert not close(one, two, 1e-4)
        assert np.isfinite(float(one.sum()))
