"""RefT: its references, losses, networks and saved states, held against the numbers of its sheet."""

from __future__ import annotations

import copy
import csv
import pickle

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

import torch

from benchsuite.core.errors import ConfigError
from benchsuite_reft import distillation, losses, references, weights
from benchsuite_reft.config import Mask2FormerConfig, RefTConfig
from benchsuite_reft.images import Pictures, View, fit, inference_view, jittered, targets_of
from benchsuite_reft.inference import instances_of, tight_box
from benchsuite_reft.method import Mask2FormerFineTuned, RefTFineTuned, build_model, build_network
from benchsuite_reft.mini import MiniMask2Former, select_cells
from benchsuite_reft.model import ReferenceOptions, RefT, only_active
from benchsuite_reft.network import CosineHead, to_cosine, with_novel_rows
from benchsuite_reft.references import DynamicWeighting, LinkLogits, QueryLink, References
from benchsuite_reft.training import (
    BaseTeacher,
    Stage,
    Step,
    batch_numbers,
    build_optimizer,
    gradient_step,
    rate_factor,
    restrict_to_projections,
    segments,
    step_generator,
    support_labels,
)

CPU = torch.device("cpu")


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def perturbed(model):
    """Return the model with references that are no longer identities."""
    torch.manual_seed(5)
    with torch.no_grad():
        for module in model.reference_modules:
            for parameter in module.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def some_references(model, classes=4, per_class=2):
    torch.manual_seed(3)
    d = model.network.width
    centres = tuple(torch.randn(classes, d) for _ in range(model.network.levels))
    return References(centres, torch.randn(classes * per_class, d), torch.arange(classes).repeat_interleave(per_class))


def supports_of(count, size=64):
    torch.manual_seed(4)
    masks = torch.zeros(count, size, size, dtype=torch.bool)
    masks[:, 10:40, 20:50] = True
    return torch.randn(count, 3, size, size), masks


class TestCentres:
    features = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [1.0, 0.0]]])[None]
    masks = torch.tensor([[1.0, 0.25], [0.0, 0.5]])[None]

    def test_masked_average_of_the_tiny_case(self):
        centre = references.shot_centres(self.features, self.masks, 1e6)
        assert centre[0].tolist() == pytest.approx([2.0, 1 / 7], abs=1e-4)

    def test_masks_are_pooled_by_area(self):
        full = torch.zeros(1, 4, 4, dtype=torch.bool)
        full[0, :2, :2] = True
        full[0, 0, 2] = True
        full[0, 2:, 3] = True
        assert references.pool_masks(full, (2, 2)).tolist() == self.masks.tolist()

    def test_cells_unlike_the_prototype_count_less(self):
        features = torch.tensor([[[[1.0, 1.0, -1.0]], [[0.0, 0.1, 0.0]]]])
        plain, dynamic = (references.shot_centres(features, torch.ones(1, 1, 3), tau) for tau in (1e6, 0.1))
        assert plain[0, 0] == pytest.approx(1 / 3, abs=1e-4)
        assert dynamic[0, 0] > 0.99

    def test_an_empty_mask_gives_zeros(self):
        centre = references.shot_centres(self.features, torch.zeros(1, 2, 2), 0.1)
        assert centre.tolist() == [[0.0, 0.0]]

    def test_class_centres_are_means_over_shots(self):
        shots = references.Shots((torch.tensor([[1.0], [3.0], [10.0]]),), torch.tensor([[[1.0]], [[2.0]], [[6.0]]]))
        labels = torch.tensor([4, 4, 7])
        found = shots.by_class(labels, [4, 7])
        assert found.centres[0].tolist() == [[2.0], [10.0]]
        assert found.token_labels.tolist() == [4, 4, 7]
        mean = shots.by_class(labels, [4, 7], "mean")
        assert mean.tokens.tolist() == [[1.5], [6.0]]
        assert shots.by_class(labels, [7]).tokens.tolist() == [[6.0]]

    def test_the_query_that_fits_the_mask_is_kept(self):
        logits = torch.full((1, 3, 8, 8), -9.0)
        logits[0, 1, 2:4, 2:4] = 9.0
        logits[0, 2, :, :] = 9.0
        mask = torch.zeros(1, 16, 16, dtype=torch.bool)
        mask[0, 4:8, 4:8] = True
        states = torch.arange(3.0)[None, :, None]
        assert references.nearest_queries(states, logits, mask, 2).flatten().tolist() == [1.0, 2.0]


