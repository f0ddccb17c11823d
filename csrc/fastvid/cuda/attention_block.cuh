// What both attention kernels share: which block is whose, and the scores a query may see.
#pragma once

#include <cstdint>

#include "fastvid/core/attention.h"

namespace fastvid::cuda {

constexpr float kLog2E = 1.44269504f;
constexpr float kLowest = -3.402823466e38f;

// One block of queries of one head, and where its rows begin.
template <class T>
struct BlockOf {
  int64_t first;  // query
  const T *q, *k, *v;
  T* out;
  const float* bias;  // of query 0 and key 0, or null

  __device__ BlockOf(const Attention& a, int queries) {
    const int64_t blocks = (a.queries + queries - 1) / queries;
    const int64_t index = blockIdx.x / blocks, batch = index / a.heads;
    const int64_t head = index - batch * a.heads;
    first = (blockIdx.x - index * blocks) * queries;
    const auto at = [batch, head](const Attention::Strides& s) {
      return batch * s.batch + head * s.head;
    };
    q = static_cast<const T*>(a.q) + at(a.q_strides);
    k = static_cast<const T*>(a.k) + at(a.k_strides);
    v = static_cast<const T*>(a.v) + at(a.v_strides);
    out = static_cast<T*>(a.out) + at(a.out_strides);
    bias = a.bias == nullptr ? nullptr : a.bias + batch * a.bias_batch + head * a.bias_head;
  }
  // The keys that the last of `queries` queries sees.
  __device__ int64_t limit(const Attention& a, int queries) const {
    return a.causal ? min(a.keys, first + queries) : a.keys;
  }
  // A product as a score in its units: with bias, -infinity where it must not be seen.
  __device__ float score(const Attention& a, float product, int64_t query, int64_t key,
                         float inverse_scale) const {
    if (query >= a.queries || key >= a.keys || (a.causal && key > query)) return -INFINITY;
    if (bias == nullptr) return product;
    return __fmaf_rn(__ldg(bias + query * a.bias_query + key), inverse_scale, product);
  }
};

__device__ __forceinline__ float inverse_or_zero(float sum) {
  return sum == 0.0f ? 0.0f : 1.0f / sum;
}

}  // namespace fastvid::cuda
