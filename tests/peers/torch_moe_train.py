#!/usr/bin/env python3
"""The demo's training step in PyTorch on the same cores, interleaved with moec.

    pip install torch            (a CPU build is enough; not needed by anything else here)
    tests/peers/torch_moe_train.py [--threads 2] [--rounds 3] [--steps 8] [--moec build/moec]

Same model (examples/demo.lua: Qwen3-MoE blocks, 4 layers, H=256, 8 experts of 256, top-2), same
batch, AdamW, clipping, load-balance and router z-loss. PyTorch runs in the two usual ways, float32 and
bfloat16 autocast, with the experts in a loop as Hugging Face writes them; its better time counts.
Each round runs every variant once, so that a busy machine slows all of them; the best step of all
rounds is the one that was disturbed least. Prints tokens/s.
"""
import argparse, json, os, statistics, subprocess, tempfile, time

import torch
import torch.nn as nn
import torch.nn.functional as F

L, H, HEADS, KV, DIM, V, E, K, FF, SEQ, BATCH = 4, 256, 8, 4, 32, 256, 8, 2, 256, 256, 8


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q = nn.Linear(H, HEADS * DIM, bias=False)
        self.k = nn.Linear(H, KV * DIM, bias=False)
        self.v = nn.Linear(H, KV * DIM, bias=False)
        self.o = nn.Linear(HEADS * DIM, H, bias=False)
        self.q_norm, self.k_norm = nn.RMSNorm(DIM, 1e-5), nn.RMSNorm(DIM, 1e-5)

    def forward(self, x, cos, sin):
        b, s, _ = x.shape
        q = rotate(self.q_norm(self.q(x).view(b, s, HEADS, DIM)).transpose(1, 2), cos, sin)
        k = rotate(self.k_norm(self.k(x).view(b, s, KV, DIM)).transpose(1, 2), cos, sin)
        v = self.v(x).view(b, s, KV, DIM).transpose(1, 2)
        k, v = (t.repeat_interleave(HEADS // KV, 1) for t in (k, v))
        q, k = q.to(v.dtype), k.to(v.dtype)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(y.transpose(1, 2).reshape(b, s, HEADS * DIM))


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.router = nn.Linear(H, E, bias=False)
        self.w1 = nn.ModuleList(nn.Linear(H, 2 * FF, bias=False) for _ in range(E))
        self.w2 = nn.ModuleList(nn.Linear(FF, H, bias=False) for _ in range(E))

    def forward(self, x):
        shape = x.shape
        x = x.view(-1, H)
        logits = self.router(x).float()
        p = logits.softmax(-1)
        w, idx = p.topk(K, -1)
        w = w / w.sum(-1, keepdim=True)
        out = torch.zeros_like(x)
        for e in range(E):
            token, slot = (idx == e).nonzero(as_tuple=True)
            g, u = self.w1[e](x[token]).chunk(2, -1)
            out.index_add_(0, token, (self.w2[e](F.silu(g) * u) * w[token, slot, None]).to(out.dtype))
        load = F.one_hot(idx, E).float().sum((0, 1)) / (x.shape[0] * K)
        aux = E * (load * p.mean(0)).sum()
        z = logits.logsumexp(-1).square().mean()
        return out.view(shape), 0.01 * aux + 0.001 * z


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(V, H)
        self.norm1 = nn.ModuleList(nn.RMSNorm(H, 1e-5) for _ in range(L))
        self.norm2 = nn.ModuleList(nn.RMSNorm(H, 1e-5) for _ in range(L))
        self.attention = nn.ModuleList(Attention() for _ in range(L))
        self.experts = nn.ModuleList(Experts() for _ in range(L))
        self.final = nn.RMSNorm(H, 1e-5)
        angle = torch.arange(SEQ)[:, None] * 10000.0 ** (-torch.arange(0, DIM, 2) / DIM)[None]
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.04)

    def forward(self, tokens, targets):
        x, extra = self.embed(tokens), 0
        for layer in range(L):
            x = x + self.attention[layer](self.norm1[layer](x), self.cos, self.sin)
            y, loss = self.experts[layer](self.norm2[layer](x))
            x, extra = x + y, extra + loss
        logits = F.linear(self.final(x), self.embed.weight)
        return F.cross_entropy(logits.float().view(-1, V), targets.reshape(-1)) + extra


def torch_speed(half, steps, data):
    torch.manual_seed(0)
    model = Decoder()
    decay = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0}],
                                  lr=3e-3, betas=(0.9, 0.98), fused=True)
    times = []
    for _ in range(steps + 2):
        at = torch.randint(len(data) - SEQ - 1, (BATCH,))
        window = torch.stack([data[i:i + SEQ + 1] for i in at.tolist()]).long()
        begin = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            loss = model(window[:, :-1], window[:, 1:])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()
        times.append(time.perf_counter() - begin)
    return [BATCH * SEQ / t for t in times[2:]]


def moec_speed(program, dtype, steps, threads, text):
    with tempfile.TemporaryDirectory() as run:
        subprocess.run([program, "train", "examples/demo.lua", f"path={text}", f"run={run}", f"dtype={dtype}",
                        f"steps={steps + 2}", "warmup=1", "sample=0", "held_out=0", "save_every=0",
                        "--threads", str(threads)], check=True, stdout=subprocess.DEVNULL)
        lines = [json.loads(line) for line in open(os.path.join(run, "log.jsonl"))]
    ms = [line["ms"] for line in lines if line["event"] == "step"][2:]
    return [BATCH * SEQ * 1e3 / t for t in ms]


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--steps", type=int, default=8)
    ap.add_argument("--moec", default="build/moec")
    ap.add_argument("--text", default="build/demo/kjv.txt")
    args = ap.parse_args()
    torch.set_num_threads(args.threads)
    data = torch.frombuffer(bytearray(open(args.text, "rb").read()), dtype=torch.uint8)
    variants = {
        "moec bf16": lambda: moec_speed(args.moec, "bf16", args.steps, args.threads, args.text),
        "torch bf16 autocast": lambda: torch_speed(True, args.steps, data),
        "moec f32": lambda: moec_speed(args.moec, "f32", args.steps, args.threads, args.text),
        "torch f32": lambda: torch_speed(False, args.steps, data),
    }
    speed = {name: [] for name in variants}
    for _ in range(args.rounds):
        for name, run in variants.items():
            speed[name] += run()
    print(f"torch {torch.__version__}, {args.threads} threads, {args.rounds} rounds of {args.steps} steps")
    for what, pick in (("median", statistics.median), ("best", max)):
        v = {name: pick(steps) for name, steps in speed.items()}
        print(f"{what:7s}" + "".join(f"  {name} {value:.0f}" for name, value in v.items()) + " tokens/s")
        peer = max(v["torch bf16 autocast"], v["torch f32"])
        print(f"        moec bf16 / better torch {v['moec bf16'] / peer:.2f}x   "
              f"moec f32 / torch f32 {v['moec f32'] / v['torch f32']:.2f}x")


if __name__ == "__main__":
    main()
