#include "fastvid/cuda/luma.cuh"
#include "fastvid/cuda/plugins/entry.cuh"

namespace fastvid::cuda {

extern "C" {

__global__ void __launch_bounds__(kPluginThreads)
    fastvid_rgb_to_luma_f32(const float* frames, int count, int height, int width, float* luma,
                            float* chroma) {
  const int64_t i = plugin_index(), plane = int64_t{height} * width;
  const RgbToLuma op{nullptr, luma, chroma, chroma + plane, {}};
  if (i < count * plane) rgb_to_luma_pixel(op, frames, plane, i);
}

// height and width are those of the chroma.
__global__ void __launch_bounds__(kPluginThreads)
    fastvid_luma_to_rgb_f32(const float* luma, const float* chroma, int count, int height,
                            int width, int scale, float* out) {
  const int64_t i = plugin_index(), plane = int64_t{height} * width;
  LumaToRgb op{luma, chroma, chroma + plane, nullptr, height, width, scale, {}, {}};
#pragma unroll
  for (int p = 0; p < 4; ++p) op.step[p] = static_cast<float>(fabs((p + 0.5) / scale - 0.5));
  if (i < count * plane * scale * scale) luma_to_rgb_pixel(op, out, i);
}

}  // extern "C"

}  // namespace fastvid::cuda
