-- Qwen3 235B-A22B: config.json of Qwen/Qwen3-235B-A22B
return {
  layers = 94, H = 4096, heads = 64, kv = 4, dim = 128, V = 151936,
  E = 128, K = 8, F = 1536, act = "swiglu", router = "softmax_topk", norm = 1, dtype = "bf16",
  qk_norm = true, theta = 1000000, norm_eps = 1e-6, tied = false, names = "qwen3_moe",
}