class TestReferenceModules:
    def test_parameters_at_full_width(self):
        levels = torch.nn.ModuleList(DynamicWeighting(256) for _ in range(3))
        assert parameters(levels) == 789_504
        assert parameters(QueryLink(256)) == 790_272
        assert parameters(levels) + parameters(QueryLink(256)) == 1_579_776

    @pytest.mark.parametrize("mode", ["gate", "add"])
    def test_identity_at_insertion(self, mode):
        torch.manual_seed(0)
        x, centres, tokens = torch.randn(2, 64, 5, 5), torch.randn(6, 64), torch.randn(9, 64)
        assert torch.equal(DynamicWeighting(64, 4, mode)(x, centres), x)
        states = torch.randn(2, 7, 64)
        assert torch.equal(QueryLink(64, 4)(states, tokens), states)

    def test_one_centre_gates_every_cell_alike(self):
        block = DynamicWeighting(64, 4)
        torch.nn.init.normal_(block.output.weight, std=0.1)
        x = torch.rand(1, 64, 4, 4) + 0.5
        gate = block(x, torch.randn(1, 64)) / x
        assert torch.allclose(gate, gate[:, :, :1, :1].expand_as(gate), atol=1e-5)

    def test_link_logits_leave_classes_without_support_alone(self):
        block = LinkLogits(8)
        refs = References((), torch.eye(8)[:3], torch.tensor([0, 0, 2]))
        added = block(torch.eye(8)[None, :3], refs, 4)
        assert added[0, 0].tolist() == pytest.approx([2.5, 0.0, 0.0, 0.0])
        assert added[0, 2].tolist() == pytest.approx([0.0, 0.0, 5.0, 0.0])


NETWORKS = {"mini": "mini", "full size": "resnet50"}


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
class TestModel:
    @pytest.fixture
    def models(self, network):
        torch.manual_seed(0)
        plain = RefT(build_network(Mask2FormerConfig(network=network), 5), None).eval()
        return plain, RefT(plain.network, ReferenceOptions()).eval()

    def test_bitwise_identity_at_insertion_and_not_after(self, models):
        plain, referring = models
        images = torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            before, after = plain(images), referring(images, some_references(referring))
            assert torch.equal(before.class_logits, after.class_logits)
            assert torch.equal(before.decoded.mask_logits[-1], after.decoded.mask_logits[-1])
            changed = perturbed(referring)(images, some_references(referring))
        assert not torch.allclose(before.class_logits, changed.class_logits)

    def test_order_of_classes_shots_and_tokens_does_not_matter(self, models):
        model = perturbed(models[1])
        images, (supports, masks) = torch.randn(1, 3, 64, 64), supports_of(4)
        labels, order = torch.tensor([0, 0, 1, 1]), torch.tensor([3, 1, 0, 2])
        with torch.no_grad():
            one = model.references(supports, masks, labels, [0, 1])
            two = model.references(supports[order], masks[order], labels[order], [1, 0])
            first, second = model(images, one), model(images, two)
        assert torch.allclose(first.class_logits, second.class_logits, rtol=0, atol=1e-5)
        for a, b in zip(first.decoded.mask_logits, second.decoded.mask_logits, strict=True):
            assert torch.allclose(a, b, rtol=0, atol=1e-5)

    def test_other_supports_change_the_predictions(self, models):
        model = perturbed(models[1])
        images, (supports, masks) = torch.randn(1, 3, 64, 64), supports_of(4)
        with torch.no_grad():
            one = model.references(supports, masks, torch.tensor([0, 0, 1, 1]), [0, 1])
            two = model.references(supports.flip(3) + 1, masks, torch.tensor([0, 0, 1, 1]), [0, 1])
            first, second = model(images, one), model(images, two)
        assert not torch.allclose(first.class_logits, second.class_logits, atol=1e-4)

    def test_one_pass_of_the_backbone_whatever_the_number_of_classes(self, models):
        model, passed = models[1], []
        model.network.backbone.register_forward_hook(lambda _m, inputs, _o: passed.append(len(inputs[0])))
        with torch.no_grad():
            for classes in (1, 20):
                model(torch.randn(2, 3, 64, 64), some_references(model, classes))
        assert passed == [2, 2]

    def test_empty_masks_give_no_nan(self, models):
        model = perturbed(models[1])
        supports, masks = supports_of(2)
        masks[:] = False
        with torch.no_grad():
            found = model(torch.zeros(1, 3, 64, 64), model.references(supports, masks, torch.tensor([0, 1]), [0, 1]))
        assert found.class_logits.isfinite().all()


