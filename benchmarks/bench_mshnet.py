"""MSHNet at its published size (ResNet-50, 473 px, one thread): an episode, beside a plain transcription with loops.

The transcription does what the paper's fact sheet writes down, one sample, shot and block after the other: maps of
query and supports in passes of their own, pair tensors for GPS, every similarity in a loop. Same weights, same output.

python benchmarks/bench_mshnet.py [--size 473] [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchsuite.tasks.fewshot_semantic_segmentation.networks import build_backbone
from benchsuite_mshnet.config import MSHNetConfig
from benchsuite_mshnet.model import MSHNet, resized

FULL = MSHNetConfig(gps_width=128, cosine_width=256, merge_width=512, head_width=128, dropout=0.2)
TARGET, TOLERANCE = 1.5, 1e-5


def plain_maps(
    model: MSHNet, query: list[Tensor], supports: list[list[Tensor]], masks: Tensor
) -> list[list[list[Tensor]]]:
    """Return similarity maps [shot][cosine, gps][block] of one episode, block by block."""
    found = []
    for shot, maps in enumerate(supports):
        soft, width = masks[shot][None, None], query[0].shape[3]
        soft = F.interpolate(soft, (2 * width, 2 * width), mode="bilinear", align_corners=True)
        cosines, generated, place = [], [], 0
        for level, count in enumerate(model.learner.blocks):
            for _ in range(count):
                q, s = query[place][0], maps[place][0]
                if soft.shape[2:] != s.shape[1:]:
                    soft = F.interpolate(soft, s.shape[1:], mode="bilinear", align_corners=True)
                m = soft.flatten()
                kept = m >= m[m > 0].mean()
                vectors = (s.flatten(1) * m)[:, kept]
                of_query = q.flatten(1) / (q.flatten(1).norm(dim=0) + 1e-5)
                of_support = vectors / (vectors.norm(dim=0) + 1e-5)
                cosines.append((of_query.T @ of_support).clamp(min=0).mean(dim=1).view(q.shape[1:]))
                prototype = vectors.mean(dim=1)
                pair = torch.cat([q, prototype[:, None, None].expand_as(q)])[None]
                generated.append(torch.sigmoid(F.conv2d(pair, model.learner.gps[2 - level].weight))[0, 0])
                place += 1
        found.append([cosines, generated])
    return found


def plain(model: MSHNet, query: Tensor, supports: Tensor, masks: Tensor) -> Tensor:
    """Return the logits of one episode with loops throughout."""
    learner = model.learner
    of_query = model.backbone(query)
    of_supports = [model.backbone(supports[:, shot]) for shot in range(supports.shape[1])]
    maps = plain_maps(model, of_query, of_supports, masks[0])
    ends = [0, *torch.tensor(learner.blocks).cumsum(0).tolist()]
    merged = []
    for i in range(3):
        blocks = slice(ends[2 - i], ends[3 - i])
        sums: list[Tensor | int] = [0, 0]
        for cosines, generated in maps:
            sums[0] = sums[0] + learner.cosine_blocks[i](torch.stack(cosines[blocks])[None])
            sums[1] = sums[1] + learner.gps_blocks[i](torch.stack(generated[blocks])[None])
        cosine, gps = (total / len(maps) for total in sums)
        merged.append(learner.merges[i](learner.cosine_shots[i](cosine), learner.gps_shots[i](gps)))
    return learner.decode(*merged).logits


def seconds(work: Callable[[], object], rounds: int) -> float:
    """Return the median CPU seconds."""
    taken = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return statistics.median(taken)


@torch.no_grad()
def calibrated(model: MSHNet) -> MSHNet:
    """Return a model whose batch norms know its features: with running variances of 1 all signals fade."""
    parts = [model.backbone, model.learner]
    for norm in (n for part in parts for n in part.modules() if isinstance(n, torch.nn.BatchNorm2d)):
        norm.momentum = 1.0
    images = torch.randint(0, 256, (4, 97, 97, 3), dtype=torch.uint8)
    for part in model.backbone.modules():
        part.training = True
    model.backbone(images)
    model.backbone.eval()
    masks = torch.zeros(4, 1, 97, 97)
    masks[:, :, 20:60, 10:50] = 1
    model.learner.train()(*maps_of(model, images), masks)
    return model.eval()


def maps_of(model: MSHNet, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Return the maps of images as those of queries and of supports."""
    maps = model.backbone(images)
    return maps, [found[:, None] for found in maps]


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=473)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    side = arguments.size
    model = calibrated(MSHNet(FULL, build_backbone("resnet50")))
    query = torch.randint(0, 256, (1, side, side, 3), dtype=torch.uint8)
    supports = torch.randint(0, 256, (1, 5, side, side, 3), dtype=torch.uint8)
    masks = torch.zeros(1, 5, side, side)
    masks[:, :, side // 4 : 3 * side // 4, side // 5 : side // 2] = 1
    one = (query, supports[:, :1], masks[:, :1])
    logits = model(*one).logits
    apart = ((plain(model, *one) - logits).abs().max() / logits.abs().max()).item()
    verdict = "within" if apart <= TOLERANCE else "BEYOND"
    print(f"largest difference of logits, as a share of the largest: {apart:.1e} ({verdict} {TOLERANCE})")
    ours, theirs = seconds(lambda: model(*one), arguments.rounds), seconds(lambda: plain(model, *one), arguments.rounds)
    print(f"one-shot episode: {ours:.2f} s, transcription {theirs:.2f} s, ratio {theirs / ours:.2f} (wanted {TARGET})")
    of_query = model.backbone(query)
    of_support = model.backbone(supports[:, 0])
    shown = [found[:, None] for found in of_support]
    ours = seconds(lambda: model.learner.similarities(of_query, shown, one[2]), arguments.rounds)
    theirs = seconds(lambda: plain_maps(model, of_query, [of_support], one[2][0]), arguments.rounds)
    print(f"of it both similarities: {ours:.2f} s, transcription {theirs:.2f} s, ratio {theirs / ours:.2f}")
    five = seconds(lambda: model(query, supports, masks), 1)
    singles = seconds(lambda: [model(query, supports[:, k : k + 1], masks[:, k : k + 1]) for k in range(5)], 1)
    print(f"five shots: {five:.2f} s, five single passes {singles:.2f} s, ratio {singles / five:.2f}")
    again = resized(model(*one).logits, (side, side))
    assert again.shape == (1, 2, side, side)


if __name__ == "__main__":
    main()
