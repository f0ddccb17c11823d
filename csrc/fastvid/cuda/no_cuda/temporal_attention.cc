#include "fastvid/cuda/temporal_attention.h"

#include "fastvid/cuda/device.h"

namespace fastvid::cuda {

void temporal_attention(const TemporalAttentionArgs&, float, const Tensor& out, void*) {
  const DeviceGuard guard("temporal_attention", {&out});
}

}  // namespace fastvid::cuda