class TestFullSize:
    def test_parameters_of_the_baseline(self):
        for classes, expected in ((80, 44_023_377), (60, 44_018_237)):
            assert parameters(build_network(Mask2FormerConfig(network="resnet50"), classes)) == expected

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("resnet101", 63_010_365),
            ("swin-tiny", 47_418_039),
            ("swin-small", 68_735_943),
            ("swin-base", 106_901_109),
        ],
    )
    def test_parameters_of_other_backbones(self, name, expected):
        with torch.device("meta"):
            assert parameters(build_network(Mask2FormerConfig(network=name), 60)) == expected

    def test_parameters_with_references(self):
        with torch.device("meta"):
            assert parameters(build_model(RefTConfig(network="resnet50"), 80)) == 44_023_377 + 1_579_776

    def test_names_of_the_state(self):
        with torch.device("meta"):
            state = build_network(Mask2FormerConfig(network="resnet50"), 80).body.state_dict()
        assert len(state) == 647
        assert state["class_predictor.weight"].shape == (81, 256)
        assert state["model.transformer_module.queries_features.weight"].shape == (100, 256)

    @pytest.mark.real_data
    def test_names_are_those_of_public_checkpoints(self, real_data):
        listing = real_data.parent / "papers" / "reft_mask2former_r50_80_state_dict.csv"
        if not listing.is_file():
            pytest.skip("the listing of the checkpoint's names is not beside the samples")
        with torch.device("meta"):
            state = build_network(Mask2FormerConfig(network="resnet50"), 80).body.state_dict()
        with listing.open() as file:
            wanted = {row["key"]: row["shape"] for row in csv.DictReader(file)}
        assert state.keys() == wanted.keys()
        for key, value in state.items():
            assert [int(n) for n in "".join(c if c.isdigit() else " " for c in wanted[key]).split()] == [*value.shape]

    @pytest.mark.parametrize("method", [Mask2FormerFineTuned, RefTFineTuned])
    @pytest.mark.parametrize("network", ["resnet50", "swin-tiny"])
    def test_forward_on_a_fake_gpu(self, method, network):
        from torch._subclasses.fake_tensor import FakeTensorMode

        count = 0
        with FakeTensorMode(), torch.device("cuda"), torch.no_grad():
            for module, inputs in method(method.Config(network=network)).forward_examples():
                module.eval()(*inputs)
                count += 1
        assert count == (1 if method is Mask2FormerFineTuned else 2)


class TestHeads:
    def test_cosine_logits(self):
        head = CosineHead(3, 2)
        with torch.no_grad():
            head.known.copy_(torch.tensor([[2.0, 0, 0], [0, 5.0, 0]]))
            logits = head(torch.tensor([[7.0, 0, 0]]))
        assert logits[0, :2].tolist() == pytest.approx([20.0, 0.0])
        assert logits[0, 2] == head.no_object(torch.tensor([[7.0, 0, 0]]))[0, 0]

    def test_kept_rows_are_copied_bit_by_bit(self):
        linear = torch.nn.Linear(4, 4)
        grown = with_novel_rows(linear, [2, 0], 3)
        assert torch.equal(grown.weight[[0, 1, 5]], linear.weight[[2, 0, 3]])
        assert torch.equal(grown.bias[[0, 1, 5]], linear.bias[[2, 0, 3]])
        assert grown.weight[2:5].abs().max() < 0.1
        cosine = with_novel_rows(to_cosine(linear), [0, 1, 2], 2)
        assert torch.equal(cosine.known, linear.weight[:3])
        assert torch.equal(cosine.no_object.weight, linear.weight[3:])
        assert cosine.novel.shape == (2, 4)

    def test_imprinted_rows_start_at_the_given_directions(self):
        rows = torch.tensor([[0.0, 3.0, 0.0, 0.0]])
        linear = with_novel_rows(torch.nn.Linear(4, 3), [0, 1], 1, rows)
        assert linear.weight[2, [0, 2, 3]].abs().max() == 0
        assert linear.weight[2, 1] > 0
        assert torch.equal(with_novel_rows(CosineHead(4, 2), [0, 1], 1, rows).novel, rows)

    def test_inactive_classes_cannot_win(self):
        logits = only_active(torch.zeros(1, 5), [1, 3])
        assert logits.tolist() == [[-1e4, 0.0, -1e4, 0.0, 0.0]]


