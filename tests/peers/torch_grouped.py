#!/usr/bin/env python3
"""Grouped products alone on a CUDA GPU: moec, torch._grouped_mm, DeepGEMM and one dense product of cuBLAS, in turn.

    tests/peers/torch_grouped.py [--lib build/libmoec.so] [--runs 20] [T,H,F,E,K ...]

bf16, uniform random routing, rows already packed by expert, groups of any length:
  up    [R][H] by [2F][H] of its expert   (moec: op down of a spec with H and F exchanged, the plain product)
  down  [R][F] by [H][F]
  dW1   [2F][R] by [R][H], bf16           (moec: op dw1 without row_slot)
cuBLAS multiplies the same rows as if they were of one expert, so that its FLOPs are the same:
  up    [R][H] by [H][2F]      down  [R][F] by [F][H]      dW1   [2F][R] by [R][H]
PyTorch and cuBLAS take weights as moec stores them and transposed (dW1: the result and its transpose); their better time
counts. Also, for the price of gathering, moec's dw1 and up with rows gathered by token beside the same kernels on packed
rows. TFLOP/s of real rows, medians. DeepGEMM takes part when it can be imported (seen with sgl-deep-gemm 0.1.3 and
apache-tvm-ffi beside PyTorch 2.11): it wants groups padded to 128 rows, has them padded before the clock starts, and adds dW1 to
a result in f32. It compiles each product once, some 6 s with nvcc (CUDA_HOME=/usr/local/cuda DG_JIT_USE_NVRTC=0), before the clock
starts too.
"""
import argparse, ctypes, random, torch

try:
    import deep_gemm
except (ImportError, OSError, RuntimeError) as why:
    print(f"without DeepGEMM: {str(why).splitlines()[0][:100]}")
    deep_gemm = None

SHAPES = ["40960,768,256,128,8", "24576,1536,256,128,8", "24576,1536,1024,32,2", "32768,4096,256,256,16",
          "32768,4096,512,128,8", "32768,4096,1024,128,8", "32768,2048,768,128,8", "32768,2048,1024,64,8",
          "16384,2048,1408,64,6", "8192,4096,14336,8,2"]


class Moec:
    """Kernels of libmoec.so, launched on PyTorch's stream and buffers."""

    def __init__(self, path):
        self.lib = ctypes.CDLL(path)
        for name in ("moec_op_find", "moec_op_get"):
            getattr(self.lib, name).restype = ctypes.c_void_p
        self.error = ctypes.create_string_buffer(1 << 16)
        self.device = ctypes.c_void_p()
        self.check(self.lib.moec_device_open(b"sm_90a", 0, ctypes.byref(self.device), self.error))

    def check(self, status):
        if status:
            raise RuntimeError(self.error.raw[4:].split(b"\0")[0].decode(errors="replace"))

    def scratch(self, count):
        return torch.empty(count, device="cuda", dtype=torch.uint8)

    def kernel(self, op, spec, T, R, args):
        """A function that launches op on args: tensors, integers, None."""
        text, found, module = ctypes.create_string_buffer(1 << 12), ctypes.c_void_p(), ctypes.c_void_p()
        found.value = self.lib.moec_op_find(op.encode())
        self.check(self.lib.moec_spec_parse(spec.encode(), text, self.error))
        self.check(self.lib.moec_module_create(self.device, found, text, None, ctypes.c_int64(T), ctypes.byref(module),
                                               self.error))
        words = [0 if a is None else a if isinstance(a, int) else a.data_ptr() for a in args]
        array = (ctypes.c_uint64 * len(words))(*words)
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        bytes_needed = ctypes.c_size_t()
        self.check(self.lib.moec_module_scratch(self.device, module, ctypes.c_int64(T), ctypes.c_int64(R), ctypes.c_int64(0),
                                                ctypes.byref(bytes_needed), self.error))
        scratch = self.scratch(bytes_needed.value)
        launch, keep = self.lib.moec_module_launch, (args, scratch)

        def run():
            self.check(launch(self.device, stream, module, array, ctypes.c_int64(T), ctypes.c_int64(R), ctypes.c_int64(0),
                              ctypes.c_void_p(scratch.data_ptr()), self.error))
            return keep
        return run


