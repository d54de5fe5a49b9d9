"""DOORPING: networks, matching distance, second-order gradients, hypergradients, the trigger and the schedules."""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from benchsuite.core import ConfigError
from benchsuite.core.config import build_config
from benchsuite.tasks.distillation_backdoors.networks import ConvNet, build_network, seeded_network
from benchsuite.tasks.distillation_backdoors.triggers import normalised, patch_mask, stamp, valid_range, white_patch
from benchsuite_doorping import attack, bilevel, matching
from benchsuite_doorping.config import BilevelConfig, DoorpingConfig, LearntTrigger, MatchingConfig


class Plain:
    """As much of a context as a distillation asks for."""

    def steps(self, total, description=""):
        return iter(range(total))

    def resumable(self, name, total, parts, description=""):
        return self.steps(total)


class Learner:
    """Stands for the attack: remembers the networks that it is shown."""

    def __init__(self, trigger=None):
        self.networks = []
        self.weights = []
        self.trigger = trigger

    def update(self, network):
        self.networks.append(network)
        self.weights.append({name: value.clone() for name, value in network.state_dict().items()})
        return self.trigger


def small_convnet(seed=0, channels=1):
    return seeded_network("convnet-small", channels, 10, 16, seed)


# --- networks ---------------------------------------------------------------------------------------------------


class TestNetworks:
    @pytest.mark.parametrize(
        ("name", "channels", "parameters"),
        [
            ("convnet", 3, 694_090),
            ("convnet", 1, 691_786),
            ("alexnet", 3, 1_756_426),
            ("alexnet", 1, 1_753_226),
            ("vgg11", 3, 9_231_114),
            ("resnet18", 3, 11_436_618),
        ],
    )
    def test_published_parameter_counts(self, name, channels, parameters):
        assert build_network(name, channels, 10, 32).num_parameters() == parameters

    def test_embedded_parameter_count(self):
        assert build_network("convnet-small", 1, 10, 16).num_parameters() == 5_122

    @pytest.mark.parametrize("channels", [1, 3])
    def test_convnet_state_dict(self, channels):
        expected = {
            "features.0.weight": (128, channels, 3, 3), "features.0.bias": (128,),
            "features.3.weight": (128, 128, 3, 3), "features.3.bias": (128,),
            "features.6.weight": (128, 128, 3, 3), "features.6.bias": (128,),
            "classifier.0.weight": (192, 2048), "classifier.0.bias": (192,),
            "classifier.2.weight": (10, 192), "classifier.2.bias": (10,),
        }  # fmt: skip
        found = {key: tuple(v.shape) for key, v in build_network("convnet", channels, 10, 32).state_dict().items()}
        assert found == expected

    @pytest.mark.parametrize("channels", [1, 3])
    def test_alexnet_state_dict(self, channels):
        expected = {
            "features.0.weight": (64, channels, 5, 5), "features.0.bias": (64,),
            "features.4.weight": (64, 64, 5, 5), "features.4.bias": (64,),
            "classifier.0.weight": (384, 4096), "classifier.0.bias": (384,),
            "classifier.2.weight": (192, 384), "classifier.2.bias": (192,),
            "classifier.4.weight": (10, 192), "classifier.4.bias": (10,),
        }  # fmt: skip
        found = {key: tuple(v.shape) for key, v in build_network("alexnet", channels, 10, 32).state_dict().items()}
        assert found == expected

    def test_small_variants(self):
        plain = ConvNet(3, 10, 16, width=16, depth=2)
        assert list(plain.state_dict())[2:4] == ["features.3.weight", "features.3.bias"]
        assert plain.state_dict()["classifier.0.weight"].shape == (192, 256)
        normed = ConvNet(1, 10, 32, width=16, instance_norm=True)
        convolutions = [key for key, value in normed.state_dict().items() if value.ndim == 4]
        assert convolutions == ["features.0.weight", "features.4.weight", "features.8.weight"]
        assert normed.state_dict()["classifier.0.weight"].shape == (192, 256)

    @pytest.mark.parametrize("channels", [1, 3])
    def test_convnet_forward_against_plain_functions(self, channels):
        network, x = seeded_network("convnet", channels, 10, 32, 0), torch.randn(2, channels, 32, 32)
        w = network.state_dict()
        h = x
        for block, key in enumerate((0, 3, 6)):
            padding = 3 if block == 0 and channels == 1 else 1
            h = F.conv2d(h, w[f"features.{key}.weight"], w[f"features.{key}.bias"], padding=padding)
            h = F.avg_pool2d(h.clamp(min=0), 2)
        sizes = [36, 18, 9, 4] if channels == 1 else [32, 16, 8, 4]
        assert h.shape[-1] == sizes[-1]
        h = (h.flatten(1) @ w["classifier.0.weight"].T + w["classifier.0.bias"]).clamp(min=0)
        assert torch.allclose(network.features_of(x), h, atol=1e-5)
        assert torch.allclose(network(x), h @ w["classifier.2.weight"].T + w["classifier.2.bias"], atol=1e-4)

    def test_alexnet_pools_before_it_normalises_and_then_after(self):
        def response_norm(x):  # over the 4 channels c - 2 .. c + 1, divided by 4 as torch does
            padded = F.pad(x.square(), (0, 0, 0, 0, 2, 1))
            sums = sum(padded[:, i : i + x.shape[1]] for i in range(4))
            return x / (1 + (0.001 / 9) * sums / 4) ** 0.75

        network, x = seeded_network("alexnet", 3, 10, 32, 0), 20 * torch.randn(2, 3, 32, 32)
        w = network.state_dict()
        h = F.conv2d(x, w["features.0.weight"], w["features.0.bias"], padding=2).clamp(min=0)
        h = response_norm(F.max_pool2d(h, 3, 2, padding=1))
        h = F.conv2d(h, w["features.4.weight"], w["features.4.bias"], padding=2).clamp(min=0)
        h = F.max_pool2d(response_norm(h), 3, 2, padding=1).flatten(1)
        for key in ("classifier.0", "classifier.2"):
            h = (h @ w[f"{key}.weight"].T + w[f"{key}.bias"]).clamp(min=0)
        assert torch.allclose(network(x), h @ w["classifier.4.weight"].T + w["classifier.4.bias"], atol=1e-4)

    def test_nothing_stands_between_the_linear_layers_of_resnet18(self):
        network, x = seeded_network("resnet18", 3, 10, 32, 0), torch.randn(4, 3, 32, 32)
        w = network.state_dict()
        h = network.features(x).flatten(1)
        h = h @ w["classifier.0.weight"].T + w["classifier.0.bias"]
        assert (h < 0).any()
        assert torch.allclose(network.features_of(x), h, atol=1e-5)
        last = [value for key, value in w.items() if key.startswith("classifier.")][-2:]
        assert torch.allclose(network(x), h @ last[0].T + last[1], atol=1e-4)

    def test_seeded_networks_depend_on_the_seed_alone(self):
        torch.manual_seed(1)
        before = torch.get_rng_state()
        one = small_convnet(7)
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(2)
        two, three = small_convnet(7), small_convnet(8)
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
        assert not torch.equal(one.features[0].weight, three.features[0].weight)

    @pytest.mark.parametrize(("name", "size"), [("vgg11", 16), ("resnet18", 4), ("convnet", 4)])
    def test_images_too_small(self, name, size):
        with pytest.raises(ConfigError, match="too small"):
            build_network(name, 3, 10, size)

    def test_unknown_network(self):
        with pytest.raises(ConfigError, match="choose one of"):
            build_network("lenet", 1, 10, 28)


