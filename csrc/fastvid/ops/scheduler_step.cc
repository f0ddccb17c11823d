#include "fastvid/ops/scheduler_step.h"

#include <cstdint>

#include "fastvid/core/error.h"
#include "fastvid/core/isa.h"
#include "fastvid/cpu/scheduler_step.h"
#include "fastvid/cuda/scheduler_step.h"

namespace fastvid {
namespace {

constexpr const char* kOp = "scheduler_step";
// Elements of one task; a multiple of the widest vector.
constexpr int64_t kGrain = 1 << 15;
// Results larger than this do not stay in the caches until they are read again.
constexpr int64_t kStreamBytes = int64_t{8} << 20;
constexpr uintptr_t kVectorBytes = 64;

// An output may take the place of an input element by element, not lie across it.
void check_apart(const Tensor& out, const Tensor& input) {
  if (out.data == input.data && out.dtype == input.dtype) return;
  require_apart(kOp, out, {&input});
}

SolverStep::Array array_of(const Tensor& tensor) { return {tensor.data, tensor.dtype}; }

void check(const SchedulerStep& step) {
  const SolverStep& numbers = step.numbers;
  const auto check_array = [&](const Tensor& tensor) {
    require_dtype(kOp, tensor, {DType::kFloat32, DType::kFloat16, DType::kBFloat16});
    require_shape(kOp, tensor, step.in[0].shape);
    (void)on_cuda(kOp, {&step.in[0], &tensor});
  };
  for (int k = 0; k < numbers.inputs; ++k) check_array(step.in[k]);
  if (step.uncond.present()) check_array(step.uncond);
  for (int o = 0; o < numbers.outputs; ++o) {
    const Tensor& out = step.out[o];
    check_array(out);
    for (int k = 0; k < numbers.inputs; ++k) {
      check_apart(out, step.in[k]);
    }
    check_apart(out, step.uncond);
    for (int other = 0; other < o; ++other) require_apart(kOp, out, {&step.out[other]});
  }
}

// Storing past the caches pays for large results, but not for memory that was just read.
bool may_stream(const SchedulerStep& step) {
  const int outputs = step.numbers.outputs;
  const int64_t bytes = step.in[0].shape.elements() * int64_t{sizeof(float)};
  if (bytes * outputs < kStreamBytes) return false;
  for (int o = 0; o < outputs; ++o) {
    const Tensor& out = step.out[o];
    if (out.dtype != DType::kFloat32) return false;
    if (reinterpret_cast<uintptr_t>(out.data) % kVectorBytes != 0) return false;
    if (out.data == step.uncond.data) return false;
    for (int k = 0; k < step.numbers.inputs; ++k) {
      if (out.data == step.in[k].data) return false;
    }
  }
  return true;
}

bool is_mixed(const SchedulerStep& step) {
  bool mixed = step.uncond.dtype != DType::kFloat32;
  for (int k = 0; k < step.numbers.inputs; ++k) mixed |= step.in[k].dtype != DType::kFloat32;
  for (int o = 0; o < step.numbers.outputs; ++o) mixed |= step.out[o].dtype != DType::kFloat32;
  return mixed;
}

}  // namespace

void scheduler_step(const SchedulerStep& step, const Executor& executor) {
  check(step);
  const int64_t elements = step.in[0].shape.elements();
  if (elements == 0) return;
  SolverStep kernel_step = step.numbers;
  for (int k = 0; k < kernel_step.inputs; ++k) kernel_step.in[k] = array_of(step.in[k]);
  for (int o = 0; o < kernel_step.outputs; ++o) kernel_step.out[o] = array_of(step.out[o]);
  kernel_step.uncond = array_of(step.uncond);
  kernel_step.mixed = is_mixed(step);
  if (step.in[0].device == Device::kCuda) {
    cuda::scheduler_step(step, kernel_step, executor.cuda_stream());
    return;
  }
  kernel_step.stream = may_stream(step);
  const auto kernel = FASTVID_BY_ISA(scheduler_step);
  for_rows(executor, elements, kGrain,
           [&](int64_t begin, int64_t end) { kernel(kernel_step, begin, end); });
}

}  // namespace fastvid
