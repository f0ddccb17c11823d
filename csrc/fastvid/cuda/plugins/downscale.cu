#include "fastvid/cuda/downscale.cuh"
#include "fastvid/cuda/plugins/entry.cuh"

namespace fastvid::cuda {

extern "C" {

__constant__ int fastvid_factor = 2;

__global__ void __launch_bounds__(kPluginThreads)
    fastvid_downscale_f32(const float* x, int rows, int width, float* out) {
  const int64_t i = plugin_index();
  if (i >= int64_t{rows} * width) return;
  if (fastvid_factor == 2) {
    downscale_pixel<2>(x, out, width, i);
  } else if (fastvid_factor == 4) {
    downscale_pixel<4>(x, out, width, i);
  } else {
    downscale_pixel<8>(x, out, width, i);
  }
}

}  // extern "C"

}  // namespace fastvid::cuda