class TestLosses:
    def targets(self):
        masks = torch.zeros(2, 32, 32, dtype=torch.bool)
        masks[0, :16], masks[1, 16:, :8] = True, True
        return [losses.Target(torch.tensor([1, 0]), masks)]

    def test_perfect_predictions_match_and_cost_nothing(self):
        (target,) = self.targets()
        logits = torch.full((1, 1, 3, 3), -30.0)
        logits[0, 0, 0, 2] = logits[0, 0, 1, 0] = logits[0, 0, 2, 1] = 30.0
        masks = torch.full((1, 1, 3, 32, 32), -50.0)
        masks[0, 0, 1][target.masks[1]] = 50.0
        masks[0, 0, 2][target.masks[0]] = 50.0
        matching = losses.match(logits, masks, [target], 500, [step_generator(0, 0)])
        assert dict(zip(matching.object.tolist(), matching.query.tolist(), strict=True)) == {0: 2, 1: 1}
        normaliser = losses.Normaliser.of([target], 3)
        assert losses.class_loss(logits, matching, [target], normaliser) == pytest.approx(0.0, abs=1e-6)
        entropy, dice = losses.mask_losses(masks, matching, [target], normaliser, 400, [step_generator(0, 1)])
        assert dice < 0.1  # points between pixels of both kinds
        assert entropy < 3.0

    def test_images_without_objects(self):
        empty = [losses.Target(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 32, 32, dtype=torch.bool))]
        torch.manual_seed(0)
        model = RefT(MiniMask2Former(3), None)
        found = model(torch.randn(1, 3, 64, 64))
        loss, matching = losses.set_loss(
            found.class_logits, found.decoded, empty, losses.Normaliser.of(empty, 12), 64, [step_generator(0, 0)]
        )
        loss.backward()
        assert loss.isfinite()
        assert len(matching.query) == 0
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)

    def test_most_points_are_uncertain_ones(self):
        maps = torch.linspace(-8, 8, 16).expand(1, 16, 16)  # uncertain in the middle columns
        points = losses.uncertain_points(maps, torch.tensor([0]), 400, [step_generator(0, 0)])
        assert points.shape == (1, 400, 2)
        near = ((points[0, :, 0] - 0.5).abs() < 0.15).float().mean()  # three in ten at random
        assert near > 0.75

    def batch(self):
        """Return four random images: two objects, one, none and two, of different sizes."""
        torch.manual_seed(0)
        views = []
        for boxes in (((0, 16, 4, 40), (30, 60, 8, 20)), ((5, 60, 10, 60),), (), ((0, 8, 0, 8), (20, 30, 20, 50))):
            masks = torch.zeros(len(boxes), 64, 64, dtype=torch.bool)
            for mask, (top, bottom, left, right) in zip(masks, boxes, strict=True):
                mask[top:bottom, left:right] = True
            image = torch.randint(0, 255, (3, 64, 64), dtype=torch.uint8)
            views.append(View(image, torch.arange(len(boxes)), masks))
        return views

    def gradients(self, model, step, config, teacher=None):
        model.zero_grad()
        loss = gradient_step(model, step, config, CPU, step_generator(0, 0), teacher)
        return loss, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    def assert_equal(self, found):
        (loss, whole), *others = found
        for other, parts in others:
            assert other == pytest.approx(loss, rel=1e-5)
            assert whole.keys() == parts.keys()
            for name, gradient in whole.items():
                atol = 1e-4 * float(gradient.abs().max()) + 1e-6
                assert torch.allclose(gradient, parts[name], rtol=0, atol=atol), name

    def test_parts_of_a_batch_add_up(self):
        torch.manual_seed(0)
        model, views = perturbed(build_model(RefTConfig(), 3)), self.batch()
        supports = [views[0].of(0), views[0].of(1), views[1].of(0), views[3].of(0), views[3].of(1)]
        found, passed = [], []
        model.network.backbone.register_forward_hook(lambda _module, inputs, _output: passed.append(len(inputs[0])))
        for micro, at_once in ((4, 0), (2, 0), (1, 0), (4, 2)):
            passed.clear()
            config = RefTConfig(points=64, micro_batch=micro, micro_supports=at_once)
            found.append(self.gradients(model, Step(views, supports), config))
        assert passed == [2, 2, 1, 4, 1, 2, 2]  # of the last: supports in parts, the batch, supports once more
        assert any(name.startswith("link.") for name in found[0][1])
        self.assert_equal(found)

    def test_parts_of_an_incremental_batch_add_up(self):
        """The distillation too: parts hold different numbers of free queries and of free cells."""
        torch.manual_seed(0)
        model = build_model(RefTConfig(), 4)
        model.network.replace_head(to_cosine(model.network.head))
        stored, views = some_references(model, 4, 1), self.batch()
        sure = copy.deepcopy(model)
        with torch.no_grad():
            sure.network.head.no_object.weight.zero_()
            sure.network.head.no_object.bias.fill_(-9.0)  # takes all for base objects
        teacher = BaseTeacher(sure, stored, 4, 1.0)
        model.network.replace_head(with_novel_rows(model.network.head, range(4), 2))
        restrict_to_projections(perturbed(model))
        views = [View(view.image, view.labels + 4, view.masks) for view in views]
        found = []
        for micro in (4, 2, 1):
            config = RefTConfig(points=64, micro_batch=micro, distillation=True)
            found.append(self.gradients(model, Step(views, [views[0].of(0), views[0].of(1)], stored), config, teacher))
        free = self.gradients(model, Step(views, [views[0].of(0), views[0].of(1)], stored), RefTConfig(points=64))
        assert found[0][0] > free[0] + 0.1
        assert teacher.believe(torch.randn(1, 3, 64, 64)).base.mean() > 0.1
        self.assert_equal(found)

    def test_a_support_set_in_parts_keeps_no_activations(self):
        torch.manual_seed(0)
        model, (images, masks) = build_model(RefTConfig(), 3), supports_of(4)
        kept = {}
        for at_once in (0, 2):
            held = []

            def hold(tensor, held=held):
                held.append(tensor.numel())
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
                model.references(images, masks, torch.arange(4) % 2, [0, 1], at_once)
            kept[at_once] = sum(held)
        assert kept[2] < 0.05 * kept[0]