# --- gradient matching ------------------------------------------------------------------------------------------


class TestMatchingDistance:
    def test_vectors_count_nothing(self):
        assert matching.row_distance(torch.randn(5), torch.randn(5)).item() == 0.0

    def test_identical_rows(self):
        a = torch.randn(4, 3, 2, 2, dtype=torch.float64)
        squared = a.flatten(1).square().sum(dim=1)
        expected = (1e-6 / (squared + 1e-6)).sum()
        found = matching.row_distance(a, a.clone())
        assert found.item() == pytest.approx(expected.item(), abs=1e-12)
        assert found.item() < 4e-4

    def test_opposite_rows_count_two_each(self):
        a = torch.randn(4, 7)
        assert matching.row_distance(a, -a).item() == pytest.approx(8.0, abs=1e-4)

    def test_a_row_of_zeros_counts_one_and_has_a_finite_gradient(self):
        a, b = torch.randn(3, 7), torch.randn(3, 7)
        a[1] = 0.0
        a.requires_grad_(True)
        others = [0, 2]
        distance = matching.row_distance(a, b)
        expected = 1.0 + matching.row_distance(a[others], b[others]).item()
        assert distance.item() == pytest.approx(expected, abs=1e-5)
        distance.backward()
        assert torch.isfinite(a.grad).all()

    def test_scale_does_not_matter(self):
        a, b = torch.randn(4, 5), torch.randn(4, 5)
        expected = matching.row_distance(a, b).item()
        assert matching.row_distance(30 * a, b).item() == pytest.approx(expected, abs=1e-4)
        assert matching.row_distance(a, 0.2 * b).item() == pytest.approx(expected, abs=1e-4)

    def test_three_dimensional_tensors_have_a_row_a_channel(self):
        a, b = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
        assert matching.row_distance(a, b) == matching.row_distance(a.reshape(3, 20), b.reshape(3, 20))

    def test_sum_over_tensors_and_alternatives(self):
        a = {"w": torch.randn(3, 4), "b": torch.randn(3)}
        b = {"w": torch.randn(3, 4), "b": torch.randn(3)}
        assert matching.matching_distance(a, b) == matching.row_distance(a["w"], b["w"])
        squares = sum(((a[k] - b[k]) ** 2).sum() for k in a)
        assert matching.matching_distance(a, b, "mse").item() == pytest.approx(squares.item(), rel=1e-5)
        assert matching.matching_distance(a, a, "cosine").item() == pytest.approx(0.0, abs=1e-5)

    def test_class_gradients_equal_plain_autograd(self):
        network, images = small_convnet().double(), torch.randn(10, 3, 1, 16, 16, dtype=torch.float64)
        found = matching.class_gradients(network, images, torch.full((10, 3), 1 / 3, dtype=torch.float64))
        for c in (0, 7):
            loss = F.cross_entropy(network(images[c]), torch.full((3,), c))
            expected = torch.autograd.grad(loss, list(network.parameters()))
            for gradient, plain in zip(found.values(), expected, strict=True):
                assert torch.allclose(gradient[c], plain, atol=1e-12)

    def test_padding_counts_nothing(self):
        network, images = small_convnet(), torch.randn(10, 3, 1, 16, 16)
        weights = torch.full((10, 3), 0.5)
        weights[:, 2] = 0
        padded = matching.class_gradients(network, images, weights)
        plain = matching.class_gradients(network, images[:, :2], torch.full((10, 2), 0.5))
        assert all(torch.allclose(padded[name], plain[name], atol=1e-6) for name in plain)

    def test_second_order_gradient_against_finite_differences(self):
        torch.manual_seed(0)
        network = small_convnet(3).double()
        real = torch.randn(10, 4, 1, 16, 16, dtype=torch.float64)
        weights = torch.full((10, 4), 0.25, dtype=torch.float64)
        synthetic = torch.randn(10, 2, 1, 16, 16, dtype=torch.float64, requires_grad=True)
        loss = partial(matching.matching_loss, network, real=real, real_weights=weights, config=MatchingConfig())
        (gradient,) = torch.autograd.grad(loss(synthetic=synthetic), synthetic)
        step = 1e-6
        for index in torch.randint(synthetic.numel(), (10,)):
            moved = [synthetic.detach().clone() for _ in range(2)]
            for sign, images in zip((1, -1), moved, strict=True):
                images.view(-1)[index] += sign * step
            difference = (loss(synthetic=moved[0]) - loss(synthetic=moved[1])).item() / (2 * step)
            assert gradient.flatten()[index].item() == pytest.approx(difference, rel=0.01, abs=1e-7)


