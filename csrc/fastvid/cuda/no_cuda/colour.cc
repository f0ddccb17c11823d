#include "fastvid/cuda/colour.h"

#include "fastvid/cuda/device.h"

namespace fastvid::cuda {

void yuv_to_rgb(const YuvToRgb&, const YuvTensors& yuv, const Tensor& out, void*) {
  const DeviceGuard guard("yuv_to_rgb", {&yuv.y, &yuv.u, &yuv.v, &out});
}

void rgb_to_yuv(const RgbToYuv&, const Tensor& rgb, const YuvTensors& out, void*) {
  const DeviceGuard guard("rgb_to_yuv", {&rgb, &out.y, &out.u, &out.v});
}

}  // namespace fastvid::cuda
