#include <cuda_runtime.h>

#include "fastvid/cuda/device.h"
#include "fastvid/cuda/temporal_attention.cuh"
#include "fastvid/cuda/temporal_attention.h"

namespace fastvid::cuda {
namespace {

constexpr float kLog2E = 1.44269504f;

template <class T>
TemporalView<T> view_of(const Tensor& tensor) {
  return {tensor.as<T>(), tensor.strides[0], tensor.strides[1], tensor.strides[2],
          tensor.strides[3]};
}

// Whether every row of all tensors starts at a multiple of `bytes`.
bool aligned(std::initializer_list<const Tensor*> tensors, int64_t bytes) {
  bool all = true;
  for (const Tensor* tensor : tensors) {
    const auto size = static_cast<int64_t>(dtype_size(tensor->dtype));
    all = all && reinterpret_cast<uintptr_t>(tensor->data) % bytes == 0;
    for (int i = 0; i < 4; ++i) all = all && tensor->strides[i] * size % bytes == 0;
  }
  return all;
}

unsigned blocks_for(int64_t items, int64_t items_per_block) {
  return static_cast<unsigned>((items + items_per_block - 1) / items_per_block);
}

template <class T, int kKeys>
__global__ void __launch_bounds__(kTemporalThreads)
    temporal_attention_plain(const __grid_constant__ TemporalProblem<T> p) {
  temporal_attention_plain_block<T, kKeys>(p);
}

template <class T, int kTiles>
__global__ void __launch_bounds__(kTemporalThreads)
    temporal_attention_tiled(const __grid_constant__ TemporalProblem<T> p) {
  temporal_attention_tiled_block<T, kTiles>(p);
}

template <class T>
void launch_plain(const TemporalProblem<T>& p, cudaStream_t stream) {
  constexpr int kWarps = kTemporalThreads / 32;
  if (p.frames <= 16) {
    temporal_attention_plain<T, 16>
        <<<blocks_for(p.sequences, 2 * kWarps), kTemporalThreads, 0, stream>>>(p);
  } else if (p.frames <= 32) {
    temporal_attention_plain<T, 32>
        <<<blocks_for(p.sequences, kWarps), kTemporalThreads, 0, stream>>>(p);
  } else {
    temporal_attention_plain<T, 64>
        <<<blocks_for(2 * p.sequences, kWarps), kTemporalThreads, 0, stream>>>(p);
  }
}

template <class T>
void launch_tiled(const TemporalProblem<T>& p, cudaStream_t stream) {
  const int64_t items = p.sequences * ((p.frames + 15) / 16);
  const unsigned blocks = blocks_for(items, kTemporalThreads / 32);
  if (p.frames <= 16) {
    temporal_attention_tiled<T, 2><<<blocks, kTemporalThreads, 0, stream>>>(p);
  } else if (p.frames <= 32) {
    temporal_attention_tiled<T, 4><<<blocks, kTemporalThreads, 0, stream>>>(p);
  } else {
    temporal_attention_tiled<T, 8><<<blocks, kTemporalThreads, 0, stream>>>(p);
  }
}

bool has_matrix_units() {
  int device = 0, major = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
         major >= 8;
}

template <class T>
void launch(const TemporalAttentionArgs& args, float scale, const Tensor& out,
            cudaStream_t stream) {
  const Tensor& q = args.q;
  const bool own_bias = args.bias.present() && args.bias.dim(0) > 1;
  const TemporalProblem<T> problem{view_of<const T>(q),
                                   view_of<const T>(args.k),
                                   view_of<const T>(args.v),
                                   view_of<T>(out),
                                   q.dim(0) * q.dim(2) * q.dim(3),
                                   q.dim(2),
                                   q.dim(3),
                                   static_cast<int>(q.dim(1)),
                                   static_cast<int>(q.dim(4)),
                                   scale * kLog2E,
                                   args.bias.as<const float>(),
                                   own_bias ? q.dim(1) * q.dim(1) : 0,
                                   args.causal,
                                   aligned({&q, &args.k, &args.v, &out}, 4 * sizeof(T))};
  if constexpr (sizeof(T) == 2) {
    if (aligned({&q, &args.k, &args.v, &out}, 16) && has_matrix_units()) {
      launch_tiled(problem, stream);
      return;
    }
  }
  launch_plain(problem, stream);
}

}  // namespace

void temporal_attention(const TemporalAttentionArgs& args, float scale, const Tensor& out,
                        void* stream) {
  const DeviceGuard guard("temporal_attention", {&args.q, &args.k, &args.v, &args.bias, &out});
  if (out.shape.elements() == 0) return;
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  if (out.dtype == DType::kFloat16) {
    launch<Half>(args, scale, out, cuda_stream);
  } else if (out.dtype == DType::kBFloat16) {
    launch<BFloat16>(args, scale, out, cuda_stream);
  } else {
    launch<float>(args, scale, out, cuda_stream);
  }
  check_launch("temporal_attention");
}

}  // namespace fastvid::cuda
