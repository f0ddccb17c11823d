// Attention in float32 for any dtype, dim, strides and device. A warp has a few queries: for their
// scores each lane has a key, for their output some of the dim.
#pragma once

#include "fastvid/cuda/attention_block.cuh"
#include "fastvid/cuda/float_types.cuh"

namespace fastvid::cuda {
namespace plain {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kKeys = 32;

template <int kDim>
constexpr int kWarpQueries = kDim <= 128 ? 4 : 2;
template <int kDim>
constexpr int kBlockQueries = kWarps * kWarpQueries<kDim>;

// `rows` rows from `first` on, below `end`, as float32; 0 elsewhere.
template <int kDim, int kRowLength, class T>
__device__ void load_rows(float* shared, const T* data, int64_t stride, int64_t first, int rows,
                          int64_t end, int64_t dim) {
  for (int i = threadIdx.x; i < rows * kDim; i += kThreads) {
    const int row = i / kDim, d = i % kDim;
    const bool inside = first + row < end && d < dim;
    shared[row * kRowLength + d] = inside ? as_float(data[(first + row) * stride + d]) : 0.0f;
  }
}

}  // namespace plain

template <class T, int kDim>
__device__ __forceinline__ void attention_plain_block(const Attention& a) {
  using namespace plain;
  constexpr int kOwn = kWarpQueries<kDim>, kQueries = kBlockQueries<kDim>, kParts = kDim / 32;
  __shared__ float q_tile[kQueries * kDim];
  __shared__ float kv_tile[kKeys * (kDim + 1)];  // keys, then values
  const BlockOf<T> block(a, kQueries);
  const int lane = threadIdx.x % 32, own = threadIdx.x / 32 * kOwn;
  load_rows<kDim, kDim>(q_tile, block.q, a.q_strides.token, block.first, kQueries, a.queries,
                        a.dim);
  float out[kOwn][kParts], top[kOwn], sum[kOwn];
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    top[i] = kLowest;
    sum[i] = 0.0f;
#pragma unroll
    for (int d = 0; d < kParts; ++d) out[i][d] = 0.0f;
  }
  const float factor = a.scale * kLog2E, inverse_scale = 1.0f / a.scale;
  const int64_t limit = block.limit(a, kQueries);
  for (int64_t start = 0; start < limit; start += kKeys) {
    __syncthreads();
    load_rows<kDim, kDim + 1>(kv_tile, block.k, a.k_strides.token, start, kKeys, a.keys, a.dim);
    __syncthreads();
    float weight[kOwn] = {};
    for (int d = 0; d < kDim; ++d) {
      const float key = kv_tile[lane * (kDim + 1) + d];
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
        weight[i] = __fmaf_rn(q_tile[(own + i) * kDim + d], key, weight[i]);
      }
    }
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const float score =
          block.score(a, weight[i], block.first + own + i, start + lane, inverse_scale);
      float largest = score;
      for (int o = 16; o > 0; o /= 2) {
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, o));
      }
      const float now = fmaxf(top[i], largest), shrink = exp2f((top[i] - now) * factor);
      weight[i] = exp2f((score - now) * factor);
      top[i] = now;
      sum[i] = __fmaf_rn(sum[i], shrink, weight[i]);  // of this lane's keys
#pragma unroll
      for (int d = 0; d < kParts; ++d) out[i][d] *= shrink;
    }
    __syncthreads();
    load_rows<kDim, kDim + 1>(kv_tile, block.v, a.v_strides.token, start, kKeys, a.keys, a.dim);
    __syncthreads();
    for (int j = 0; j < kKeys; ++j) {
      float shared_weight[kOwn];
#pragma unroll
      for (int i = 0; i < kOwn; ++i) shared_weight[i] = __shfl_sync(0xffffffffu, weight[i], j);
#pragma unroll
      for (int d = 0; d < kParts; ++d) {
        const float value = kv_tile[j * (kDim + 1) + d * 32 + lane];
#pragma unroll
        for (int i = 0; i < kOwn; ++i) out[i][d] = __fmaf_rn(shared_weight[i], value, out[i][d]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    float total = sum[i];
    for (int o = 16; o > 0; o /= 2) total += __shfl_xor_sync(0xffffffffu, total, o);
    const float inverse = inverse_or_zero(total);
    const int64_t query = block.first + own + i;
    if (query >= a.queries) continue;
#pragma unroll
    for (int d = 0; d < kParts; ++d) {
      const int at = d * 32 + lane;
      if (at < a.dim) set(block.out + query * a.out_strides.token + at, out[i][d] * inverse);
    }
  }
}

}  // namespace fastvid::cuda
