// What scheduler_step agrees on with its CPU and CUDA kernels.
#pragma once

#include <cstdint>

#include "fastvid/core/noise.h"
#include "fastvid/core/tensor.h"

namespace fastvid {

struct SolverStep {
  static constexpr int kMaxInputs = 6, kMaxOutputs = 3;

  // float32, float16 or bfloat16, each by itself.
  struct Array {
    void* data;
    DType dtype;
  };

  Array in[kMaxInputs];
  Array uncond;  // null without guidance
  float guidance;
  Array out[kMaxOutputs];
  int inputs, outputs;
  float matrix[kMaxOutputs][kMaxInputs];
  bool noisy;  // whether noise_scale times the noise is added
  float noise_scale[kMaxOutputs];
  Noise noise;
  bool mixed;   // whether an array is not float32
  bool stream;  // store past the caches; every output is float32 and aligned to 64 bytes
};

}  // namespace fastvid
