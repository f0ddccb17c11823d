#include <cuda_runtime.h>

#include "fastvid/cuda/attention.h"
#include "fastvid/cuda/attention_mma.cuh"
#include "fastvid/cuda/attention_plain.cuh"
#include "fastvid/cuda/device.h"

namespace fastvid::cuda {
namespace {

// Whether rows of 16-bit values can be read 16 bytes at a time.
bool in_packs(const Attention& a) {
  const auto fits = [](const void* data, const Attention::Strides& s) {
    return reinterpret_cast<uintptr_t>(data) % 16 == 0 && s.batch % 8 == 0 && s.token % 8 == 0 &&
           s.head % 8 == 0;
  };
  return a.dim % 8 == 0 && fits(a.q, a.q_strides) && fits(a.k, a.k_strides) &&
         fits(a.v, a.v_strides) && fits(a.out, a.out_strides);
}

// m16n8k16 products exist from compute capability 8.0 on.
bool has_mma() {
  int device = 0, major = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
         major >= 8;
}

unsigned blocks_for(const Attention& a, int queries) {
  return static_cast<unsigned>(a.batch * a.heads * ((a.queries + queries - 1) / queries));
}

template <class T, int kDim>
__global__ void __launch_bounds__(mma::kThreads)
    attention_mma_kernel(const __grid_constant__ Attention a) {
  attention_mma_block<T, kDim>(a);
}

template <class T, int kDim>
__global__ void __launch_bounds__(plain::kThreads)
    attention_plain_kernel(const __grid_constant__ Attention a) {
  attention_plain_block<T, kDim>(a);
}

template <class T, int kDim>
void launch_mma(const Attention& a, cudaStream_t stream) {
  attention_mma_kernel<T, kDim><<<blocks_for(a, mma::kQueries), mma::kThreads, 0, stream>>>(a);
}

template <class T, int kDim>
void launch_plain(const Attention& a, cudaStream_t stream) {
  attention_plain_kernel<T, kDim>
      <<<blocks_for(a, plain::kBlockQueries<kDim>), plain::kThreads, 0, stream>>>(a);
}

template <class T>
void launch_plain_any(const Attention& a, cudaStream_t stream) {
  if (a.dim <= 64) {
    launch_plain<T, 64>(a, stream);
  } else if (a.dim <= 128) {
    launch_plain<T, 128>(a, stream);
  } else {
    launch_plain<T, 256>(a, stream);
  }
}

template <class T>
void launch_narrow(const Attention& a, cudaStream_t stream) {
  if (a.dim > 128 || !in_packs(a) || !has_mma()) {
    launch_plain_any<T>(a, stream);
  } else if (a.dim <= 64) {
    launch_mma<T, 64>(a, stream);
  } else {
    launch_mma<T, 128>(a, stream);
  }
}

}  // namespace

void attention(const AttentionArgs& args, const Attention& kernel, const Tensor& out,
               void* stream) {
  const DeviceGuard guard("attention", {&args.q, &args.k, &args.v, &args.bias, &out});
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  if (out.dtype == DType::kFloat32) {
    launch_plain_any<float>(kernel, cuda_stream);
  } else if (out.dtype == DType::kFloat16) {
    launch_narrow<__half>(kernel, cuda_stream);
  } else {
    launch_narrow<__nv_bfloat16>(kernel, cuda_stream);
  }
  check_launch("attention");
}

}  // namespace fastvid::cuda
