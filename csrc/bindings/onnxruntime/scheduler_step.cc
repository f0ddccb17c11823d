#include "fastvid/ops/scheduler_step.h"

#include "fastvid/core/error.h"
#include "op.h"

namespace fastvid::onnxruntime {
namespace {

constexpr size_t kCoefficients = 1, kUncond = 2;

// One output, without noise: sum over k of coefficients[k] * xk, for k up to the last x that is
// given. Attribute `guidance` is how far past `uncond` to go with x0, which it then replaces.
void compute(const Call& call) {
  constexpr const char* op = "scheduler_step";
  SchedulerStep step{};
  SolverStep& numbers = step.numbers;
  step.in[0] = call.input(0);
  step.uncond = call.input(kUncond);
  numbers.guidance = call.number("guidance");
  numbers.inputs = numbers.outputs = 1;
  for (size_t k = 1; k < SolverStep::kMaxInputs; ++k) {
    const Tensor next = call.input(kUncond + k);
    if (!next.present()) continue;
    if (static_cast<int>(k) != numbers.inputs) {
      throw InputError(std::string(op) + ": the inputs before " + next.name + " must be given");
    }
    step.in[numbers.inputs++] = next;
  }
  const Tensor coefficients = call.input(kCoefficients);
  require_shape(op, coefficients, {numbers.inputs});
  for (int k = 0; k < numbers.inputs; ++k) {
    numbers.matrix[0][k] = coefficients.as<const float>()[k];
  }
  step.out[0] = call.output({.name = "out", .dtype = step.in[0].dtype, .shape = step.in[0].shape});
  scheduler_step(step, call.executor());
}

const Op kSchedulerStep{
    {.name = "SchedulerStep",
     .inputs = {{"x0", kAnyDType},
                {.name = "coefficients", .dtype = DType::kFloat32, .host = true},
                {"uncond", kAnyDType, true},
                {"x1", kAnyDType, true},
                {"x2", kAnyDType, true},
                {"x3", kAnyDType, true},
                {"x4", kAnyDType, true},
                {"x5", kAnyDType, true}},
     .outputs = {{.dtype = kAnyDType, .rank = kRankOfInput}},
     .attributes = {{"guidance", 1.0f}},
     .compute = &compute}};

}  // namespace
}  // namespace fastvid::onnxruntime
