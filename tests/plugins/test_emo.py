"""EMO's networks: sizes, names and operations as published, parity with a transcription, windows, deployed forms."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("torchvision")
pytest.importorskip("timm")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_emo import attended, plain_emo
from torch import Tensor, nn

from benchsuite.core.errors import ConfigError
from benchsuite.tasks.visual_recognition.costs import count_operations
from benchsuite_emo.backbones import build_classifier, build_features, unstride_stem
from benchsuite_emo.blocks import IRMB, BlockShape, DropPath, from_windows, to_windows
from benchsuite_emo.deploying import deployed, export_onnx
from benchsuite_emo.model import EMO_VARIANTS, EMOFeatures, build_emo
from benchsuite_emo.weights import load_backbone, load_whole, official_state, save_state

# parameters in all, of stem and phases; multiply-adds at 224; entries of the state dict, digest of names, shapes,
# types.
PUBLISHED = {
    "emo_1m": (1_361_168, (2_760, 11_504, 27_840, 452_704, 697_024), 260_843_664, 217, "ea6aac9b8a65ba89"),
    "emo_2m": (2_377_472, (2_760, 16_432, 40_896, 1_062_624, 1_053_360), 439_363_064, 258, "4579a2fb4f4cda52"),
    "emo_5m": (5_108_848, (2_760, 29_040, 105_792, 2_346_384, 2_335_296), 902_583_776, 258, "952e8a77e41d03f3"),
    "emo_6m": (6_168_496, (2_760, 29_040, 105_792, 2_346_384, 3_362_880), 960_752_512, 258, "62dc714fbec761f0"),
}
PEERS = ("mobilenetv3_small_050", "starnet_s050", "mobilenetv4_conv_small_035", "mobilevit_xxs")


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def with_values(network: Any, seed: int = 0) -> Any:
    """Give norms values that a training would leave, so that none of them is the identity."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
        elif ("norm" in name or "convs.0.1" in name) and value.is_floating_point():
            middle = 1.0 if name.endswith("weight") else 0.0
            value.copy_(middle + 0.3 * torch.randn(value.shape, generator=generator))
    return network.eval()


def block(**changes: Any) -> Any:
    torch.manual_seed(0)
    shape = {"inputs": 16, "outputs": 16, "expansion": 2.0, "norm": "ln", "attention": True, "head_width": 8}
    return IRMB(BlockShape(**(shape | changes))).eval()


@pytest.mark.parametrize("variant", PUBLISHED)
def test_sizes_names_and_operations_are_the_published_ones(variant: str) -> None:
    network, (parameters, stages, operations, entries, digest) = build_emo(variant), PUBLISHED[variant]
    assert count(network) == parameters
    assert tuple(count(getattr(network, f"stage{i}")) for i in range(5)) == stages
    state = network.state_dict()
    lines = sorted(
        f"{name},{'x'.join(map(str, value.shape)) or 'scalar'},{str(value.dtype).removeprefix('torch.')}"
        for name, value in state.items()
    )
    assert len(lines) == entries
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] == digest
    assert count_operations(network, (1, 3, 224, 224)).total == operations


def test_kinds_of_operations_and_those_of_padded_maps() -> None:
    network = build_emo("emo_1m")
    found = count_operations(network, (1, 3, 224, 224))
    assert (found.convolution, found.matmul) == (242_699_720, 12_369_952)
    assert (found.batch_norm, found.layer_norm, found.linear) == (4_667_152, 938_840, 168_000)
    assert round(count_operations(network, (1, 3, 256, 256)).total / 1e6, 1) == 437.6


def test_ablations_of_the_sheet_have_their_sizes() -> None:
    for attention, parameters in (
        ((False,) * 4, 4_363_760),
        ((False,) * 3 + (True,), 4_696_688),
        ((True,) * 4, 5_139_280),
    ):
        assert count(build_emo("emo_5m", attention=attention)) == parameters
    later = build_emo("emo_5m", attend_first=False)
    assert (count(later), count_operations(later, (1, 3, 224, 224)).total) == (5_108_848, 943_612_064)
    nano = {"attention": (False,) * 4}, {"depthwise": False}, {}
    assert [count(build_emo("emo_nano", 10, **changes)) for changes in nano] == [48_166, 54_214, 56_150]


