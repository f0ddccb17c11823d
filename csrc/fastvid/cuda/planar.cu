#include <cuda_runtime.h>

#include "fastvid/cuda/device.h"
#include "fastvid/cuda/planar.cuh"
#include "fastvid/cuda/planar.h"

namespace fastvid::cuda {
namespace {

constexpr int kThreads = 256;

template <class T>
__global__ void __launch_bounds__(kThreads)
    rgb_to_planar_kernel(const T* __restrict__ rgb, float* __restrict__ planes, int64_t plane,
                         int64_t pixels) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < pixels) rgb_to_planar_pixel(rgb, planes, plane, i);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    planar_to_rgb_kernel(const float* __restrict__ planes, int64_t plane, T* __restrict__ rgb,
                         int64_t pixels) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < pixels) planar_to_rgb_pixel(planes, rgb, plane, i);
}

unsigned blocks(int64_t pixels) {
  return static_cast<unsigned>((pixels + kThreads - 1) / kThreads);
}

}  // namespace

void rgb_to_planar(const Tensor& frames, const Tensor& out, void* stream) {
  const DeviceGuard guard("rgb_to_planar", {&frames, &out});
  const int64_t plane = frames.dim(1) * frames.dim(2), pixels = frames.dim(0) * plane;
  if (pixels == 0) return;
  const auto on = static_cast<cudaStream_t>(stream);
  if (frames.dtype == DType::kUint8) {
    rgb_to_planar_kernel<<<blocks(pixels), kThreads, 0, on>>>(frames.as<const uint8_t>(),
                                                              out.as<float>(), plane, pixels);
  } else {
    rgb_to_planar_kernel<<<blocks(pixels), kThreads, 0, on>>>(frames.as<const uint16_t>(),
                                                              out.as<float>(), plane, pixels);
  }
  check_launch("rgb_to_planar");
}

void planar_to_rgb(const Tensor& x, const Tensor& out, void* stream) {
  const DeviceGuard guard("planar_to_rgb", {&x, &out});
  const int64_t plane = x.dim(2) * x.dim(3), pixels = x.dim(0) * plane;
  if (pixels == 0) return;
  const auto on = static_cast<cudaStream_t>(stream);
  if (out.dtype == DType::kUint8) {
    planar_to_rgb_kernel<<<blocks(pixels), kThreads, 0, on>>>(x.as<const float>(), plane,
                                                              out.as<uint8_t>(), pixels);
  } else {
    planar_to_rgb_kernel<<<blocks(pixels), kThreads, 0, on>>>(x.as<const float>(), plane,
                                                              out.as<uint16_t>(), pixels);
  }
  check_launch("planar_to_rgb");
}

}  // namespace fastvid::cuda
