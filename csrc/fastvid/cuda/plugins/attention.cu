#include "fastvid/cuda/attention_mma.cuh"
#include "fastvid/cuda/attention_plain.cuh"
#include "fastvid/cuda/plugins/entry.cuh"

namespace fastvid::cuda {

extern "C" {

__constant__ int fastvid_causal = 0;
__constant__ float fastvid_scale = 0.0f;  // 0 for 1 / sqrt(dim)

}  // extern "C"

namespace {

struct Sizes {
  int batch, queries, keys, heads, dim;
};
struct Bias {
  const float* data;
  int batch, heads;  // 1 for all
};

__device__ __forceinline__ Attention arrays(const void* q, const void* k, const void* v,
                                            const Bias& bias, const Sizes& s, void* out) {
  const int64_t token = int64_t{s.heads} * s.dim, plane = int64_t{s.queries} * s.keys;
  const Attention::Strides query{s.queries * token, token, s.dim};
  const Attention::Strides key{s.keys * token, token, s.dim};
  return {.q = q,
          .k = k,
          .v = v,
          .out = out,
          .q_strides = query,
          .k_strides = key,
          .v_strides = key,
          .out_strides = query,
          .bias = bias.data,
          .bias_batch = bias.batch > 1 ? bias.heads * plane : 0,
          .bias_head = bias.heads > 1 ? plane : 0,
          .bias_query = s.keys,
          .batch = s.batch,
          .heads = s.heads,
          .queries = s.queries,
          .keys = s.keys,
          .dim = s.dim,
          .scale = fastvid_scale > 0.0f ? fastvid_scale : rsqrtf(static_cast<float>(s.dim)),
          .causal = fastvid_causal != 0};
}

}  // namespace

// One entry per dtype, largest size of a head, and whether there is a bias.
#define FASTVID_ENTRIES(T, suffix, size, kind)                                                     \
  __global__ void __launch_bounds__(kind::kThreads)                                                \
      fastvid_attention_##size##_##suffix(const T* q, const T* k, const T* v, int batch,           \
                                          int queries, int keys, int heads, int dim, T* out) {     \
    attention_##kind##_block<T, size>(                                                             \
        arrays(q, k, v, {nullptr, 1, 1}, {batch, queries, keys, heads, dim}, out));                \
  }                                                                                                \
  __global__ void __launch_bounds__(kind::kThreads) fastvid_attention_bias_##size##_##suffix(      \
      const T* q, const T* k, const T* v, const float* bias, int batch, int queries, int keys,     \
      int heads, int dim, int bias_batch, int bias_heads, T* out) {                                \
    attention_##kind##_block<T, size>(                                                             \
        arrays(q, k, v, {bias, bias_batch, bias_heads}, {batch, queries, keys, heads, dim}, out)); \
  }

extern "C" {

FASTVID_ENTRIES(float, f32, 64, plain)
FASTVID_ENTRIES(float, f32, 128, plain)
FASTVID_ENTRIES(float, f32, 256, plain)
FASTVID_ENTRIES(__half, f16, 64, mma)
FASTVID_ENTRIES(__half, f16, 128, mma)
FASTVID_ENTRIES(__nv_bfloat16, bf16, 64, mma)
FASTVID_ENTRIES(__nv_bfloat16, bf16, 128, mma)

}  // extern "C"

}  // namespace fastvid::cuda