@pytest.mark.parametrize(("variant", "size"), [("emo_1m", (224, 224)), ("emo_1m", (160, 200)), ("emo_nano", (75, 61))])
@torch.no_grad()
def test_logits_are_those_of_a_plain_transcription(variant: str, size: tuple[int, int]) -> None:
    network = with_values(build_emo(variant))
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    expected = plain_emo(network.state_dict(), network.shape, images)
    assert (network(images) - expected).abs().max() < 2e-6


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
def test_windows_are_strided_and_come_back(rows: int, columns: int, high: int, wide: int, channels: int) -> None:
    x = torch.arange(2 * channels * rows * high * columns * wide).reshape(2, channels, rows * high, columns * wide)
    windows = to_windows(x, rows, columns)
    for number in range(rows * columns):
        row, column = divmod(number, columns)
        for batch in range(2):
            assert torch.equal(windows[batch * rows * columns + number], x[batch, :, row::rows, column::columns])
    assert torch.equal(from_windows(windows, rows, columns), x)


@pytest.mark.parametrize(("side", "step"), [(7, 1), (14, 2), (28, 4)])
@torch.no_grad()
def test_a_pixel_reaches_the_49_of_its_window(side: int, step: int) -> None:
    found = block()
    nn.init.zeros_(found.conv_local.conv.weight)
    images = torch.randn(1, 16, side, side, generator=torch.Generator().manual_seed(2))
    other = images.clone()
    other[0, :, 3, 5] += torch.randn(16, generator=torch.Generator().manual_seed(3))
    changed = ((found(images) - found(other)).abs().amax(dim=(0, 1)) > 1e-7).nonzero()
    assert len(changed) == 49
    assert {(int(r) % step, int(c) % step) for r, c in changed} == {(3 % step, 5 % step)}


@torch.no_grad()
def test_attention_knows_no_positions_but_the_depthwise_convolution_does() -> None:
    found = block()
    images = torch.randn(1, 16, 14, 14, generator=torch.Generator().manual_seed(2))
    order = torch.randperm(49, generator=torch.Generator().manual_seed(3))

    def permuted(x: Tensor) -> Tensor:
        windows = to_windows(x, 2, 2)
        return from_windows(windows.flatten(2)[:, :, order].unflatten(2, (7, 7)), 2, 2)

    assert (found(permuted(images)) - permuted(found(images))).abs().max() > 0.01
    nn.init.zeros_(found.conv_local.conv.weight)
    assert (found(permuted(images)) - permuted(found(images))).abs().max() < 1e-5


@torch.no_grad()
def test_padded_keys_are_live_zeros() -> None:
    found = block(norm="none")
    nn.init.normal_(found.qk.conv.bias)
    images = torch.randn(2, 16, 10, 12, generator=torch.Generator().manual_seed(2))
    state = {f"b.{name}": value for name, value in found.state_dict().items()}
    expected = attended(state, "b", images, 8, 7)
    assert expected.shape[2:] == (14, 14)
    assert (found._attended(images) - found.v(expected)[:, :, :10, :12]).abs().max() < 1e-6
    padded = to_windows(torch.nn.functional.pad(images, (0, 2, 0, 4)), 2, 2)
    assert found.attention(padded)[0, 0, 0].sum().item() == pytest.approx(1, abs=1e-6)
    assert (found.attention(padded)[3, 0, 0].reshape(7, 7)[5:] > 0).all()


@torch.no_grad()
def test_attending_first_is_another_function_unless_nothing_lies_between() -> None:
    images = torch.randn(2, 16, 7, 7, generator=torch.Generator().manual_seed(2))

    def apart(**changes: Any) -> float:
        first, later = (block(attend_first=when, **changes) for when in (True, False))
        later.load_state_dict(first.state_dict())
        return float((first._attended(3 * images) - later._attended(3 * images)).abs().max())

    for free in ({"head_width": 16}, {"group_values": True}):
        assert apart(activation="none", **free) < 1e-4
    assert apart(activation="none") > 0.01
    assert apart(activation="gelu", head_width=16) > 0.01


def test_values_that_do_not_fit_heads_are_refused() -> None:
    with pytest.raises(ValueError, match="588 expanded channels cannot be parted among 8 heads"):
        build_emo("emo_1m", attend_first=False)
    with pytest.raises(ValueError, match="16 channels cannot be parted into heads of 5"):
        block(head_width=5)


def test_a_window_of_zero_is_the_whole_map() -> None:
    whole, tiled = block(window=0), block(window=7)
    x = torch.randn(1, 16, 7, 7)
    assert torch.equal(whole(x), tiled(x))
    assert whole(torch.randn(1, 16, 9, 5)).shape == (1, 16, 9, 5)


