#include "fastvid/cuda/warp_blend.h"

#include "fastvid/cuda/device.h"

namespace fastvid::cuda {

void warp_blend(const WarpBlendArgs&, int, const Tensor& out, void*) {
  const DeviceGuard guard("warp_blend", {&out});
}

}  // namespace fastvid::cuda
