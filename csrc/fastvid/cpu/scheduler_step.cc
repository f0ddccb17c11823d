#include "fastvid/cpu/scheduler_step.h"

#include "fastvid/cpu/lanes.h"
#include "fastvid/cpu/normals.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

using Array = SolverStep::Array;

template <class S, int kInputs, int kOutputs, bool kMixed>
struct Kernel {
  using F = typename S::F;

  // The branch is the same for all of an array, so it costs next to nothing.
  FASTVID_INLINE static F load(const Array& array, int64_t i) {
    if (kMixed && array.dtype == DType::kFloat16)
      return S::load(static_cast<Half*>(array.data) + i);
    if (kMixed && array.dtype == DType::kBFloat16) {
      return S::load(static_cast<BFloat16*>(array.data) + i);
    }
    return S::load(static_cast<float*>(array.data) + i);
  }

  FASTVID_INLINE static void store(const Array& array, int64_t i, F value) {
    if (kMixed && array.dtype == DType::kFloat16) {
      S::store(static_cast<Half*>(array.data) + i, value);
    } else if (kMixed && array.dtype == DType::kBFloat16) {
      S::store(static_cast<BFloat16*>(array.data) + i, value);
    } else {
      S::store(static_cast<float*>(array.data) + i, value);
    }
  }

  // Elements at `i` of every output, all read before any is written; `noise` is theirs or null.
  FASTVID_INLINE static void block(const SolverStep& step, int64_t i, const float* noise) {
    F in[kInputs];
    for (int k = 0; k < kInputs; ++k) in[k] = load(step.in[k], i);
    if (step.uncond.data != nullptr) {
      const F uncond = load(step.uncond, i);
      in[0] = uncond + S::splat(step.guidance) * (in[0] - uncond);
    }
    F out[kOutputs];
    for (int o = 0; o < kOutputs; ++o) {
      out[o] = S::splat(step.matrix[o][0]) * in[0];
      for (int k = 1; k < kInputs; ++k) out[o] = out[o] + S::splat(step.matrix[o][k]) * in[k];
      if (noise != nullptr) out[o] = out[o] + S::splat(step.noise_scale[o]) * S::load(noise);
    }
    for (int o = 0; o < kOutputs; ++o) {
      if (step.stream) {
        S::stream(static_cast<float*>(step.out[o].data) + i, out[o]);
      } else {
        store(step.out[o], i, out[o]);
      }
    }
  }

  // Says how far it came: whole vectors only.
  static int64_t run(const SolverStep& shared, int64_t begin, int64_t end) {
    const SolverStep step =
        shared;  // a copy nothing else can change, so that it stays in registers
    int64_t i = begin;
    if (step.noisy) {
      alignas(64) float noise[kNoiseTile];
      while (i + S::kLanes <= end) {
        const int64_t n = end - i < kNoiseTile ? (end - i) / S::kLanes * S::kLanes : kNoiseTile;
        normals(step.noise, step.noise.offset + static_cast<uint64_t>(i), n, noise);
        for (int64_t j = 0; j < n; j += S::kLanes) block(step, i + j, noise + j);
        i += n;
      }
    } else if (step.uncond.data != nullptr) {
      for (; i + S::kLanes <= end; i += S::kLanes) block(step, i, nullptr);
    } else {
      for (; i + S::kLanes <= end; i += S::kLanes) block(step, i, nullptr);
    }
    if (step.stream) S::fence();
    return i;
  }
};

using Run = int64_t (*)(const SolverStep&, int64_t, int64_t);

template <class S, bool kMixed>
Run run_for(const SolverStep& step) {
  static constexpr Run kRuns[SolverStep::kMaxOutputs][SolverStep::kMaxInputs] = {
      {Kernel<S, 1, 1, kMixed>::run, Kernel<S, 2, 1, kMixed>::run, Kernel<S, 3, 1, kMixed>::run,
       Kernel<S, 4, 1, kMixed>::run, Kernel<S, 5, 1, kMixed>::run, Kernel<S, 6, 1, kMixed>::run},
      {Kernel<S, 1, 2, kMixed>::run, Kernel<S, 2, 2, kMixed>::run, Kernel<S, 3, 2, kMixed>::run,
       Kernel<S, 4, 2, kMixed>::run, Kernel<S, 5, 2, kMixed>::run, Kernel<S, 6, 2, kMixed>::run},
      {Kernel<S, 1, 3, kMixed>::run, Kernel<S, 2, 3, kMixed>::run, Kernel<S, 3, 3, kMixed>::run,
       Kernel<S, 4, 3, kMixed>::run, Kernel<S, 5, 3, kMixed>::run, Kernel<S, 6, 3, kMixed>::run}};
  return kRuns[step.outputs - 1][step.inputs - 1];
}

template <class S>
int64_t run(const SolverStep& step, int64_t begin, int64_t end) {
  return (step.mixed ? run_for<S, true>(step) : run_for<S, false>(step))(step, begin, end);
}

}  // namespace

void scheduler_step(const SolverStep& step, int64_t begin, int64_t end) {
  begin = run<Lanes>(step, begin, end);
  if (begin < end) run<Scalar>(step, begin, end);
}

}  // namespace fastvid::cpu::FASTVID_ISA