class TestDistillation:
    zt, zs = torch.zeros(1, 2), torch.zeros(1, 3)
    keep = torch.ones(1, dtype=torch.bool)

    def test_closed_form(self):
        assert distillation.class_distillation(self.zt, self.zs, self.keep, 1, 0.0) == pytest.approx(
            0.0588915, abs=1e-6
        )
        weighted = distillation.class_distillation(self.zt, self.zs, self.keep, 1, 1.0)
        assert weighted == pytest.approx(1.5 * 0.0588915, abs=1e-6)

    def test_the_same_beliefs_cost_nothing(self):
        zt = torch.randn(5, 4)
        zs = torch.cat([zt[:, :3], torch.full((5, 2), -1e9), zt[:, 3:]], dim=1)
        assert distillation.class_distillation(zt, zs, torch.ones(5, dtype=torch.bool), 5) == pytest.approx(0, abs=1e-6)

    def test_no_gradient_reaches_the_teacher_and_matched_queries_count_nothing(self):
        zt, zs = torch.randn(3, 4, requires_grad=True), torch.randn(3, 6, requires_grad=True)
        keep = torch.tensor([True, False, True])
        loss = distillation.class_distillation(zt, zs, keep, 2)
        loss.backward()
        assert zt.grad is None
        assert zs.grad[1].abs().max() == 0
        assert zs.grad[0].abs().max() > 0
        none = distillation.class_distillation(zt, zs, torch.zeros(3, dtype=torch.bool), 1)
        assert none == 0

    def test_features_under_novel_objects_are_free(self):
        before, after = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)
        after[0, :, 0, 0] = 3.0
        novel, base = torch.zeros(1, 8, 8), torch.zeros(1, 4, 4)

        def loss(novel, base):
            weights = distillation.cell_weights(novel, base, [after])
            return distillation.feature_distillation([before], [after], weights, [float(weights[0].sum())])

        assert loss(novel, base) == pytest.approx(9 / 4)
        novel[0, 0, 0] = 1.0
        assert loss(novel, base) == 0
        base[0, 0, 0] = 1.0
        assert loss(torch.zeros(1, 8, 8), base) == pytest.approx(2 * 9 / 5)

    def test_base_masks_are_those_of_sure_queries(self):
        logits = torch.tensor([[[5.0, 0.0, 0.0], [0.0, 0.0, 5.0]]])
        masks = torch.full((1, 2, 2, 2), -1.0)
        masks[0, 0, 0], masks[0, 1, 1] = 1.0, 1.0
        assert distillation.base_masks(logits, masks).tolist() == [[[1.0, 1.0], [0.0, 0.0]]]

    def test_teacher_keeps_still_and_its_queries_are_the_students(self):
        config = RefTConfig(head="cosine", trainable="projections", distillation=True)
        torch.manual_seed(0)
        model = build_model(config, 4)
        model.network.replace_head(to_cosine(model.network.head))
        stored = some_references(model, 4, 1)
        teacher = BaseTeacher(copy.deepcopy(model), stored, 4, 1.0)
        model.network.replace_head(with_novel_rows(model.network.head, range(4), 2))
        restrict_to_projections(model)
        assert not any(p.requires_grad for p in teacher.model.parameters())
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        assert "network.class_head.known" not in trained
        assert {"network.class_head.novel", "network.class_head.no_object.weight"} <= trained
        assert all("projections" in n or "class_head" in n for n in trained if n.startswith("network."))
        view = View(
            torch.randint(0, 255, (3, 64, 64), dtype=torch.uint8), torch.tensor([4]), torch.ones(1, 64, 64).bool()
        )
        loss = gradient_step(model, Step([view] * 2, [view], stored), config, CPU, step_generator(0, 0), teacher)
        assert np.isfinite(loss)
        assert model.network.class_head.known.grad is None
        assert model.network.class_head.novel.grad.abs().max() > 0


