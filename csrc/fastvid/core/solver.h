// What scheduler_step agrees on with its CPU and CUDA kernels.
#pragma once

#include <cstdint>

#include "fastvid/core/noise.h"

namespace fastvid {

struct SolverStep {
  static constexpr int kMaxInputs = 6, kMaxOutputs = 3;

  const float* in[kMaxInputs];
  const float* uncond;  // null without guidance
  float guidance;
  float* out[kMaxOutputs];
  int inputs, outputs;
  float matrix[kMaxOutputs][kMaxInputs];
  bool noisy;  // whether noise_scale times the noise is added
  float noise_scale[kMaxOutputs];
  Noise noise;
  bool stream;  // store past the caches; every output is aligned to 64 bytes
};

}  // namespace fastvid