def medians(functions, runs):
    """Milliseconds of each, in an order drawn anew for each round: what ran before decides on the clock. The card sleeps
    before each while the host prepares the launch."""
    times = [[] for _ in functions]
    for r in range(-3, runs):
        for i in random.sample(range(len(functions)), len(functions)):
            a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            torch.cuda._sleep(300000)
            a.record(); functions[i](); b.record(); b.synchronize()
            if r >= 0:
                times[i].append(a.elapsed_time(b))
    return [sorted(t)[len(t) // 2] for t in times]


def close(got, want, rows):
    """bf16 products of the same bf16 operands differ by roundings only."""
    g, w = got[rows].float(), want[rows].float()
    return ((g - w).norm() / w.norm()).item()


def padded(tensor, counts, align=128):
    """Rows of each group followed by zeros up to a multiple of align."""
    out = tensor.new_zeros(sum(-(-n // align) * align for n in counts), tensor.shape[1])
    at = 0
    for part in tensor.split(counts):
        out[at:at + len(part)] = part
        at += -(-len(part) // align) * align
    return out


def deep_products(packed, h, a, w1, w2, counts):
    """up, down and dW1 by DeepGEMM, and the rows of its results that are real."""
    sizes = [-(-n // 128) * 128 for n in counts]
    group = torch.cat([torch.full((n,), e, dtype=torch.int32) for e, n in enumerate(sizes)]).cuda()
    real = torch.cat([torch.arange(s) < n for n, s in zip(counts, sizes)]).cuda()
    group = torch.where(real, group, -1)
    x, h, a = (padded(t, counts) for t in (packed, h, a))
    up, down = x.new_empty(len(x), w1.shape[1]), x.new_empty(len(x), w2.shape[1])
    dw = torch.zeros(len(counts), h.shape[1], x.shape[1], device="cuda")
    ks = torch.tensor(sizes, dtype=torch.int32, device="cuda")

    def run_up():
        deep_gemm.m_grouped_bf16_gemm_nt_contiguous(x, w1, up, group)
        return up

    def run_down():
        deep_gemm.m_grouped_bf16_gemm_nt_contiguous(a, w2, down, group)
        return down

    def run_dw():
        deep_gemm.k_grouped_bf16_gemm_tn_contiguous(h, x, dw, sizes, ks, dw)
        return dw
    return [run_up, run_down, run_dw], real


def shape(moec, text, runs):
    T, H, F, E, K = map(int, text.split(","))
    dev, bf = "cuda", torch.bfloat16
    x = torch.randn(T, H, device=dev, dtype=bf)
    slots = torch.rand(T, E, device=dev).topk(K, -1).indices.flatten()
    row_slot = slots.sort(stable=True).indices.to(torch.int32)
    ends = slots.bincount(minlength=E).cumsum(0).to(torch.int32)
    offsets = torch.cat([ends.new_zeros(1), ends])
    R, U = T * K, 2 * F
    packed = x[(row_slot // K).long()].contiguous()
    h, a = torch.randn(R, U, device=dev, dtype=bf), torch.randn(R, F, device=dev, dtype=bf)
    w1, w2 = torch.randn(E, U, H, device=dev, dtype=bf) * 0.02, torch.randn(E, H, F, device=dev, dtype=bf) * 0.02
    w1t, w2t = w1.transpose(1, 2).contiguous(), w2.transpose(1, 2).contiguous()
    spec = f"E={E} K={K} H={H} F={F} wgrad=same"
    swapped = f"E={E} K={K} H={U} F={H} wgrad=same"
    out_h, out_y = torch.empty_like(h), torch.empty(R, H, device=dev, dtype=bf)
    dw1 = torch.empty(E, U, H, device=dev, dtype=bf)
    up = moec.kernel("down", swapped, T, R, [packed, w1, None, offsets, out_h, T])
    down = moec.kernel("down", spec, T, R, [a, w2, None, offsets, out_y, T])
    red = moec.kernel("dw1", spec, T, R, [h, packed, offsets, None, dw1, 0, T])
    red_g = moec.kernel("dw1", spec, T, R, [h, x, offsets, row_slot, dw1, 0, T])
    up_p = moec.kernel("up", spec, T, R, [packed, w1, None, offsets, None, out_h, a, T])
    up_g = moec.kernel("up", spec, T, R, [x, w1, None, offsets, row_slot, out_h, a, T])
    mm = torch._grouped_mm
    some = slice(R // 2, R // 2 + 4096)
    up(); down(); red()
    errors = (close(out_h, mm(packed, w1.transpose(1, 2), offs=ends), some), close(out_y, mm(a, w2.transpose(1, 2), offs=ends), some),
              close(dw1, mm(h.t(), packed, offs=ends), slice(0, 1)))
    deep = [None] * 3
    if deep_gemm:
        counts = (offsets[1:] - offsets[:-1]).tolist()
        products, real = deep_products(packed, h, a, w1, w2, counts)
        try:
            errors += (close(products[0]()[real], out_h, some), close(products[1]()[real], out_y, some),
                       close(products[2](), dw1, slice(0, 1)))
            deep = products
        except RuntimeError as why:
            print(f"{text}: DeepGEMM fails: {str(why).splitlines()[0][:100]}")
    dense1, dense2, dense_dw, dense_dwt = w1[0], w2[0], dw1[0], torch.empty(H, U, device=dev, dtype=bf)
    dense1t, dense2t = w1t[0], w2t[0]
    products = [
        (2, [lambda: mm(packed, w1.transpose(1, 2), offs=ends), lambda: mm(packed, w1t, offs=ends)], up,
         [lambda: torch.mm(packed, dense1.t(), out=out_h), lambda: torch.mm(packed, dense1t, out=out_h)]),
        (1, [lambda: mm(a, w2.transpose(1, 2), offs=ends), lambda: mm(a, w2t, offs=ends)], down,
         [lambda: torch.mm(a, dense2.t(), out=out_y), lambda: torch.mm(a, dense2t, out=out_y)]),
        (2, [lambda: mm(h.t(), packed, offs=ends), lambda: mm(packed.t(), h, offs=ends)], red,
         [lambda: torch.mm(h.t(), packed, out=dense_dw), lambda: torch.mm(packed.t(), h, out=dense_dwt)])]
    line = f"{text:22s}{R // E:6d}"
    for (share, grouped, own, dense), other in zip(products, deep):
        t = medians([*grouped, own, *dense, *([other] if other else [])], runs)
        rate = lambda ms: share * 2e-9 * R * H * F / ms
        line += f"  {rate(min(t[:2])):5.0f}{rate(t[5]) if other else 0:5.0f}{rate(t[2]):5.0f}{rate(min(t[3:5])):5.0f}"
        line += f"{100 * min(t[3:5]) / t[2]:6.1f}"
    g = medians([red, red_g, up_p, up_g], runs)
    print(f"{line}  {100 * (g[1] / g[0] - 1):+6.1f}{100 * (g[3] / g[2] - 1):+6.1f}  {max(errors):.1e}", flush=True)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--lib", default="build/libmoec.so")
    ap.add_argument("--runs", type=int, default=20)
    ap.add_argument("shapes", nargs="*")
    args = ap.parse_args()
    torch.manual_seed(0)
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    ms = medians([lambda: a @ b], args.runs)[0]
    print(f"cuBLAS 8192^3 {2 * 8192**3 / ms * 1e-9:.0f} TFLOP/s\n"
          "TFLOP/s of torch._grouped_mm (torch), DeepGEMM (deep; 0: not here), moec and cuBLAS dense; moec in % of cuBLAS;\n"
          "what gathering costs, in %; how far answers are from each other")
    part = f"  {'torch':>5s}{'deep':>5s}{'moec':>5s}{'dense':>6s}{'%':>5s}"
    print(f"{'T,H,F,E,K':22s}{'rows':>6s}" + "".join(f"  {name:^26s}" for name in ("up", "down", "dW1")) +
          f"  {'gather, %':>12s}\n{'':28s}" + part * 3 + f"  {'dw1':>6s}{'up':>6s}  differ")
    moec = Moec(args.lib)
    for text in args.shapes or SHAPES:
        shape(moec, text, args.runs)
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
