-- The demo: a byte-level language model with experts, for a few minutes on two cores.
-- `./bootstrap.sh demo` makes the text (examples/demo.sh) and runs it.
return {
  model = {
    layers = 4, H = 256, heads = 8, kv = 4, dim = 32, V = 256,
    E = 8, K = 2, F = 256, act = "swiglu", router = "softmax_topk", norm = 1, dtype = "bf16",
    qk_norm = true, tied = true, theta = 10000, init_std = 0.04, names = "qwen3_moe",
  },
  data = { path = "build/demo/kjv.txt", format = "text", held_out = 0.02 },
  train = {
    run = "runs/demo",
    steps = 600, seq = 256, batch = 16, accumulate = 1, seed = 1,
    lr = 3e-3, min_lr = 1e-4, warmup = 40, beta2 = 0.98, weight_decay = 0.1, clip = 1.0,
    aux = 0.01, z = 0.001,
    eval_every = 100, eval_batches = 6, save_every = 200, keep = 2,
    sample = 400, temperature = 0.7, prompt = "And it came to pass",
  },
}
