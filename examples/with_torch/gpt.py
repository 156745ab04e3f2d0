"""A small GPT that learns to write like Python's manual, which Python ships: python examples/with_torch/gpt.py

Everything is PyTorch's but one import. --optimizer torch trains with torch.optim.AdamW(fused=True) and clip_grad_norm_.
"""

import argparse
import time
from pydoc_data.topics import topics

import torch
from torch import nn

import lrfast
from lrfast import schedules
from lrfast.torch import AdamW

TEXT = "\n".join(topics.values())
LETTERS = sorted(set(TEXT))
WIDTH, LENGTH, BATCH = 128, 64, 16


class Block(nn.Module):
    """Attention and a feed-forward network, each beside a way past it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = self.qkv(self.norm1(x)).unflatten(-1, (3, 4, WIDTH // 4)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(-2))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    """Letters to the odds of the letter after each."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.letters, self.places = nn.Embedding(len(LETTERS), WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, len(LETTERS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.blocks(self.letters(x) + self.places.weight[: x.shape[1]])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--optimizer", choices=["lrfast", "torch"], default="lrfast")
    chosen = parser.parse_args()
    torch.manual_seed(0)
    text = torch.tensor([LETTERS.index(letter) for letter in TEXT[:200_000]])
    model = GPT(chosen.depth)
    rate = schedules.cosine(1e-3, chosen.steps).warmup(20)
    groups = lrfast.param_groups(model.named_parameters(), weight_decay=0.1)
    if chosen.optimizer == "lrfast":
        optimizer = AdamW(groups, lr=rate, clip_norm=1.0)
    else:
        optimizer = torch.optim.AdamW(groups, fused=True)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: rate(t) / 1e-3)
    start, losses = time.perf_counter(), []
    for step in range(chosen.steps):
        first = torch.randint(len(text) - LENGTH - 1, (BATCH,))
        batch = torch.stack([text[i : i + LENGTH + 1] for i in first])
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        if chosen.optimizer == "torch":
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if chosen.optimizer == "torch":
            scheduler.step()
        losses.append(loss.item())
        if step % 50 == 0:
            print(f"step {step:4}  loss {losses[-1]:.3f}")
    speed = chosen.steps * BATCH * LENGTH / (time.perf_counter() - start)
    print(f"loss {losses[0]:.3f} -> {sum(losses[-10:]) / len(losses[-10:]):.3f}, {speed:,.0f} letters per second")


if __name__ == "__main__":
    main()
