-- DeepSeek-MoE 16B: config.json of deepseek-ai/deepseek-moe-16b-base. The first layer is dense; two
-- shared experts of width 1408 are one of 2816.
return {
  layers = 28, dense = 1, dense_F = 10944, H = 2048, heads = 16, kv = 16, dim = 128, V = 102400,
  E = 64, K = 6, F = 1408, shared = 2816, act = "swiglu", router = "softmax_topk", norm = 0,
  dtype = "bf16", theta = 10000, norm_eps = 1e-6, tied = false, names = "deepseek",
}
