// Memory of the device for the time of a call.
#pragma once

#include <cuda_runtime.h>

#include <string>

#include "fastvid/core/error.h"

namespace fastvid::cuda {

// Taken from the device's pool and given back in the order of the stream, so nothing waits.
class Workspace {
 public:
  Workspace(const char* op, size_t bytes, cudaStream_t stream) : stream_(stream) {
    if (cudaMallocAsync(&memory_, bytes, stream) != cudaSuccess) {
      memory_ = nullptr;
      throw DeviceError(std::string(op) + ": " + cudaGetErrorString(cudaGetLastError()));
    }
  }
  ~Workspace() { (void)cudaFreeAsync(memory_, stream_); }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  void* data() const { return memory_; }

 private:
  void* memory_ = nullptr;
  cudaStream_t stream_;
};

}  // namespace fastvid::cuda
