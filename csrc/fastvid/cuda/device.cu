#include <cuda_runtime.h>

#include <string>

#include "fastvid/core/error.h"
#include "fastvid/cuda/device.h"

namespace fastvid::cuda {

bool compiled() { return true; }

void require_device(const char* op) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0) {
    (void)cudaGetLastError();
    throw NoDeviceError(std::string(op) + ": a CUDA device must be present, got " +
                            (error == cudaSuccess ? "none" : cudaGetErrorString(error)),
                        "pass arrays on the CPU");
  }
}

DeviceGuard::DeviceGuard(const char* op, std::initializer_list<const Tensor*> tensors) {
  require_device(op);
  int device = -1;
  for (const Tensor* tensor : tensors) {
    if (!tensor->present()) continue;
    cudaPointerAttributes attributes{};
    if (cudaPointerGetAttributes(&attributes, tensor->data) != cudaSuccess ||
        attributes.devicePointer == nullptr) {
      (void)cudaGetLastError();
      throw InputError(std::string(op) + ": " + tensor->name +
                       " must be CUDA device memory, got another pointer");
    }
    if (device >= 0 && attributes.device != device) {
      throw InputError(std::string(op) + ": " + tensor->name + " must be on device " +
                       std::to_string(device) + ", got " + std::to_string(attributes.device));
    }
    device = attributes.device;
  }
  if (cudaGetDevice(&previous_) != cudaSuccess || cudaSetDevice(device) != cudaSuccess) {
    throw DeviceError(std::string(op) + ": " + cudaGetErrorString(cudaGetLastError()));
  }
}

DeviceGuard::~DeviceGuard() { (void)cudaSetDevice(previous_); }

void check_launch(const char* op) {
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) {
    throw DeviceError(std::string(op) + ": the CUDA kernel failed: " + cudaGetErrorString(error));
  }
}

}  // namespace fastvid::cuda
