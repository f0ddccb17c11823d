// Attention of float16 and bfloat16 on tensor cores, compute capability 8.0 and later
// (FlashAttention-2, Dao 2023, arXiv 2307.08691). Four warps with 16 queries each share tiles of 64
// keys and values. Scores stay in the registers that the products leave them in, which are those
// that the next products want their left side in. Lane l has rows l / 4 and l / 4 + 8, and of each
// 8 columns those at 2 * (l % 4) and after it.
#pragma once

#include "fastvid/cuda/attention_block.cuh"
#include "fastvid/cuda/float_types.cuh"

namespace fastvid::cuda {
namespace mma {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kQueries = kWarps * 16;
constexpr int kKeys = 64;
// Rows of a tile are 16 bytes longer than they need, so that eight of them lie in different banks.
constexpr int kSkew = 8;

// d += a * b: 16 x 16 by 16 x 8, float32 sums.
__device__ __forceinline__ void multiply(float* d, const uint32_t* a, const uint32_t* b, __half) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void multiply(float* d, const uint32_t* a, const uint32_t* b,
                                         __nv_bfloat16) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Rows 0 to 15 of 8 values as the right side of a product: transposed.
__device__ __forceinline__ void load_transposed(uint32_t* b, const void* row) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];\n"
               : "=r"(b[0]), "=r"(b[1])
               : "r"(address));
}

template <class T>
__device__ __forceinline__ uint32_t pair(float low, float high) {
  Pack<T, 2> both;
  set(&both.values[0], low);
  set(&both.values[1], high);
  uint32_t word;
  memcpy(&word, &both, sizeof(word));
  return word;
}

template <class T>
__device__ __forceinline__ uint32_t word_at(const T* p) {
  return *reinterpret_cast<const uint32_t*>(p);
}

// `kKeys` rows from `first` on, below `end`, 16 bytes at a time; 0 elsewhere.
template <int kDim, class T>
__device__ void load_tile(T* tile, const T* data, int64_t stride, int64_t first, int64_t end,
                          int64_t dim) {
  constexpr int kPacks = kDim / 8;
#pragma unroll
  for (int i = threadIdx.x; i < kKeys * kPacks; i += kThreads) {
    const int row = i / kPacks, d = i % kPacks * 8;
    const bool inside = first + row < end && d < dim;
    const uint4 zero = make_uint4(0, 0, 0, 0);
    const uint4 value =
        inside ? __ldg(reinterpret_cast<const uint4*>(data + (first + row) * stride + d)) : zero;
    *reinterpret_cast<uint4*>(tile + row * (kDim + kSkew) + d) = value;
  }
}

// This lane's part of 16 queries as the left side of products, 16 of the dim at a time.
template <int kDim, class T>
__device__ __forceinline__ void load_queries(uint32_t (*q)[4], const T* data, int64_t stride,
                                             int64_t row, int64_t end, int64_t dim) {
  const int column = 2 * (threadIdx.x % 4);
#pragma unroll
  for (int step = 0; step < kDim / 16; ++step) {
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      const int64_t at = row + part % 2 * 8;
      const int d = step * 16 + part / 2 * 8 + column;
      q[step][part] = at < end && d < dim ? word_at(data + at * stride + d) : 0u;
    }
  }
}

// What a lane keeps of its two rows.
struct Rows {
  float top[2] = {kLowest, kLowest}, sum[2] = {0.0f, 0.0f}, shrink[2];