def test_dropped_paths_are_whole_samples_in_training_only() -> None:
    drop, x = DropPath(0.5), torch.ones(64, 2, 3, 3)
    assert torch.equal(drop.eval()(x), x)
    torch.manual_seed(0)
    found = drop.train()(x)
    assert {float(value) for value in found.flatten(1).mean(dim=1)} == {0.0, 2.0}
    network = build_emo("emo_nano", 10, drop_path=0.9).eval()
    images = torch.randn(8, 3, 32, 32)
    assert torch.equal(network(images), network(images))
    network.train()
    assert not torch.equal(network(images), network(images))


def test_rates_of_dropped_paths_grow_from_nothing() -> None:
    network = build_emo("emo_1m")
    rates = [
        getattr(part.drop_path, "rate", 0.0) for phase in range(1, 5) for part in getattr(network, f"stage{phase}")
    ]
    assert rates[0] == 0
    assert rates[-1] == pytest.approx(0.04036)
    assert all(later - earlier == pytest.approx(0.04036 / 14) for earlier, later in pairwise(rates))


@pytest.mark.parametrize("variant", ["emo_1m", "emo_nano"])
@pytest.mark.parametrize("size", [(64, 64), (224, 224), (75, 100)])
@torch.no_grad()
def test_the_deployed_form_gives_the_same(variant: str, size: tuple[int, int]) -> None:
    network = with_values(build_emo(variant, 10))
    found = deployed(network)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in found.modules())
    images = torch.randn(2, 3, *size)
    assert (network(images) - found(images)).abs().max() < 1e-5


@pytest.mark.parametrize(
    "changes",
    [
        {"attention": (True,) * 4},
        {"attention": (False,) * 4},
        {"depthwise": False},
        {"attend_first": False},
        {"window": 0},
    ],
)
@torch.no_grad()
def test_variants_of_the_block_deploy_too(changes: dict[str, Any]) -> None:
    network = with_values(build_emo("emo_nano", 10, **changes))
    images = torch.randn(2, 3, 96, 80)
    assert (network(images) - deployed(network)(images)).abs().max() < 1e-5


@pytest.mark.parametrize("name", PEERS)
@torch.no_grad()
def test_networks_of_timm_deploy_without_batch_norms_behind_convolutions(name: str) -> None:
    network = build_classifier(name, 10, {}).eval()
    for value in network.buffers():
        if value.is_floating_point():
            value.add_(0.1)
    found, images = deployed(network), torch.randn(2, 3, 64, 64)
    expected = network(images)
    assert (expected - found(images)).abs().max() < 1e-4 * max(1, float(expected.abs().max()))
    assert sum(isinstance(part, nn.BatchNorm2d) for part in found.modules()) <= 1
    assert any(isinstance(part, nn.BatchNorm2d) for part in network.modules())


def test_features_are_maps_of_the_wanted_strides() -> None:
    for name in ("emo_nano", "mobilenetv3_small_050", "starnet_s050"):
        features = build_features(name, (8, 32), {})
        maps = features(torch.randn(2, 3, 64, 96))
        assert features.strides == (8, 32)
        assert [tuple(m.shape[2:]) for m in maps] == [(8, 12), (2, 3)]
        assert tuple(m.shape[1] for m in maps) == features.channels


def test_odd_names_and_settings_are_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match="there is no backbone 'emo_3m'"):
        build_classifier("emo_3m", 10, {})
    with pytest.raises(ConfigError, match="attention is a setting of EMO networks only"):
        build_classifier("mobilenetv3_small_050", 10, {"attention": (False,) * 4})
    with pytest.raises(ConfigError, match="has no map of stride 8"):
        build_features("shvit_s1", (8, 16), {})


def test_an_unstrided_stem_doubles_all_maps() -> None:
    for name in ("emo_nano", "mobilenetv3_small_050", "starnet_s050"):
        network = build_features(name, (16,), {})
        before = network(torch.randn(2, 3, 64, 64))[0].shape[2]
        unstride_stem(network)
        assert network(torch.randn(2, 3, 64, 64))[0].shape[2] == 2 * before


# --- checkpoints ---


