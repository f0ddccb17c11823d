#include <cuda_runtime.h>

#include <algorithm>

#include "fastvid/cuda/device.h"
#include "fastvid/cuda/qk_norm_rope.cuh"
#include "fastvid/cuda/qk_norm_rope.h"

namespace fastvid::cuda {
namespace {

constexpr int kThreads = kNormRopeThreads;

template <class T, int kCount, bool kAligned, Rope kRope>
__global__ void __launch_bounds__(kThreads)
    qk_norm_rope_kernel(const NormRope q, const NormRope k, const NormRopeLaunch for_q,
                        const NormRopeLaunch for_k, unsigned q_blocks) {
  norm_rope_block<T, kCount, kAligned, kRope>(q, k, for_q, for_k, q_blocks);
}

unsigned blocks_of(const NormRopeLaunch& launch) {
  const int64_t per_block = kThreads / launch.group;
  return static_cast<unsigned>((launch.rows + per_block - 1) / per_block);
}

template <class T, int kCount, bool kAligned, Rope kRope>
void launch(const NormRope& q, const NormRope& k, cudaStream_t stream) {
  const NormRopeLaunch for_q = norm_rope_launch(q, kCount), for_k = norm_rope_launch(k, kCount);
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