  // Turns scores into weights; `sum` is of this lane's columns.
  __device__ __forceinline__ void exponentiate(float (*scores)[4], float factor) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float largest = kLowest;
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
        largest = fmaxf(largest, fmaxf(scores[n][2 * r], scores[n][2 * r + 1]));
      }
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
      const float now = fmaxf(top[r], largest);
      shrink[r] = exp2f((top[r] - now) * factor);
      top[r] = now;
      float total = 0.0f;
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
        for (int c = 2 * r; c < 2 * r + 2; ++c) {
          scores[n][c] = exp2f((scores[n][c] - now) * factor);
          total += scores[n][c];
        }
      }
      sum[r] = __fmaf_rn(sum[r], shrink[r], total);
    }
  }

  __device__ __forceinline__ float inverse(int r) const {
    float total = sum[r];
    total += __shfl_xor_sync(0xffffffffu, total, 1);
    total += __shfl_xor_sync(0xffffffffu, total, 2);
    return inverse_or_zero(total);
  }
};

}  // namespace mma

template <class T, int kDim>
__device__ __forceinline__ void attention_mma_block(const Attention& a) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  using namespace mma;
  constexpr int kRow = kDim + kSkew;
  __shared__ alignas(16) T k_tile[kKeys * kRow];
  __shared__ alignas(16) T v_tile[kKeys * kRow];
  const BlockOf<T> block(a, kQueries);
  const int lane = threadIdx.x % 32, column = 2 * (lane % 4);
  const int64_t row = block.first + threadIdx.x / 32 * 16 + lane / 4;
  uint32_t q[kDim / 16][4];
  load_queries<kDim>(q, block.q, a.q_strides.token, row, a.queries, a.dim);
  float out[kDim / 8][4] = {};
  Rows rows;
  const float factor = a.scale * kLog2E, inverse_scale = 1.0f / a.scale;
  const int64_t limit = block.limit(a, kQueries);
  for (int64_t start = 0; start < limit; start += kKeys) {
    __syncthreads();
    load_tile<kDim>(k_tile, block.k, a.k_strides.token, start, a.keys, a.dim);
    load_tile<kDim>(v_tile, block.v, a.v_strides.token, start, a.keys, a.dim);
    __syncthreads();
    float scores[kKeys / 8][4] = {};
#pragma unroll
    for (int step = 0; step < kDim / 16; ++step) {
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
        const T* key = k_tile + (n * 8 + lane / 4) * kRow + step * 16 + column;
        const uint32_t b[2] = {word_at(key), word_at(key + 8)};
        multiply(scores[n], q[step], b, T{});
      }
    }
    const bool whole = block.bias == nullptr && start + kKeys <= a.keys &&
                       (!a.causal || start + kKeys <= block.first + 1);
    if (!whole) {
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          scores[n][c] = block.score(a, scores[n][c], row + c / 2 * 8,
                                     start + n * 8 + column + c % 2, inverse_scale);
        }
      }
    }
    rows.exponentiate(scores, factor);
#pragma unroll
    for (int d = 0; d < kDim / 8; ++d) {
#pragma unroll
      for (int c = 0; c < 4; ++c) out[d][c] *= rows.shrink[c / 2];
    }
#pragma unroll
    for (int step = 0; step < kKeys / 16; ++step) {
      const float *left = scores[2 * step], *right = scores[2 * step + 1];
      const uint32_t weights[4] = {pair<T>(left[0], left[1]), pair<T>(left[2], left[3]),
                                   pair<T>(right[0], right[1]), pair<T>(right[2], right[3])};
#pragma unroll
      for (int d = 0; d < kDim / 8; ++d) {
        uint32_t b[2];
        load_transposed(b, v_tile + (step * 16 + lane % 16) * kRow + d * 8);
        multiply(out[d], weights, b, T{});
      }
    }
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float inverse = rows.inverse(r);
    const int64_t query = row + r * 8;
    if (query >= a.queries) continue;
    T* target = block.out + query * a.out_strides.token;
#pragma unroll
    for (int d = 0; d < kDim / 8; ++d) {
      const int at = d * 8 + column;
      if (at >= a.dim) continue;
      *reinterpret_cast<uint32_t*>(target + at) =
          pair<T>(out[d][2 * r] * inverse, out[d][2 * r + 1] * inverse);
    }
  }
#endif
}

}  // namespace fastvid::cuda
