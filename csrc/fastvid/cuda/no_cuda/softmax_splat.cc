#include "fastvid/cuda/softmax_splat.h"

#include "fastvid/cuda/device.h"

namespace fastvid::cuda {

void softmax_splat(const SoftmaxSplatArgs&, const Tensor& out, int64_t, void*) {
  const DeviceGuard guard("softmax_splat", {&out});
}

}  // namespace fastvid::cuda