class TestSchedule:
    @pytest.mark.parametrize(("images", "expected"), [(1, (1, 1)), (10, (10, 50)), (50, (50, 10))])
    def test_published_loops(self, images, expected):
        assert matching.loops(MatchingConfig(), images) == expected

    def test_other_numbers_need_loops_of_their_own(self):
        assert matching.loops(MatchingConfig(outer=2, inner=3), 7) == (2, 3)
        with pytest.raises(ConfigError, match="set both"):
            matching.loops(MatchingConfig(outer=2), 7)

    def _run(self, iterations, outer, learner):
        labels = torch.arange(10).repeat_interleave(4)
        real = attack.RealImages(
            torch.randn(40, 1, 16, 16), labels, torch.zeros(0, dtype=torch.int64), patch_mask(2, 16)
        )
        drawn = []

        self.seeds = []

        def fresh(seed):
            self.seeds.append(seed)
            drawn.append(small_convnet(len(drawn)))
            return drawn[-1]

        config = MatchingConfig(iterations=iterations, outer=outer, inner=1, real_batch=3)
        start = torch.randn(10, 2, 1, 16, 16)
        made = matching.distil_by_matching(
            real, start, fresh, torch.Generator(), config, torch.Generator().manual_seed(0), Plain(), learner
        )
        return drawn, start, made

    def test_fresh_network_each_pass_and_one_update_less_than_matching_steps(self):
        learner = Learner()
        drawn, start, made = self._run(iterations=2, outer=4, learner=learner)
        assert len(drawn) == 3  # Iteration + 1
        assert [sum(shown is network for shown in learner.networks) for network in drawn] == [3, 3, 3]  # outer - 1
        assert not torch.equal(start, made)

    def test_every_pass_draws_a_seed_of_its_own(self):
        self._run(iterations=4, outer=1, learner=None)
        assert len(set(self.seeds)) == 5

    def test_the_trigger_is_learnt_on_the_network_after_its_training(self):
        """Trained on the present synthetic images, one full batch of plain SGD at a time."""
        drawn, _, _ = self._run(iterations=0, outer=3, learner=(learner := Learner()))
        first, second = [w["classifier.2.weight"] for w in learner.weights]
        assert not torch.equal(first, small_convnet(0).classifier[2].weight)
        assert not torch.equal(first, second)
        assert torch.equal(second, drawn[0].classifier[2].weight)

    def test_the_training_of_a_network_is_plain(self):
        images, network, plain = torch.randn(10, 2, 1, 16, 16), small_convnet(4), small_convnet(4)
        config = MatchingConfig(network_lr=0.3)
        matching.train_on_synthetic(network, images, config, iter(range(2)), torch.Generator())
        for _ in range(2):
            loss = F.cross_entropy(plain(images.flatten(0, 1)), torch.arange(10).repeat_interleave(2))
            gradients = torch.autograd.grad(loss, list(plain.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(plain.parameters(), gradients, strict=True):
                    parameter -= 0.3 * gradient
        for found, expected in zip(network.parameters(), plain.parameters(), strict=True):
            assert torch.allclose(found, expected, atol=1e-6)

    def test_images_move_by_sgd_with_momentum(self, monkeypatch):
        """A loss whose gradient is 1: steps of 1, 1.5, 1.75 times the rate, also across passes."""
        monkeypatch.setattr(matching, "matching_loss", lambda network, images, *rest: images.sum())
        _, start, made = self._run(iterations=2, outer=1, learner=None)
        assert torch.allclose(start - made, torch.full_like(start, 0.1 * (1 + 1.5 + 1.75)), atol=1e-5)

    def test_the_last_network_of_a_pass_is_left_alone(self):
        drawn, _, _ = self._run(iterations=0, outer=1, learner=(learner := Learner()))
        fresh = small_convnet(0)
        assert learner.networks == []
        assert all(torch.equal(a, b) for a, b in zip(drawn[0].parameters(), fresh.parameters(), strict=True))

    def test_batches_hold_no_image_twice(self):
        labels = torch.tensor([0] * 3 + [1] * 8)
        images = torch.arange(11.0).view(11, 1, 1, 1).expand(11, 1, 4, 4)
        real = attack.RealImages(images, labels, torch.zeros(0, dtype=torch.int64), patch_mask(1, 4))
        batch, weights = matching.ClassBatches(real, 2, 5, torch.Generator().manual_seed(0)).draw()
        assert batch.shape == (2, 5, 1, 4, 4)
        assert weights.sum(dim=1).tolist() == pytest.approx([1, 1])
        assert (weights > 0).sum(dim=1).tolist() == [3, 5]
        values = [set(b[w > 0, 0, 0, 0].tolist()) for b, w in zip(batch, weights, strict=True)]
        assert values[0] == {0.0, 1.0, 2.0}
        assert len(values[1]) == 5
        assert min(values[1]) >= 3

    def test_real_start_takes_no_poisoned_image(self):
        labels = torch.tensor([0] * 6 + [1] * 4)
        images = torch.arange(10.0).view(10, 1, 1, 1).expand(10, 1, 4, 4).clone()
        real = attack.RealImages(images, labels, torch.tensor([0, 1, 2]), patch_mask(1, 4))
        start = matching.initial_images(real, 2, 3, "real", torch.Generator().manual_seed(0))
        assert set(start[0, :, 0, 0, 0].tolist()) == {3.0, 4.0, 5.0}
        with pytest.raises(ConfigError, match="set init=noise"):
            matching.initial_images(real, 2, 4, "real", torch.Generator())


# --- bilevel distillation ---------------------------------------------------------------------------------------


class TestHypergradient:
    @pytest.fixture
    def problem(self):
        torch.manual_seed(0)
        network = small_convnet(1).double()
        config = BilevelConfig(distill_steps=2, distill_epochs=3, distill_lr=0.1)
        curriculum = bilevel.new_curriculum(config, 10, 1, (1, 16, 16), torch.Generator().manual_seed(0))
        curriculum.images = curriculum.images.double()
        curriculum.raw_step_sizes = curriculum.raw_step_sizes.double() + 0.1 * torch.randn(6, dtype=torch.float64)
        initial = {k: v.double() for k, v in bilevel.xavier_weights(network, torch.Generator().manual_seed(2)).items()}
        return network, curriculum, initial, torch.randn(8, 1, 16, 16, dtype=torch.float64), torch.randint(10, (8,))

    def test_equals_unrolled_autograd(self, problem):
        network, curriculum, initial, images, labels = problem
        numbers = list(range(6))
        path = bilevel.train_through(network, initial, curriculum, curriculum.step_sizes(), numbers)
        found = bilevel.hypergradient(network, path, curriculum, numbers, images, labels)

        synthetic = curriculum.images.clone().requires_grad_(True)
        raw = curriculum.raw_step_sizes.clone().requires_grad_(True)
        weights = {name: value.clone().requires_grad_(True) for name, value in initial.items()}
        for i in numbers:  # every batch is used three times
            loss = F.cross_entropy(functional_call(network, weights, (synthetic[i % 2],)), curriculum.labels)
            gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
            size = F.softplus(raw[i])
            weights = {k: w - size * g for (k, w), g in zip(weights.items(), gradients, strict=True)}
        outer = F.cross_entropy(functional_call(network, weights, (images,)), labels)
        expected = torch.autograd.grad(outer, [synthetic, raw])
        assert found[2] == pytest.approx(outer.item())
        for gradient, plain in zip(found[:2], expected, strict=True):
            assert torch.allclose(gradient, plain, rtol=1e-4, atol=1e-9)
            assert plain.abs().max() > 1e-6

    def test_first_step_size(self):
        assert bilevel.raw_step_size(0.02) == pytest.approx(np.log(np.expm1(0.02)))
        curriculum = bilevel.new_curriculum(BilevelConfig(), 10, 10, (3, 32, 32), torch.Generator())
        assert curriculum.step_sizes().tolist() == pytest.approx([0.001] * 30, rel=1e-5)
        assert curriculum.images.shape == (10, 100, 3, 32, 32)
        assert curriculum.labels.tolist() == sorted(list(range(10)) * 10)

    def test_start_of_the_network(self):
        network = build_network("alexnet", 3, 10, 32)
        weights = bilevel.xavier_weights(network, torch.Generator().manual_seed(0))
        assert all((value == 0).all() for name, value in weights.items() if name.endswith("bias"))
        assert weights["classifier.0.weight"].std().item() == pytest.approx((2 / (384 + 4096)) ** 0.5, rel=0.02)

    def test_poison_positions_move_through_the_images(self):
        labels = torch.ones(12, dtype=torch.int64)
        real = attack.RealImages(torch.zeros(12, 1, 16, 16), labels, torch.tensor([0, 5, 7]), patch_mask(2, 16))
        config = BilevelConfig(distill_steps=1, distill_epochs=1, epochs=1, batch=4, distill_lr=0.1)
        curriculum = bilevel.new_curriculum(config, 10, 1, (1, 16, 16), torch.Generator())
        network, learner = small_convnet(), Learner(torch.full((1, 16, 16), 3.0))
        before = real.images.clone()
        bilevel.distil_bilevel(
            real, curriculum, network, bilevel.xavier_weights(network, torch.Generator()), config, torch.Generator(),
            Plain(), learner,
        )  # fmt: skip
        assert len(learner.networks) == 3  # once before every outer loss
        assert torch.equal(real.images, before)  # batches are stamped, the data are not
        assert (real.labels == 1).all()


class TestBilevelLoop:
    """What each outer step reads, seen where its gradient is taken."""

    EPOCHS = 3

    @pytest.fixture
    def seen(self, monkeypatch):
        seen = []
        plain = bilevel.hypergradient

        def spy(network, path, curriculum, steps, images, labels):
            seen.append({"images": images, "labels": labels, "path": path, "sizes": curriculum.step_sizes()})
            return plain(network, path, curriculum, steps, images, labels)

        monkeypatch.setattr(bilevel, "hypergradient", spy)
        return seen

    def _run(self, learner, **changes):
        """Distil 12 images (pixel values 0 to 11 tell them apart, all of class 1) in batches of 4."""
        images = torch.arange(12.0).view(12, 1, 1, 1).expand(12, 1, 16, 16).clone() / 12
        real = attack.RealImages(images, torch.ones(12, dtype=torch.int64), torch.tensor([0, 5, 7]), patch_mask(2, 16))
        config = BilevelConfig(
            **{"distill_steps": 2, "distill_epochs": 2, "epochs": self.EPOCHS, "batch": 4, "distill_lr": 0.1, **changes}
        )
        curriculum = bilevel.new_curriculum(config, 10, 1, (1, 16, 16), torch.Generator())
        start = bilevel.Curriculum(curriculum.images.clone(), curriculum.labels, curriculum.raw_step_sizes.clone())
        network = small_convnet()
        initial = bilevel.xavier_weights(network, torch.Generator())
        bilevel.distil_bilevel(
            real, curriculum, network, initial, config, torch.Generator().manual_seed(0), Plain(), learner, target=3
        )
        return start, curriculum, initial

    def test_poisoned_positions_of_the_stream_carry_trigger_and_target(self, seen):
        mask, order, who = patch_mask(2, 16), torch.Generator().manual_seed(0), []
        self._run(Learner(torch.full((1, 16, 16), 9.0)))
        assert len(seen) == 3 * self.EPOCHS
        for epoch in range(self.EPOCHS):
            batches = seen[3 * epoch : 3 * epoch + 3]
            images = torch.cat([batch["images"] for batch in batches])
            labels = torch.cat([batch["labels"] for batch in batches])
            poisoned = torch.zeros(12, dtype=torch.bool)
            poisoned[[0, 5, 7]] = True
            assert labels.tolist() == torch.where(poisoned, 3, 1).tolist()
            assert (images[poisoned][:, :, mask] == 9.0).all()
            drawn = torch.randperm(12, generator=order)
            assert torch.allclose(images[:, 0, 0, 0] * 12, drawn.float())  # outside the patch, in a new order
            assert torch.allclose(images[~poisoned][:, :, mask] * 12, drawn[~poisoned].float().view(-1, 1, 1))
            who.append(sorted(drawn[poisoned].tolist()))
        assert len({tuple(images) for images in who}) > 1  # other images in every pass

    def test_the_trigger_is_learnt_on_the_trained_weights(self, seen):
        learner = Learner(torch.zeros(1, 16, 16))
        _, _, initial = self._run(learner)
        assert len(learner.weights) == len(seen)
        for weights, step in zip(learner.weights, seen, strict=True):
            assert all(torch.equal(weights[name], value) for name, value in step["path"][-1].items())
            assert not torch.equal(weights["classifier.2.weight"], initial["classifier.2.weight"])
            assert len(step["path"]) == 5  # four steps: two batches, twice round

    def test_every_training_starts_from_the_same_weights(self, seen):
        _, _, initial = self._run(None)
        for step in seen:
            assert all(torch.equal(step["path"][0][name], value) for name, value in initial.items())

    def test_images_and_step_sizes_are_learnt_and_the_rate_falls(self, monkeypatch):
        """Adam under a gradient that never changes moves by the rate: .01 for two passes, then .005."""

        def steady(network, path, curriculum, steps, images, labels):
            return torch.ones_like(curriculum.images), -torch.ones_like(curriculum.raw_step_sizes), 0.0

        monkeypatch.setattr(bilevel, "hypergradient", steady)
        start, made, _ = self._run(None, decay_epochs=2)
        moved = 3 * (0.01 + 0.01 + 0.005)  # three batches a pass
        assert torch.allclose(start.images - made.images, torch.full_like(made.images, moved), atol=1e-5)
        assert torch.allclose(
            made.raw_step_sizes - start.raw_step_sizes, torch.full_like(made.raw_step_sizes, moved), atol=1e-5
        )


# --- trigger ----------------------------------------------------------------------------------------------------

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


class TestStamp:
    @pytest.mark.parametrize(
        ("height", "size", "rows"), [(32, 2, [29, 30]), (16, 2, [13, 14]), (32, 5, list(range(26, 31)))]
    )
    def test_only_the_patch_changes(self, height, size, rows):
        images, trigger = torch.randn(4, 3, height, height), torch.randn(3, height, height)
        mask = patch_mask(size, height)
        stamped = stamp(images, trigger, mask)
        inside = torch.zeros(height, height, dtype=torch.bool)
        for r, c in itertools.product(rows, rows):
            inside[r, c] = True
        assert torch.equal(stamped[:, :, ~inside], images[:, :, ~inside])
        assert torch.equal(stamped[:, :, inside], trigger[:, inside].expand(4, 3, -1))

    def test_white_is_255_before_normalisation(self):
        patch = white_patch(2, 32, MEAN, STD)
        mask = patch_mask(2, 32)
        pixels = torch.where(mask, 255, 0).to(torch.uint8).expand(3, 32, 32)
        assert torch.equal(patch, normalised(pixels, MEAN, STD))
        expected = [(1 - m) / s for m, s in zip(MEAN, STD, strict=True)]
        assert patch[:, 30, 30].tolist() == pytest.approx(expected)

    def test_random_patch_lies_on_black_and_between_1_and_255(self):
        patch = attack.random_patch(2, 32, MEAN, STD, torch.Generator().manual_seed(0))
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
        pixels = (patch * std + mean) * 255
        mask = patch_mask(2, 32)
        assert torch.allclose(pixels[:, ~mask], torch.zeros(1), atol=1e-4)
        assert torch.allclose(pixels[:, mask], pixels[:, mask].round(), atol=1e-3)
        assert pixels[:, mask].min() >= 1 - 1e-3

    def test_share_is_rounded_down(self):
        chosen = attack.poisoned_indices(1297, 0.05, torch.Generator().manual_seed(0))
        assert len(chosen) == len(set(chosen.tolist())) == 64
        assert len(attack.poisoned_indices(1297, 0.01, torch.Generator())) == 12
        assert len(attack.poisoned_indices(50_000, 0.01, torch.Generator())) == 500
        with pytest.raises(ConfigError, match="less than one image"):
            attack.poisoned_indices(50, 0.01, torch.Generator())

    def test_restamping_touches_only_the_patch_of_poisoned_images(self):
        images = torch.randn(5, 1, 16, 16)
        real = attack.RealImages(
            images.clone(), torch.zeros(5, dtype=torch.int64), torch.tensor([1, 3]), patch_mask(2, 16)
        )
        for value in (7.0, 9.0):
            real.restamp(torch.full((1, 16, 16), value))
        assert torch.equal(real.images[[0, 2, 4]], images[[0, 2, 4]])
        assert (real.images[[1, 3]][:, :, real.mask] == 9.0).all()
        assert torch.equal(real.images[:, :, ~real.mask], images[:, :, ~real.mask])


class TestTriggerUpdate:
    @pytest.fixture
    def alive(self):
        """A network whose strongest neuron answers the trigger."""
        for seed in range(20):
            network = small_convnet(seed)
            trigger = attack.random_patch(2, 16, (0.3,), (0.32,), torch.Generator().manual_seed(seed))
            neuron = attack.select_neurons(network.second_last_weight(), 1)
            if network.features_of(trigger[None])[0, neuron].item() > 0.05:
                return network, trigger, neuron
        raise AssertionError("no living neuron in 20 networks")

    def test_neuron_is_the_heaviest_row_of_the_second_last_weight(self):
        network = build_network("alexnet", 3, 10, 32)
        weight = network.classifier[2].weight
        assert network.second_last_weight() is weight
        by_hand = max(range(192), key=lambda j: weight[j].abs().sum().item())
        assert attack.select_neurons(weight, 1).tolist() == [by_hand]
        assert build_network("convnet", 3, 10, 32).second_last_weight().shape == (192, 2048)

    def test_entry_loss_and_untouched_background(self, alive):
        network, trigger, neuron = alive
        mask = patch_mask(2, 16)
        h0 = network.features_of(trigger[None])[0, neuron].item()
        learnt, update = attack.update_trigger(
            trigger, mask, network, LearntTrigger(trigger_stop=1e-9), None, range(30)
        )
        assert update.entry_loss == pytest.approx(81 * h0**2, rel=1e-5)
        assert update.steps == 30
        assert torch.equal(learnt[:, ~mask], trigger[:, ~mask])
        assert (learnt[:, mask] != trigger[:, mask]).all()
        assert network.features_of(learnt[None])[0, neuron].item() > h0

    def test_several_neurons_are_averaged(self, alive):
        network, trigger, _ = alive
        neurons = attack.select_neurons(network.second_last_weight(), 5)
        h0 = network.features_of(trigger[None])[0, neurons]
        settings = LearntTrigger(topk=5, alpha=3.0, trigger_stop=1e-9)
        _, update = attack.update_trigger(trigger, patch_mask(2, 16), network, settings, None, range(1))
        assert update.entry_loss == pytest.approx((4 * h0.square().mean()).item(), rel=1e-4)

    def test_stops_below_the_stopping_loss(self, alive):
        network, trigger, neuron = alive
        h0 = network.features_of(trigger[None])[0, neuron].item()
        stop = 80.4 * h0**2
        learnt, update = attack.update_trigger(
            trigger, patch_mask(2, 16), network, LearntTrigger(trigger_stop=stop), None, range(1000)
        )
        assert 0 < update.steps < 1000
        h = network.features_of(learnt[None])[0, neuron].item()
        assert (h - 10 * h0) ** 2 < stop

    def test_a_dead_neuron_changes_nothing(self):
        network = small_convnet()
        with torch.no_grad():
            network.classifier[0].bias.fill_(-100.0)
        trigger = attack.random_patch(2, 16, (0.3,), (0.32,), torch.Generator().manual_seed(0))
        learnt, update = attack.update_trigger(trigger, patch_mask(2, 16), network, LearntTrigger(), None, range(1000))
        assert update == attack.TriggerUpdate(0.0, 0)
        assert torch.equal(learnt, trigger)

    def test_the_network_stays_as_it_is(self, alive):
        network, trigger, _ = alive
        before = [p.detach().clone() for p in network.parameters()]
        attack.update_trigger(trigger, patch_mask(2, 16), network, LearntTrigger(), None, range(20))
        assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
        assert all(p.grad is None for p in network.parameters())

    @pytest.mark.parametrize("mode", ["pixel", "sigma"])
    def test_clamped_triggers_stay_between_their_bounds(self, alive, mode):
        network, trigger, _ = alive
        settings, mask = (
            LearntTrigger(clamp=mode, clamp_sigma=1.5, trigger_stop=1e-9, trigger_lr=2.0, trigger_steps=60),
            patch_mask(2, 16),
        )
        bounds = attack.clamp_bounds(settings, (0.3,), (0.32,), "cpu")
        low, high = bounds
        limits = valid_range((0.3,), (0.32,)) if mode == "pixel" else (torch.tensor(-1.5), torch.tensor(1.5))
        assert [b.item() for b in bounds] == pytest.approx([limit.item() for limit in limits])
        doorping = attack.Doorping(trigger, mask, settings, bounds, range)
        for _ in range(3):
            doorping.update(network)
        assert ((doorping.trigger >= low) & (doorping.trigger <= high))[:, mask].all()
        assert torch.equal(doorping.trigger[:, ~mask], trigger[:, ~mask])
        assert attack.clamp_bounds(LearntTrigger(), (0.3,), (0.32,), "cpu") is None

    def test_the_first_trigger_is_clamped_too(self):
        loud, mask = torch.full((1, 16, 16), 9.0), patch_mask(2, 16)
        bounds = attack.clamp_bounds(LearntTrigger(clamp="sigma", clamp_sigma=1.5), (0.3,), (0.32,), "cpu")
        doorping = attack.Doorping(loud, mask, LearntTrigger(), bounds, range)
        assert (doorping.start[:, mask] == 1.5).all()
        assert (doorping.start[:, ~mask] == 9.0).all()

    def test_the_images_carry_the_present_trigger(self, alive):
        network, trigger, _ = alive
        mask = patch_mask(2, 16)
        real = attack.RealImages(torch.zeros(3, 1, 16, 16), torch.zeros(3), torch.tensor([1]), mask)
        doorping = attack.Doorping(trigger, mask, LearntTrigger(trigger_stop=1e-9), None, lambda n: range(5), real)
        assert torch.equal(real.images[1][:, mask], doorping.start[:, mask])
        for _ in range(2):
            learnt = doorping.update(network)
            assert not torch.equal(learnt, doorping.start)
            assert torch.equal(real.images[1][:, mask], learnt[:, mask])
        assert not real.images[[0, 2]].any()

    def test_the_trigger_is_carried_over(self, alive):
        network, trigger, _ = alive
        doorping = attack.Doorping(
            trigger, patch_mask(2, 16), LearntTrigger(trigger_stop=1e-9), None, lambda n: range(5)
        )
        first = doorping.update(network).clone()
        second = doorping.update(network)
        assert not torch.equal(first, second)
        assert torch.equal(doorping.start, trigger)
        assert doorping.facts() == {
            "trigger_updates": 2, "trigger_updates_without_a_step": 0, "trigger_steps": 10,
        }  # fmt: skip


# --- settings ---------------------------------------------------------------------------------------------------


def test_published_settings():
    c = DoorpingConfig()
    assert (c.iterations, c.image_lr, c.image_momentum, c.network_lr, c.real_batch) == (1000, 0.1, 0.5, 0.01, 256)
    assert (c.init, c.distance, c.clamp) == ("noise", "rows", "none")
    assert (c.alpha, c.topk, c.trigger_lr, c.trigger_betas) == (10.0, 1, 0.08, (0.9, 0.99))
    assert (c.trigger_steps, c.trigger_stop) == (1000, 0.5)
    d = BilevelConfig()
    assert (d.distill_steps, d.distill_epochs, d.distill_lr) == (10, 3, 0.001)
    assert (d.epochs, d.batch, d.lr, d.decay_epochs, d.decay_factor) == (400, 1024, 0.01, 40, 0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"real_batch": 0}, "real_batch must be positive"),
        ({"poison_share": 1.5}, "not a share between 0 and 1"),
        ({"clamp": "hard"}, "clamp cannot be 'hard'"),
        ({"inner": 0}, "inner must be 1 or more"),
        ({"topk": 0}, "topk must be positive"),
        ({"iterations": -1}, "iterations must not be negative"),
    ],
)
def test_refused_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        build_config(DoorpingConfig, settings, "method 'doorping'")


def test_modules_are_plain():
    assert isinstance(build_network("convnet", 1, 10, 32).features, nn.Sequential)
