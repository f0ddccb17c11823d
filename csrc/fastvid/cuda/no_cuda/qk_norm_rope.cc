#include "fastvid/cuda/qk_norm_rope.h"

#include "fastvid/cuda/device.h"

namespace fastvid::cuda {

void qk_norm_rope(const QkNormRopeArgs&, const NormRope&, const NormRope&, const Tensor& q_out,
                  const Tensor&, void*) {
  const DeviceGuard guard("qk_norm_rope", {&q_out});
}

}  // namespace fastvid::cuda
