#include <cuda_runtime.h>

#include "fastvid/cuda/device.h"
#include "fastvid/cuda/luma.cuh"
#include "fastvid/cuda/luma.h"

namespace fastvid::cuda {
namespace {

constexpr int kThreads = 256;

unsigned blocks(int64_t pixels) {
  return static_cast<unsigned>((pixels + kThreads - 1) / kThreads);
}

__global__ void __launch_bounds__(kThreads)
    rgb_to_luma_kernel(RgbToLuma op, int64_t plane, int64_t pixels) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= pixels) return;
  if (op.rgb != nullptr) {
    rgb_to_luma_pixel(op, op.rgb, plane, i);
  } else {
    rgb_to_luma_pixel(op, op.wide_rgb, plane, i);
  }
}

__global__ void __launch_bounds__(kThreads) luma_to_rgb_kernel(LumaToRgb op, int64_t pixels) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= pixels) return;
  if (op.rgb != nullptr) {
    luma_to_rgb_pixel(op, op.rgb, i);
  } else {
    luma_to_rgb_pixel(op, op.wide_rgb, i);
  }
}

}  // namespace

void rgb_to_luma(const RgbToLuma& op, const Tensor& frames, const LumaTensors& out, void* stream) {
  const DeviceGuard guard("rgb_to_luma", {&frames, &out.luma, &out.chroma});
  const int64_t pixels = out.luma.shape.elements();
  if (pixels == 0) return;
  rgb_to_luma_kernel<<<blocks(pixels), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      op, out.luma.dim(2) * out.luma.dim(3), pixels);
  check_launch("rgb_to_luma");
}

void luma_to_rgb(const LumaToRgb& op, const LumaTensors& in, const Tensor& out, void* stream) {
  const DeviceGuard guard("luma_to_rgb", {&in.luma, &in.chroma, &out});
  const int64_t pixels = in.luma.shape.elements();
  if (pixels == 0) return;
  luma_to_rgb_kernel<<<blocks(pixels), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(op,
                                                                                         pixels);
  check_launch("luma_to_rgb");
}

}  // namespace fastvid::cuda
