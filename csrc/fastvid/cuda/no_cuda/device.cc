#include "fastvid/cuda/device.h"

#include <string>

#include "fastvid/core/error.h"

namespace fastvid::cuda {

bool compiled() { return false; }

DeviceGuard::DeviceGuard(const char* op, std::initializer_list<const Tensor*>) {
  throw NoDeviceError(std::string(op) + ": this build of fastvid has no CUDA kernels",
                      "install it again with FASTVID_CUDA=ON, or pass NumPy arrays");
}

DeviceGuard::~DeviceGuard() = default;

void check_launch(const char*) {}

}  // namespace fastvid::cuda
