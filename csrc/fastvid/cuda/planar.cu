#include <cuda_runtime.h>

#include "fastvid/cuda/device.h"
#include "fastvid/cuda/planar.h"

namespace fastvid::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    rgb_to_planar_kernel(const uint8_t* __restrict__ rgb, float* __restrict__ planes, int64_t plane,
                         int64_t pixels) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= pixels) return;
  const int64_t n = i / plane;
  float* out = planes + n * 3 * plane + (i - n * plane);
  for (int c = 0; c < 3; ++c) out[c * plane] = __fdiv_rn(rgb[3 * i + c], 255.0f);
}

__global__ void __launch_bounds__(kThreads)
    planar_to_rgb_kernel(const float* __restrict__ planes, int64_t plane, uint8_t* __restrict__ rgb,
                         int64_t pixels) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= pixels) return;
  const int64_t n = i / plane;
  const float* in = planes + n * 3 * plane + (i - n * plane);
  for (int c = 0; c < 3; ++c) {
    // __saturatef takes NaN to 0.
    rgb[3 * i + c] = static_cast<uint8_t>(__float2uint_rn(__saturatef(in[c * plane]) * 255.0f));
  }
}

unsigned blocks(int64_t pixels) {
  return static_cast<unsigned>((pixels + kThreads - 1) / kThreads);
}

}  // namespace

void rgb_to_planar(const Tensor& frames, const Tensor& out, void* stream) {
  const DeviceGuard guard("rgb_to_planar", {&frames, &out});
  const int64_t plane = frames.dim(1) * frames.dim(2), pixels = frames.dim(0) * plane;
  if (pixels == 0) return;
  rgb_to_planar_kernel<<<blocks(pixels), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      frames.as<const uint8_t>(), out.as<float>(), plane, pixels);
  check_launch("rgb_to_planar");
}

void planar_to_rgb(const Tensor& x, const Tensor& out, void* stream) {
  const DeviceGuard guard("planar_to_rgb", {&x, &out});
  const int64_t plane = x.dim(2) * x.dim(3), pixels = x.dim(0) * plane;
  if (pixels == 0) return;
  planar_to_rgb_kernel<<<blocks(pixels), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      x.as<const float>(), plane, out.as<uint8_t>(), pixels);
  check_launch("planar_to_rgb");
}

}  // namespace fastvid::cuda
