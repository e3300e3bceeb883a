-- Qwen3 30B-A3B: config.json of Qwen/Qwen3-30B-A3B
return {
  layers = 48, H = 2048, heads = 32, kv = 4, dim = 128, V = 151936,
  E = 128, K = 8, F = 768, act = "swiglu", router = "softmax_topk", norm = 1, dtype = "bf16",
  qk_norm = true, theta = 1000000, norm_eps = 1e-6, tied = false, names = "qwen3_moe",
}
