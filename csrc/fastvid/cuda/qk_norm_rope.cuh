// Device code of qk_norm_rope, for its launcher and its TensorRT plugin.
#pragma once

#include <cstdint>

#include "fastvid/core/norm_rope.h"
#include "fastvid/cuda/float_types.cuh"

namespace fastvid::cuda {

constexpr int kNormRopeThreads = 256;
constexpr int kWarp = 32;

// A row is what one mean is taken over: all heads of a token for the full norm, else one head.
// Neighbouring threads form a group that makes one row: a whole block for the full norm, else as
// many lanes of a warp as there are packs of kCount values, so that short heads waste none.
struct NormRopeLaunch {
  int64_t rows;
  int group;
};

// Rotates the pairs of one pack: neighbours of one pack, or the same place of two.
template <int kCount, Rope kRope>
__device__ __forceinline__ void rotate(float* a, float* b, const float* cos, const float* sin) {
  if constexpr (kRope == Rope::kInterleaved) {
#pragma unroll
    for (int i = 0; i + 1 < kCount; i += 2) {
      const float c = __ldg(cos + i / 2), s = __ldg(sin + i / 2), first = a[i];
      a[i] = first * c - a[i + 1] * s;
      a[i + 1] = a[i + 1] * c + first * s;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const float c = __ldg(cos + i), s = __ldg(sin + i), first = a[i];
      a[i] = first * c - b[i] * s;
      b[i] = b[i] * c + first * s;
    }
  }
}

template <int kCount>
__device__ __forceinline__ void gained(float* v, float gain, const float* weight) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    v[i] = v[i] * gain;
    if (weight != nullptr) v[i] = v[i] * __ldg(weight + i);
  }
}

// The sum over a group; the block's over shared memory.
__device__ __forceinline__ float group_sum(float sum, int group) {
  for (int lanes = min(group, kWarp) / 2; lanes > 0; lanes /= 2) {
    sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
  }
  if (group <= kWarp) return sum;
  __shared__ float parts[kNormRopeThreads / kWarp];
  if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = sum;
  __syncthreads();
  sum = 0.0f;
  for (const float part : parts) sum += part;
  return sum;
}

// Every value is read and written by one thread, so that `out` may be `in`. Row `row` of x.
template <class T, int kCount, bool kAligned, Rope kRope>
__device__ __forceinline__ void make_row(const NormRope& x, const NormRopeLaunch& launch,
                                         int64_t row) {
  const bool full = x.norm == QkNorm::kFull;
  const int dim = static_cast<int>(x.dim), packs = dim / kCount;
  const int heads = full ? static_cast<int>(x.heads) : 1;
  // Lanes past the last row take part in the sums of their warp.
  const bool live = row < launch.rows;
  const int64_t kept = live ? row : 0;
  const int64_t token = full ? kept : kept / x.heads, first_head = full ? 0 : kept % x.heads;
  const int64_t b = token / x.tokens, t = token - b * x.tokens;
  const T* in = static_cast<const T*>(x.in) + b * x.in_strides.batch + t * x.in_strides.token +
                first_head * x.in_strides.head;
  T* out = static_cast<T*>(x.out) + b * x.out_strides.batch + t * x.out_strides.token +
           first_head * x.out_strides.head;
  const int lane = static_cast<int>(threadIdx.x) % launch.group;
  float gain = 1.0f;
  if (x.norm != QkNorm::kNone) {
    float sum = 0.0f;
    for (int i = lane; i < heads * packs; i += launch.group) {
      const int h = i / packs, d = (i - h * packs) * kCount;
      float v[kCount];
      read<kCount, kAligned>(in + h * x.in_strides.head + d, v);
#pragma unroll
      for (int j = 0; j < kCount; ++j) sum = __fmaf_rn(v[j], v[j], sum);
    }
    sum = group_sum(sum, launch.group);
    gain = __fdiv_rn(1.0f, __fsqrt_rn(sum / static_cast<float>(heads * dim) + x.eps));
  }
  if (!live) return;
  const int halves = kRope == Rope::kHalf ? packs / 2 : packs;
  for (int i = lane; i < heads * halves; i += launch.group) {
    const int h = i / halves, d = (i - h * halves) * kCount;
    const T* source = in + h * x.in_strides.head + d;
    T* target = out + h * x.out_strides.head + d;
    const float* weight = x.weight == nullptr ? nullptr : x.weight + h * dim + d;
    const int64_t angle = t * x.table_token + (first_head + h) * x.table_head +
                          (kRope == Rope::kInterleaved ? d / 2 : d);
    float a[kCount], other[kCount];
    read<kCount, kAligned>(source, a);
    gained<kCount>(a, gain, weight);
    if constexpr (kRope == Rope::kHalf) {
      read<kCount, kAligned>(source + dim / 2, other);
      gained<kCount>(other, gain, weight == nullptr ? nullptr : weight + dim / 2);
    }
    if constexpr (kRope != Rope::kNone) {
      rotate<kCount, kRope>(a, other, x.cos + angle, x.sin + angle);
    }
    write<kCount, kAligned>(target, a);
    if constexpr (kRope == Rope::kHalf) write<kCount, kAligned>(target + dim / 2, other);
  }
}

// The blocks of q, then those of k.
template <class T, int kCount, bool kAligned, Rope kRope>
__device__ __forceinline__ void norm_rope_block(const NormRope& q, const NormRope& k,
                                                const NormRopeLaunch& for_q,
                                                const NormRopeLaunch& for_k, unsigned q_blocks) {
  const bool first = blockIdx.x < q_blocks;
  const int64_t block = first ? blockIdx.x : blockIdx.x - q_blocks;
  const NormRopeLaunch launch = first ? for_q : for_k;
  const int64_t row = block * (kNormRopeThreads / launch.group) + threadIdx.x / launch.group;
  make_row<T, kCount, kAligned, kRope>(first ? q : k, launch, row);
}

__host__ __device__ inline NormRopeLaunch norm_rope_launch(const NormRope& x, int count) {
  const int64_t tokens = x.batch * x.tokens;
  if (x.norm == QkNorm::kFull) return {tokens, kNormRopeThreads};
  int group = 1;
  while (group < kWarp && group < x.dim / count) group *= 2;
  return {tokens * x.heads, group};
}

}  // namespace fastvid::cuda