class TestTraining:
    def test_batches_are_permutations(self):
        seen = [i for number in range(6) for i in batch_numbers(9, 3, number, 7)]
        assert sorted(seen[:9]) == sorted(seen[9:]) == list(range(9))
        assert seen[:9] != seen[9:]
        assert batch_numbers(2, 5, 0, 1) == batch_numbers(2, 5, 0, 1)

    def test_segments_cover_a_stage(self):
        assert segments(10, 4) == [(0, 4), (4, 8), (8, 10)]
        assert segments(0, 4) == [(0, 0)]
        assert segments(3, 100) == [(0, 3)]

    def test_support_classes_are_those_present_then_random_ones(self):
        view = View(torch.zeros(3, 1, 1, dtype=torch.uint8), torch.tensor([5, 2]), torch.ones(2, 1, 1).bool())
        labels = support_labels([view], range(8), 4, step_generator(0, 0))
        assert {2, 5} <= set(labels)
        assert len(labels) == 4
        assert support_labels([view], range(8), 1, step_generator(0, 0)) == [2, 5]

    def test_schedules(self):
        stage = Stage(100, 1, 1.0, 0, (80, 90))
        cycle = [rate_factor(Mask2FormerConfig(), stage, n) for n in range(100)]
        assert max(cycle) == pytest.approx(1.0)
        assert cycle[0] < 0.2
        assert cycle[-1] < 0.01
        steps = [rate_factor(Mask2FormerConfig(schedule="step"), stage, n) for n in (0, 50, 80, 95)]
        assert steps == pytest.approx([0.1, 1.0, 0.1, 0.01])

    def test_rates_and_decay_of_groups(self):
        config = RefTConfig(backbone_rate=0.1, reference_rate=3.0)
        model = build_model(config, 4)
        optimizer = build_optimizer(model, config)
        rate = {id(p): g["rate"] for g in optimizer.param_groups for p in g["params"]}
        decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
        assert len(rate) == len(list(model.parameters()))
        assert rate[id(model.link.hidden.weight)] == 3.0
        assert rate[id(next(model.network.backbone.parameters()))] == 0.1
        assert rate[id(model.network.class_head.weight)] == 1.0
        assert decay[id(model.network.norm.weight)] == 0.0
        assert decay[id(model.network.level_embedding)] == 0.0
        assert decay[id(model.network.class_head.weight)] == config.weight_decay

    def test_position_biases_of_swin_do_not_decay(self):
        with torch.device("meta"):
            model = build_model(Mask2FormerConfig(network="swin-tiny"), 4)
        optimizer = build_optimizer(model, Mask2FormerConfig(network="swin-tiny"))
        decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
        tables = [p for name, p in model.named_parameters() if "relative_position_bias" in name]
        assert len(tables) == 12  # one a block
        assert {decay[id(table)] for table in tables} == {0.0}
        assert decay[id(model.network.body.class_predictor.weight)] == 0.02

    def test_the_best_cells_become_queries(self):
        logits = torch.full((1, 4, 4), -5.0)
        logits[0, 1, 1], logits[0, 1, 2], logits[0, 3, 3] = 4.0, 3.9, 2.0
        assert select_cells(logits, 2)[0].tolist() == [5, 15]


