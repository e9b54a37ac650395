"""What two processes with a sharded policy find, beside what one finds alone: `torchrun ... -m tests.models.sharded`.

Each process takes two samples. FSDP gives a gradient as the mean over processes, so the lone policy averages over
both batches.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor
from torch.nn.functional import logsigmoid
from transformers import AutoModelForImageTextToText

from rlaifv_pl.data.collate import Collator
from rlaifv_pl.models.chat import Chat
from rlaifv_pl.models.flops import FlopMeter
from rlaifv_pl.models.loading import load_policy
from rlaifv_pl.models.policy import LoRA, PolicySpec, load_model, load_processor
from rlaifv_pl.models.reference import Reference
from rlaifv_pl.models.sharding import Sharding
from rlaifv_pl.models.vlm import VLM, Batch
from tests.models.plain import PAIRS, TEXT_ONLY, keep_wide
from tests.models.test_prefix_tree import ALIKE
from tests.models.test_vlm import sides

ADAPTERS = {"lora": LoRA(rank=2, dropout=0.0)}
SETTINGS = {
    "full": {},
    "full, checkpointing": {"gradient_checkpointing": True},
    "adapters": ADAPTERS,
    "adapters, checkpointing": ADAPTERS | {"gradient_checkpointing": True},
}
EXACT = ("llava", "qwen2_5_vl")
"""Families that are compared to the last digits."""
BACKENDS = ("rows", "dense", "split")
SAMPLES = ([*PAIRS], [ALIKE, TEXT_ONLY])


class Outcome(NamedTuple):
    """Of DPO."""

    logps: Tensor
    reference: Tensor
    loss: Tensor
    gradients: dict[str, Tensor]


def load(path: Path, settings: dict[str, Any]) -> tuple[VLM, Reference]:
    """A policy in float64 that has moved away from its reference; each call gives the same."""
    torch.manual_seed(0)
    policy = VLM(keep_wide(load_model(PolicySpec(path=str(path), **settings)))).double().train()
    reference = Reference(policy, "adapter_off" if "lora" in settings else "live")
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
    return policy, reference


def batches(path: Path) -> Iterator[Batch]:
    collate = Collator(Chat(load_processor(PolicySpec(path=str(path)))), sides, parts=2)
    for samples in SAMPLES:
        batch = collate(samples)
        for name, value in batch.tokens.images.items():
            batch.tokens.images[name] = value.double() if value.is_floating_point() else value
        yield batch


def outcome(policy: VLM, reference: Reference, batch: Batch, backend: str) -> Outcome:
    for model in (policy, reference.copy):
        if model is not None:
            model.attention = backend
    policy.zero_grad()
    with reference.capture_vision_features():
        logps = policy(batch)
    compared = reference.token_logps(batch)
    ratios = [
        (logps - compared)[batch.tokens.sequence_id == group].sum() for group in range(batch.num_sequences)
    ]
    chosen, rejected = torch.stack(ratios).chunk(2)
    loss = -logsigmoid(0.1 * (chosen - rejected)).mean()
    loss.backward()
    return Outcome(logps.detach(), compared, loss.detach(), gradients(policy))


def gradients(policy: nn.Module) -> dict[str, Tensor]:
    found = {name: p.grad for name, p in policy.named_parameters() if p.grad is not None}
    return {name: g.full_tensor() if isinstance(g, DTensor) else g.clone() for name, g in found.items()}


def errors(one: Outcome, own: Outcome, others: list[Outcome]) -> dict[str, float]:
    """Largest differences in nats, and of gradients relative to the largest."""
    mean = {name: sum(o.gradients[name] for o in others) / len(others) for name in own.gradients}
    assert one.gradients.keys() == mean.keys()
    largest = max(gradient.abs().max() for gradient in mean.values())
    gradient = max((one.gradients[name] - mean[name]).abs().max() for name in mean) / largest
    found = {name: (getattr(one, name) - getattr(own, name)).abs().max().item() for name in one._fields[:3]}
    return found | {"gradients": gradient.item()}


def compare(path: Path, settings: dict[str, Any], mesh: DeviceMesh) -> dict[str, Any]:
    """Errors of each backend against rows of a policy that is in one piece, and what shows that they mean something."""
    found, rank = {}, dist.get_rank()
    alone = load(path, settings)
    lone_meter = FlopMeter(alone[0])
    both = list(batches(path))
    plain = [outcome(*alone, batch, "rows") for batch in both]
    policy, reference = load(path, settings)
    for model in (policy, reference.copy):
        if model is not None:
            Sharding(mesh, compute=None).hand_out([model])
    assert all(isinstance(parameter, DTensor) for parameter in policy.parameters())
    meter = FlopMeter(policy)
    for backend in BACKENDS:
        one = outcome(policy, reference, both[rank], backend)
        found[backend] = errors(one, plain[rank], plain)
    outcome(*alone, both[rank], BACKENDS[-1])
    found["flops"] = [one.read(both[rank], reference=True).flops for one in (meter, lone_meter)]
    found["margin"] = (plain[0].logps - plain[0].reference).abs().max().item()
    if reference.copy is not None:
        reference.refresh(policy)
        after = outcome(policy, reference, both[rank], "split")
        found["refreshed"] = (after.logps - after.reference).abs().max().item()
    return found


def in_bfloat16(path: Path, mesh: DeviceMesh) -> float:
    """How far log-ps in slices that are gathered in bfloat16 are from those in float64; nats, mean of a batch."""
    (batch, _), (alone, _) = batches(path), load(path, {})
    policy, _ = load(path, {})
    policy.float()
    Sharding(mesh, torch.bfloat16).hand_out([policy])
    with torch.no_grad():
        return (policy(batch) - alone(batch)).abs().mean().item()


def handed_out(path: Path, mesh: DeviceMesh, settings: dict[str, Any]) -> float:
    """How far a policy and its reference that only the first process has read are from one that is read here; nats.
    Drawn weights of adapters are those of the first process."""
    spec = PolicySpec(path=str(path), **settings)
    alone, processor = VLM(load_model(spec)), load_processor(spec)
    (batch,) = (Collator(Chat(processor), sides, parts=2)(samples) for samples in SAMPLES[:1])
    read = AutoModelForImageTextToText.from_pretrained
    if dist.get_rank():
        AutoModelForImageTextToText.from_pretrained = None
    policy, reference = load_policy(
        spec, processor, "adapter_off" if settings else "live", Sharding(mesh, None)
    )
    AutoModelForImageTextToText.from_pretrained = read
    assert [p.requires_grad for p in policy.parameters()] == [p.requires_grad for p in alone.parameters()]
    with torch.no_grad(), reference.capture_vision_features():
        found = [policy(batch), reference.token_logps(batch)]
        return max((logps - alone(batch)).abs().max().item() for logps in found)


def main(out: Path, *paths: Path) -> None:
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    found = {
        path.name: {name: compare(path, settings, mesh) for name, settings in SETTINGS.items()}
        for path in paths
        if path.name in EXACT
    }
    found["handed out"] = {
        path.name: [handed_out(path, mesh, settings) for settings in ({}, ADAPTERS)] for path in paths
    }
    found["bfloat16"] = {path.name: in_bfloat16(path, mesh) for path in paths}
    (out / f"{dist.get_rank()}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*map(Path, sys.argv[1:]))
