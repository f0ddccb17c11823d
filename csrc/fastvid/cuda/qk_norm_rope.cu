#include <cuda_runtime.h>

#include <algorithm>

#include "fastvid/cuda/device.h"
#include "fastvid/cuda/float_types.cuh"
#include "fastvid/cuda/qk_norm_rope.h"

namespace fastvid::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarp = 32;

// A row is what one mean is taken over: all heads of a token for the full norm, else one head.
// Neighbouring threads form a group that makes one row: a whole block for the full norm, else as
// many lanes of a warp as there are packs of kCount values, so that short heads waste none.
struct Launch {
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
  __shared__ float parts[kThreads / kWarp];
  if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = sum;
  __syncthreads();
  sum = 0.0f;
  for (const float part : parts) sum += part;
  return sum;
}

// Every value is read and written by one thread, so that `out` may be `in`. Row `row` of x.
template <class T, int kCount, bool kAligned, Rope kRope>
__device__ __forceinline__ void make_row(const NormRope& x, const Launch& launch, int64_t row) {
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
__global__ void __launch_bounds__(kThreads)
    qk_norm_rope_kernel(const NormRope q, const NormRope k, const Launch for_q, const Launch for_k,
                        unsigned q_blocks) {
  const bool first = blockIdx.x < q_blocks;
  const int64_t block = first ? blockIdx.x : blockIdx.x - q_blocks;
  const Launch launch = first ? for_q : for_k;
  const int64_t row = block * (kThreads / launch.group) + threadIdx.x / launch.group;
  make_row<T, kCount, kAligned, kRope>(first ? q : k, launch, row);
}

Launch launch_of(const NormRope& x, int count) {
  const int64_t tokens = x.batch * x.tokens;
  if (x.norm == QkNorm::kFull) return {tokens, kThreads};
  int group = 1;
  while (group < kWarp && group < x.dim / count) group *= 2;
  return {tokens * x.heads, group};
}

unsigned blocks_of(const Launch& launch) {
  const int64_t per_block = kThreads / launch.group;
  return static_cast<unsigned>((launch.rows + per_block - 1) / per_block);
}

template <class T, int kCount, bool kAligned, Rope kRope>
void launch(const NormRope& q, const NormRope& k, cudaStream_t stream) {
  const Launch for_q = launch_of(q, kCount), for_k = launch_of(k, kCount);
  const unsigned q_blocks = blocks_of(for_q), blocks = q_blocks + blocks_of(for_k);
  qk_norm_rope_kernel<T, kCount, kAligned, kRope>
      <<<blocks, kThreads, 0, stream>>>(q, k, for_q, for_k, q_blocks);
}

// Whether every row begins at a multiple of 16 bytes and holds whole packs of them, also halved.
bool in_packs(const NormRope& x, int64_t count, size_t size) {
  const auto multiple = [count](const NormRope::Strides& s) {
    return s.batch % count == 0 && s.token % count == 0 && s.head % count == 0;
  };
  const auto aligned = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; };
  return size * static_cast<size_t>(count) == 16 && x.dim % (2 * count) == 0 &&
         multiple(x.in_strides) && multiple(x.out_strides) && aligned(x.in) && aligned(x.out);
}

template <class T, Rope kRope>
void launch_rope(const NormRope& q, const NormRope& k, cudaStream_t stream) {
  constexpr int kPack = 16 / sizeof(T);
  if (in_packs(q, kPack, sizeof(T)) && in_packs(k, kPack, sizeof(T))) {
    launch<T, kPack, true, kRope>(q, k, stream);
  } else {
    launch<T, kRope == Rope::kInterleaved ? 2 : 1, false, kRope>(q, k, stream);
  }
}

template <class T>
void launch_any(const NormRope& q, const NormRope& k, cudaStream_t stream) {
  switch (q.rope) {
    case Rope::kInterleaved:
      return launch_rope<T, Rope::kInterleaved>(q, k, stream);
    case Rope::kHalf:
      return launch_rope<T, Rope::kHalf>(q, k, stream);
    default:
      return launch_rope<T, Rope::kNone>(q, k, stream);
  }
}

}  // namespace

void qk_norm_rope(const QkNormRopeArgs& args, const NormRope& q, const NormRope& k,
                  const Tensor& q_out, const Tensor& k_out, void* stream) {
  const DeviceGuard guard("qk_norm_rope", {&args.q, &args.k, &args.q_weight, &args.k_weight,
                                           &args.cos, &args.sin, &q_out, &k_out});
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  if (q_out.dtype == DType::kFloat32) {
    launch_any<float>(q, k, cuda_stream);
  } else if (q_out.dtype == DType::kFloat16) {
    launch_any<__half>(q, k, cuda_stream);
  } else {
    launch_any<__nv_bfloat16>(q, k, cuda_stream);
  }
  check_launch("qk_norm_rope");
}

}  // namespace fastvid::cuda
