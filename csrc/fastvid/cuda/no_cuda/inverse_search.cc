#include "fastvid/cuda/inverse_search.h"

#include "fastvid/cuda/device.h"

namespace fastvid::cuda {

void inverse_search(const Tensor& luma0, const Tensor& luma1, const Tensor& flow01, const Tensor&,
                    const InverseSearchOptions&, void*) {
  const DeviceGuard guard("inverse_search", {&luma0, &luma1, &flow01});
}

}  // namespace fastvid::cuda
