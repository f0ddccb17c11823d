#include <cuda_runtime.h>

#include "fastvid/cuda/device.h"
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
  const LumaWeights& w = op.weights;
  const int64_t n = i / plane, at = i - n * plane;
  const float green = op.rgb[3 * i + 1];
  const float red = op.rgb[3 * i] - green, blue = op.rgb[3 * i + 2] - green;
  op.luma[i] = w.green_to_luma * green + (w.red_to_luma * red + w.blue_to_luma * blue);
  op.cb[2 * n * plane + at] = w.half * blue + w.red_to_cb * red;
  op.cr[2 * n * plane + at] = w.half * red + w.blue_to_cr * blue;
}

struct Taps {
  int64_t near, far;
  float step;
};
__device__ Taps taps(const LumaToRgb& op, int64_t at, int64_t count) {
  const int64_t near = at / op.scale;
  const int phase = static_cast<int>(at - near * op.scale);
  const int64_t far = 2 * phase + 1 < op.scale ? near - 1 : near + 1;
  return {near, far < 0 ? 0 : far >= count ? count - 1 : far, op.step[phase]};
}

__device__ float mix(float near, float far, float step) { return near + step * (far - near); }

__device__ float enlarge(const float* plane, int64_t width, const Taps& x, const Taps& y) {
  const float *near = plane + y.near * width, *far = plane + y.far * width;
  return mix(mix(near[x.near], far[x.near], y.step), mix(near[x.far], far[x.far], y.step), x.step);
}

// A NaN becomes 0.
__device__ uint8_t to_byte(float x) {
  return static_cast<uint8_t>(__float2int_rn(fminf(fmaxf(x, 0.0f), 255.0f)));
}

__global__ void __launch_bounds__(kThreads) luma_to_rgb_kernel(LumaToRgb op, int64_t pixels) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= pixels) return;
  const int64_t width = op.width * op.scale, height = op.height * op.scale;
  const int64_t row = i / width, n = row / height, chroma = 2 * n * op.height * op.width;
  const Taps x = taps(op, i - row * width, op.width), y = taps(op, row - n * height, op.height);
  const float cb = enlarge(op.cb + chroma, op.width, x, y);
  const float cr = enlarge(op.cr + chroma, op.width, x, y);
  const LumaWeights& w = op.weights;
  const float luma = w.luma_scale * op.luma[i];
  op.rgb[3 * i] = to_byte(luma + w.cr_to_red * cr);
  op.rgb[3 * i + 1] = to_byte(luma + (w.cb_to_green * cb + w.cr_to_green * cr));
  op.rgb[3 * i + 2] = to_byte(luma + w.cb_to_blue * cb);
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
