#include "fastvid/cuda/plugins/entry.cuh"
#include "fastvid/cuda/qk_norm_rope.cuh"

namespace fastvid::cuda {

extern "C" {

__constant__ int fastvid_norm = 0;  // a QkNorm
__constant__ float fastvid_eps = 0.0f;

}  // extern "C"

namespace {

struct Tables {
  const float *q_weight, *k_weight, *cos, *sin;
};

// Contiguous (B, N, H, D); TensorRT aligns tensors, so whole packs depend on D alone.
struct Sizes {
  int batch, q_tokens, k_tokens, q_heads, k_heads, dim, table_width;
};

// The arrays of q, or those of k: one of the two is made, so that it stays in registers.
template <class T>
__device__ __forceinline__ NormRope array_of(bool is_q, const T* q, const T* k,
                                             const Tables& tables, const Sizes& s, Rope rope,
                                             T* q_out, T* k_out) {
  const int64_t tokens = is_q ? s.q_tokens : s.k_tokens, heads = is_q ? s.q_heads : s.k_heads;
  const NormRope::Strides strides{tokens * heads * s.dim, heads * s.dim, s.dim};
  return {.in = is_q ? q : k,
          .out = is_q ? q_out : k_out,
          .in_strides = strides,
          .out_strides = strides,
          .batch = s.batch,
          .tokens = tokens,
          .heads = heads,
          .dim = s.dim,
          .norm = static_cast<QkNorm>(fastvid_norm),
          .rope = rope,
          .weight = is_q ? tables.q_weight : tables.k_weight,
          .cos = tables.cos,
          .sin = tables.sin,
          .table_token = s.table_width,
          .table_head = s.table_width > s.dim / 2 ? s.dim / 2 : 0,
          .eps = fastvid_eps,
          .stream = false};
}

template <class T, int kCount, bool kAligned, Rope kRope>
__device__ __forceinline__ void run(const T* q, const T* k, const Tables& tables, const Sizes& s,
                                    T* q_out, T* k_out) {
  const NormRopeLaunch for_q =
      norm_rope_launch(array_of(true, q, k, tables, s, kRope, q_out, k_out), kCount);
  const int64_t per_block = kNormRopeThreads / for_q.group;
  const int64_t q_blocks = (for_q.rows + per_block - 1) / per_block;
  const bool is_q = blockIdx.x < q_blocks;
  const NormRope x = array_of(is_q, q, k, tables, s, kRope, q_out, k_out);
  const int64_t block = is_q ? blockIdx.x : blockIdx.x - q_blocks;
  const int64_t row = block * per_block + threadIdx.x / for_q.group;
  make_row<T, kCount, kAligned, kRope>(x, norm_rope_launch(x, kCount), row);
}

template <class T, Rope kRope>
__device__ __forceinline__ void norm_rope(const T* q, const T* k, const Tables& tables,
                                          const Sizes& s, T* q_out, T* k_out) {
  constexpr int kPack = 16 / sizeof(T);
  if (s.dim % (2 * kPack) == 0) {
    run<T, kPack, true, kRope>(q, k, tables, s, q_out, k_out);
  } else {
    run<T, kRope == Rope::kInterleaved ? 2 : 1, false, kRope>(q, k, tables, s, q_out, k_out);
  }
}

}  // namespace

// One entry per set of optional inputs, kind of rotation and dtype.
#define FASTVID_ENTRIES(T, suffix)                                                          \
  __global__ void __launch_bounds__(kNormRopeThreads) fastvid_norm_##suffix(                \
      const T* q, const T* k, const float* q_weight, const float* k_weight, int batch,      \
      int q_tokens, int k_tokens, int q_heads, int k_heads, int dim, T* q_out, T* k_out) {  \
    norm_rope<T, Rope::kNone>(q, k, {q_weight, k_weight, nullptr, nullptr},                 \
                              {batch, q_tokens, k_tokens, q_heads, k_heads, dim, 0}, q_out, \
                              k_out);                                                       \
  }                                                                                         \
  FASTVID_ROPE_ENTRIES(T, suffix, interleaved, Rope::kInterleaved)                          \
  FASTVID_ROPE_ENTRIES(T, suffix, half, Rope::kHalf)

#define FASTVID_ROPE_ENTRIES(T, suffix, word, kind)                                               \
  __global__ void __launch_bounds__(kNormRopeThreads) fastvid_rope_##word##_##suffix(             \
      const T* q, const T* k, const float* cos, const float* sin, int batch, int q_tokens,        \
      int k_tokens, int q_heads, int k_heads, int dim, int table_width, T* q_out, T* k_out) {     \
    norm_rope<T, kind>(q, k, {nullptr, nullptr, cos, sin},                                        \
                       {batch, q_tokens, k_tokens, q_heads, k_heads, dim, table_width}, q_out,    \
                       k_out);                                                                    \
  }                                                                                               \
  __global__ void __launch_bounds__(kNormRopeThreads) fastvid_norm_rope_##word##_##suffix(        \
      const T* q, const T* k, const float* q_weight, const float* k_weight, const float* cos,     \
      const float* sin, int batch, int q_tokens, int k_tokens, int q_heads, int k_heads, int dim, \
      int table_width, T* q_out, T* k_out) {                                                      \
    norm_rope<T, kind>(q, k, {q_weight, k_weight, cos, sin},                                      \
                       {batch, q_tokens, k_tokens, q_heads, k_heads, dim, table_width}, q_out,    \
                       k_out);                                                                    \
  }

extern "C" {

FASTVID_ENTRIES(float, f32)
FASTVID_ENTRIES(__half, f16)
FASTVID_ENTRIES(__nv_bfloat16, bf16)

}  // extern "C"

}  // namespace fastvid::cuda