def test_released_files_load_flat_or_out_of_a_kept_training(tmp_path: Any) -> None:
    source, target = with_values(build_emo("emo_1m"), seed=5), build_emo("emo_1m")
    torch.save(source.state_dict(), tmp_path / "net.pth")
    load_whole(target, tmp_path / "net.pth")
    assert all(torch.equal(value, target.state_dict()[name]) for name, value in source.state_dict().items())
    kept = {"net": target.state_dict(), "net_E": source.state_dict(), "iter": 3, "optimizer": {}}
    torch.save(kept, tmp_path / "latest_ckpt.pth")
    assert torch.equal(official_state(tmp_path / "latest_ckpt.pth")["head.bias"], source.head.bias)
    torch.save({"net": source.state_dict()}, tmp_path / "half.pth")
    with pytest.raises(ConfigError, match="without 'net_E'"):
        official_state(tmp_path / "half.pth")


def test_a_backbone_takes_what_it_has_and_cuts_the_head(tmp_path: Any) -> None:
    source = build_emo("emo_nano", 20)
    nn.init.normal_(source.head.bias)
    save_state(source, tmp_path / "net.pth")
    dense = EMOFeatures(build_emo("emo_nano", 0)).network
    assert load_backbone(dense, tmp_path / "net.pth") == len(dense.state_dict())
    assert torch.equal(dense.stage4[1].proj.conv.weight, source.stage4[1].proj.conv.weight)
    fewer, more = build_emo("emo_nano", 10), build_emo("emo_nano", 30)
    load_backbone(fewer, tmp_path / "net.pth")
    assert torch.equal(fewer.head.bias, source.head.bias[:10])
    own = more.head.bias.clone()
    load_backbone(more, tmp_path / "net.pth")
    assert torch.equal(more.head.bias, own)
    assert torch.equal(more.norm.norm.weight, source.norm.norm.weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("stage1.0.norm.weight"), "lacks stage1.0.norm.weight"),
        (lambda s: s.update(more=torch.zeros(1)), "has the unknown more"),
        (lambda s: s.update({"head.bias": torch.zeros(9)}), "head.bias is torch.float32"),
        (lambda s: s.update({"head.bias": torch.full((10,), float("nan"))}), "head.bias is not finite"),
        (lambda s: s.update({"head.bias": 3}), "'head.bias' is not a tensor"),
    ],
)
def test_odd_checkpoints_are_refused_in_one_line(tmp_path: Any, change: Any, message: str) -> None:
    network = build_emo("emo_nano", 10)
    state = dict(network.state_dict())
    change(state)
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(ConfigError, match=message) as error:
        load_whole(network, tmp_path / "net.pth")
    assert "\n" not in str(error.value)


def test_files_that_are_no_checkpoints_are_refused(tmp_path: Any) -> None:
    (tmp_path / "a.pth").write_bytes(b"no")
    torch.save([1], tmp_path / "b.pth")
    for name, message in (("a.pth", "cannot be read"), ("b.pth", "holds a list"), ("c.pth", "no file")):
        with pytest.raises(ConfigError, match=message):
            official_state(tmp_path / name)


# --- registries and exports ---


def test_timm_and_mmengine_find_the_networks(tmp_path: Any) -> None:
    import timm

    import benchsuite_emo.registries  # noqa: F401

    assert set(EMO_VARIANTS) <= set(timm.list_models("emo_*"))
    assert count(timm.create_model("emo_1m")) == 1_361_168
    save_state(build_emo("emo_nano", 7), tmp_path / "net.pth")
    loaded = timm.create_model("emo_nano", num_classes=7, checkpoint_path=str(tmp_path / "net.pth"))
    assert loaded.head.weight.shape == (7, 48)
    maps = timm.create_model("emo_nano", features_only=True, out_indices=(3, 4))
    assert maps.feature_info.reduction() == [16, 32]
    assert [m.shape[2] for m in maps(torch.randn(1, 3, 64, 64))] == [4, 2]
    with pytest.raises(ConfigError, match="no weights to download"):
        timm.create_model("emo_1m", pretrained=True)
    mmengine = pytest.importorskip("mmengine.registry")
    built = mmengine.MODELS.build({"type": "EMO", "variant": "emo_nano", "out_indices": (1, 2, 3, 4)})
    assert built.channels == (16, 24, 40, 48)


def test_the_exported_file_gives_the_same(tmp_path: Any) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    network = with_values(build_emo("emo_nano", 10))
    export_onnx(network, tmp_path / "net.onnx", 64)
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        images = torch.randn(batch, 3, 64, 64)
        found = session.run(None, {"images": images.numpy()})[0]
        assert (network(images) - torch.from_numpy(found)).abs().max() < 1e-4


def test_shapes_can_be_changed_by_name() -> None:
    assert build_emo("emo_5m", window=16).shape == replace(EMO_VARIANTS["emo_5m"], window=16)
