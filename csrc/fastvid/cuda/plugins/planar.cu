#include "fastvid/cuda/planar.cuh"
#include "fastvid/cuda/plugins/entry.cuh"

namespace fastvid::cuda {

extern "C" {

__global__ void __launch_bounds__(kPluginThreads)
    fastvid_rgb_to_planar_f32(const float* frames, int count, int height, int width, float* out) {
  const int64_t i = plugin_index(), plane = int64_t{height} * width;
  if (i < count * plane) rgb_to_planar_pixel(frames, out, plane, i);
}

__global__ void __launch_bounds__(kPluginThreads)
    fastvid_planar_to_rgb_f32(const float* x, int count, int height, int width, float* out) {
  const int64_t i = plugin_index(), plane = int64_t{height} * width;
  if (i < count * plane) planar_to_rgb_pixel(x, out, plane, i);
}

}  // extern "C"

}  // namespace fastvid::cuda
