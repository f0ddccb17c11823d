// What every CUDA launcher needs; without CUDA its twin in no_cuda/ says so.
#pragma once

#include <initializer_list>

#include "fastvid/core/tensor.h"

namespace fastvid::cuda {

// Whether this build has CUDA kernels.
bool compiled();

// Throws NoDeviceError where there is no device or no kernels.
void require_device(const char* op);

// Makes the device that owns the tensors the current one while it lives. Throws as
// require_device does, and InputError where a pointer is not device memory or the tensors are on
// different devices.
class DeviceGuard {
 public:
  DeviceGuard(const char* op, std::initializer_list<const Tensor*> tensors);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int previous_ = 0;
};

// Throws DeviceError if the last launch of `op` failed.
void check_launch(const char* op);

}  // namespace fastvid::cuda