class TestImages:
    def test_fit_keeps_the_shape_and_pads(self):
        view = View(
            torch.full((3, 20, 40), 255, dtype=torch.uint8), torch.tensor([1]), torch.ones(1, 20, 40, dtype=torch.bool)
        )
        fitted = fit(view, 64)
        assert fitted.image.shape == (3, 64, 64)
        assert fitted.masks.sum() == 32 * 64
        assert fitted.image[0, 0, 0] == 255
        assert fitted.image[0, 63, 0] == 124  # the mean colour

    def test_jitter_crops_and_pads_to_size(self):
        view = View(torch.zeros(3, 50, 30, dtype=torch.uint8), torch.tensor([1]), torch.ones(1, 50, 30).bool())
        for number in range(8):
            found = jittered(view, 64, (0.1, 2.0), step_generator(0, number))
            assert found.image.shape == (3, 64, 64)
            assert found.masks.shape == (1, 64, 64)

    def test_invisible_objects_are_no_targets(self):
        masks = torch.zeros(2, 4, 4, dtype=torch.bool)
        masks[1, 0, 0] = True
        (target,) = targets_of([View(torch.zeros(3, 4, 4, dtype=torch.uint8), torch.tensor([3, 5]), masks)], CPU)
        assert target.labels.tolist() == [5]

    def test_test_images_are_padded_to_whole_strides(self):
        padded, size = inference_view(np.zeros((480, 640, 3), np.uint8), 800, 1333)
        assert size == (800, 1067)
        assert padded.shape == (3, 800, 1088)
        assert inference_view(np.zeros((100, 400, 3), np.uint8), 800, 1333)[1] == (333, 1333)


class TestInference:
    def test_scores_masks_and_boxes(self):
        classes = torch.tensor([[10.0, 0.0, 0.0], [0.0, 0.0, 10.0]])
        masks = torch.full((2, 8, 8), -8.0)
        masks[0, 2:5, 1:7] = 8.0
        best, *others = instances_of(classes, masks, (8, 8), (8, 8), (8, 8))
        assert best.label == 0
        assert best.box == (1.0, 2.0, 6.0, 3.0)
        probability = torch.tensor([10.0, 0.0, 0.0]).softmax(0)[0] * torch.tensor(8.0).sigmoid()
        assert best.score == pytest.approx(float(probability), abs=1e-5)
        assert len(others) == 1  # the same query as class 1; the empty mask is left out

    def test_padding_is_cut_and_size_restored(self):
        masks = torch.full((1, 8, 8), 5.0)
        (found,) = instances_of(torch.tensor([[4.0, 0.0]]), masks, (32, 32), (32, 16), (64, 32))
        assert found.mask.shape == (64, 32)
        assert found.box == (0.0, 0.0, 32.0, 64.0)

    def test_at_most_a_hundred_pairs(self):
        found = instances_of(torch.randn(20, 12), torch.ones(20, 4, 4), (4, 4), (4, 4), (4, 4))
        assert len(found) == 100
        assert [f.score for f in found] == sorted((f.score for f in found), reverse=True)

    def test_box_of_one_pixel(self):
        mask = np.zeros((5, 5), bool)
        mask[3, 2] = True
        assert tight_box(mask) == (2.0, 3.0, 1.0, 1.0)


