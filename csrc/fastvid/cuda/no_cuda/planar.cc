#include "fastvid/cuda/planar.h"

#include "fastvid/cuda/device.h"

namespace fastvid::cuda {

void rgb_to_planar(const Tensor& frames, const Tensor& out, void*) {
  const DeviceGuard guard("rgb_to_planar", {&frames, &out});
}

void planar_to_rgb(const Tensor& x, const Tensor& out, void*) {
  const DeviceGuard guard("planar_to_rgb", {&x, &out});
}

}  // namespace fastvid::cuda
