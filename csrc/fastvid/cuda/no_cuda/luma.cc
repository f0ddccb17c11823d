#include "fastvid/cuda/luma.h"

#include "fastvid/cuda/device.h"

namespace fastvid::cuda {

void rgb_to_luma(const RgbToLuma&, const Tensor& frames, const LumaTensors& out, void*) {
  const DeviceGuard guard("rgb_to_luma", {&frames, &out.luma, &out.chroma});
}

void luma_to_rgb(const LumaToRgb&, const LumaTensors& in, const Tensor& out, void*) {
  const DeviceGuard guard("luma_to_rgb", {&in.luma, &in.chroma, &out});
}

}  // namespace fastvid::cuda
