#!/usr/bin/env python3
"""A whole MoE layer, forward and backward, in PyTorch on the same cores, interleaved with moec.

    pip install torch            (a CPU build is enough; not needed by anything else here)
    tests/peers/torch_moe_layer.py [--threads 2] [--rounds 3] [--runs 5] [--shapes E,K,H,F,T ...]

Both start from the router's logits and end with the gradients of x, logits and all weights, in the
type of the weights. PyTorch runs in the ways people write it, and its best time counts:
  loop     one pass over the experts: index, linear, silu(g)*u, linear, index_add, autograd backward
  sorted   rows sorted by expert once, then a loop over slices
  compile  `loop` with the expert's function under torch.compile
  grouped  rows sorted, F.grouped_mm (bf16; where this PyTorch has it on a CPU)
Each round runs moec and every variant once, so that a busy machine slows all of them. malloc keeps
what it freed, as a tuned training job has it, and asks for huge pages, as moec does. --cpu-time, with
one thread, counts the time that thread ran: for a machine that others use.
"""
import argparse, ctypes, json, os, statistics, subprocess, sys, time

if "GLIBC_TUNABLES" not in os.environ:
    os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
    os.execv(sys.executable, [sys.executable] + sys.argv)

import torch
import torch.nn.functional as F

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
SHAPES = ["8,2,256,256,2048", "8,2,2048,1408,512", "64,6,2048,1408,1024"]


def expert(x, w1, w2):
    g, u = F.linear(x, w1).chunk(2, -1)
    return F.linear(F.silu(g) * u, w2)


class Layer:
    """One layer's tensors; each variant is a forward over them."""

    def __init__(self, E, K, H, width, T, dtype):
        self.E, self.K, self.T = E, K, T
        make = lambda *shape, std=1.0, type=dtype: (torch.randn(*shape) * std).to(type).requires_grad_()
        self.x, self.logits = make(T, H), make(T, E, type=torch.float32)
        self.w1 = [make(2 * width, H, std=H ** -0.5) for _ in range(E)]
        self.w2 = [make(H, width, std=width ** -0.5) for _ in range(E)]
        self.dout = torch.randn(T, H).to(dtype)
        self.expert, self.stacks = expert, None
        self.leaves = [self.x, self.logits, *self.w1, *self.w2]

    def route(self):
        w, idx = self.logits.softmax(-1).topk(self.K, -1)
        return w / w.sum(-1, keepdim=True), idx

    def sort(self):
        w, idx = self.route()
        order = idx.flatten().argsort(stable=True)
        token = order // self.K
        return token, w.flatten()[order], idx.flatten().bincount(minlength=self.E)

    def loop(self):
        w, idx = self.route()
        out = torch.zeros_like(self.x)
        for e in range(self.E):
            token, slot = (idx == e).nonzero(as_tuple=True)
            y = self.expert(self.x.index_select(0, token), self.w1[e], self.w2[e])
            out = out.index_add(0, token, (y * w[token, slot, None]).to(out.dtype))
        return out

    def sorted(self):
        token, w, count = self.sort()
        rows = self.x.index_select(0, token).split(count.tolist())
        y = torch.cat([self.expert(r, self.w1[e], self.w2[e]) for e, r in enumerate(rows)])
        return torch.zeros_like(self.x).index_add(0, token, (y * w[:, None]).to(self.x.dtype))

    def compile(self):
        if self.expert is expert:
            self.expert = torch.compile(expert, dynamic=True)
        try:
            return self.loop()
        finally:
            self.compiled, self.expert = self.expert, expert

    def grouped(self):
        if not self.stacks:
            self.stacks = [torch.stack([p.detach() for p in w]).requires_grad_() for w in (self.w1, self.w2)]
            self.leaves += self.stacks
        mm = getattr(F, "grouped_mm", None) or torch._grouped_mm
        token, w, count = self.sort()
        offs = count.cumsum(0).to(torch.int32)
        h = mm(self.x.index_select(0, token), self.stacks[0].transpose(1, 2), offs=offs)
        g, u = h.chunk(2, -1)
        y = mm(F.silu(g) * u, self.stacks[1].transpose(1, 2), offs=offs)
        return torch.zeros_like(self.x).index_add(0, token, (y * w[:, None]).to(self.x.dtype))

    def time(self, variant, runs, clock):
        times = []
        for _ in range(runs + 1):
            for leaf in self.leaves:
                leaf.grad = None
            begin = clock()
            getattr(self, variant)().backward(self.dout)
            times.append(1e3 * (clock() - begin))
        return times[1:]


def moec_time(E, K, H, width, T, dtype, args):
    spec = f"E={E} K={K} H={H} F={width} dtype={dtype} wgrad=same"
    text = subprocess.run([args.moec, "bench", spec, "--tokens", str(T), "--threads", str(args.threads), "--op",
                           "layer", "--sets", "1", "--no-peers", "--repeat", str(args.runs), "--json"]
                          + ["--cpu-time"] * args.cpu_time, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    layer = json.loads(text)["layer"]
    return [layer["forward_ms"] + layer["backward_ms"]]


def compare(shape, dtype, args):
    E, K, H, width, T = (int(n) for n in shape.split(","))
    torch.manual_seed(0)
    layer = Layer(E, K, H, width, T, torch.bfloat16 if dtype == "bf16" else torch.float32)
    clock = time.process_time if args.cpu_time else time.perf_counter
    times = {"moec": []}
    variants = args.variants.split(",")
    for _ in range(args.rounds):
        times["moec"] += moec_time(E, K, H, width, T, dtype, args)
        for variant in list(variants):
            try:
                times.setdefault(variant, [])
                times[variant] += layer.time(variant, args.runs, clock)
            except Exception as why:  # this PyTorch, or this machine, cannot
                print(f"  {variant}: left out, {str(why).splitlines()[0][:90] if str(why) else type(why).__name__}")
                variants.remove(variant)
                times.pop(variant)
    own = {name: (min(t), statistics.median(t)) for name, t in times.items()}
    rows = "  ".join(f"{name} {best:.1f}/{median:.1f}" for name, (best, median) in own.items())
    best, median = (min(v[i] for n, v in own.items() if n != "moec") / own["moec"][i] for i in (0, 1))
    print(f"{dtype} {shape}: {rows} ms (best/median)  moec is {best:.2f}x/{median:.2f}x the best", flush=True)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--runs", type=int, default=5)
    ap.add_argument("--cpu-time", action="store_true")
    ap.add_argument("--moec", default="build/moec")
    ap.add_argument("--shapes", nargs="*", default=SHAPES, help="E,K,H,F,T")
    ap.add_argument("--types", default="bf16,f32")
    ap.add_argument("--variants", default="loop,sorted,compile,grouped")
    args = ap.parse_args()
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
    libc.mallopt(M_TRIM_THRESHOLD, -1)
    torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, {args.threads} threads, {args.rounds} rounds of {args.runs} runs")
    for shape in args.shapes:
        for dtype in args.types.split(","):
            compare(shape, dtype, args)


if __name__ == "__main__":
    main()