class Run:
    """Says that it was unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("code in a weights file was run",))


class TestWeights:
    @pytest.mark.parametrize("kind", ["safetensors", "torch"])
    def test_checkpoint_of_all_classes_is_cut_to_the_base_classes(self, tmp_path, kind):
        from benchsuite_reft.hf import HFMask2Former

        sizes = {"hidden_dim": 32, "feature_size": 32, "mask_feature_size": 32, "num_attention_heads": 4}
        torch.manual_seed(0)
        trained, fresh = HFMask2Former("resnet50", 6, sizes).body, HFMask2Former("resnet50", 3, sizes).body
        path = tmp_path / "weights"
        if kind == "torch":
            torch.save(trained.state_dict(), path)
        else:
            weights.save_state(trained.state_dict(), path)
        notes = weights.load_network(fresh, weights.load_state(path)[0], [0, 2, 5], "weights")
        assert torch.equal(fresh.class_predictor.weight, trained.class_predictor.weight[[0, 2, 5, 6]])
        assert "has seen their labels" in notes[0]
        with pytest.raises(ConfigError, match="does not fit this network"):
            weights.load_network(HFMask2Former("resnet50", 3).body, weights.load_state(path)[0], [0, 2, 5], "weights")
        with pytest.raises(ConfigError, match="lacks"):
            weights.load_network(fresh, {}, [0], "weights")

    def test_nothing_in_a_file_is_executed(self, tmp_path):
        path = tmp_path / "weights.pth"
        path.write_bytes(pickle.dumps({"x": Run()}))
        with pytest.raises(ConfigError, match="neither a safetensors file nor a plain state dict"):
            weights.load_state(path)
        torch.save({"x": 3}, path)
        with pytest.raises(ConfigError, match="no plain state dict"):
            weights.load_state(path)
        with pytest.raises(ConfigError, match="cannot read"):
            weights.load_state(tmp_path / "missing")

    def test_references_and_moments_come_back(self, tmp_path):
        config = RefTConfig()
        model = build_model(config, 3)
        stored = some_references(model)
        weights.save_state(weights.references_state(stored), tmp_path / "a")
        again = weights.restore_references(weights.load_state(tmp_path / "a")[0])
        assert all(torch.equal(a, b) for a, b in zip(stored.centres, again.centres, strict=True))
        assert torch.equal(again.token_labels, stored.token_labels)
        optimizer = build_optimizer(model, config)
        model(torch.randn(1, 3, 64, 64), stored).class_logits.sum().backward()
        optimizer.step()
        other = build_optimizer(model, config)
        weights.restore_optimizer(other, weights.optimizer_state(optimizer))
        before, after = optimizer.state_dict()["state"], other.state_dict()["state"]
        assert all(torch.equal(before[i]["exp_avg"], after[i]["exp_avg"]) for i in before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_steps": 0}, "base_steps must be at least 1"),
        ({"refine_steps": -1}, "refine_steps must not be negative"),
        ({"lr": 0.0}, "lr must be positive"),
        ({"image_size": 100}, "multiple of 32"),
        ({"support_size": 100}, "multiple of 32"),
        ({"jitter": (2.0, 1.0)}, "the smaller first"),
        ({"temperature": 0.0}, "temperature"),
        ({"episode_classes": -1}, "must not be negative"),
        ({"support_shots": 0}, "support_shots must be at least 1"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        RefTConfig(**settings)


def test_crowds_and_foreign_classes_are_no_objects():
    from benchsuite.datasets.coco.reader import Record

    square = {"bbox": [0, 0, 2, 2], "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]], "area": 4}
    annotations = [
        {"id": 1, "category_id": 7, "iscrowd": 0, **square},
        {"id": 2, "category_id": 7, "iscrowd": 1, **square},
        {"id": 3, "category_id": 9, "iscrowd": 0, **square},
    ]
    pictures = Pictures([Record(1, 4, 4, "none.png", tuple(annotations))], {7: 0})
    assert pictures.instances_by_label() == {0: [(0, 0)]}
