#include "fastvid/ops/scheduler_step.h"

#include "array.h"
#include "fastvid/core/error.h"
#include "module.h"

namespace fastvid::python {
namespace {

constexpr const char* kInputNames[] = {"inputs[0]", "inputs[1]", "inputs[2]",
                                       "inputs[3]", "inputs[4]", "inputs[5]"};
constexpr const char* kOutputNames[] = {"out[0]", "out[1]", "out[2]"};

// `matrix` (outputs, inputs) and `noise_scale` (outputs) are float32; the latter is None for no
// noise. ops.py has checked the numbers of all.
py::tuple py_scheduler_step(const py::array_t<float, py::array::c_style>& matrix,
                            const py::tuple& inputs, const py::object& uncond, float guidance,
                            const py::object& noise_scale, uint64_t seed, uint32_t subsequence,
                            uint64_t offset, const py::tuple& out, const char* out_dtype,
                            int threads, const py::object& stream) {
  constexpr const char* op = "scheduler_step";
  Call call(op, stream);
  SchedulerStep step{};
  SolverStep& numbers = step.numbers;
  numbers.inputs = static_cast<int>(inputs.size());
  numbers.outputs = static_cast<int>(out.size());
  if (numbers.inputs < 1 || numbers.inputs > SolverStep::kMaxInputs || numbers.outputs < 1 ||
      numbers.outputs > SolverStep::kMaxOutputs ||
      matrix.size() != py::ssize_t{numbers.inputs} * numbers.outputs) {
    throw InputError("scheduler_step: matrix must have a row per output and a column per input");
  }
  for (int k = 0; k < numbers.inputs; ++k) step.in[k] = call.input(kInputNames[k], inputs[k]);
  step.uncond = call.optional_input("uncond", uncond);
  numbers.guidance = guidance;
  for (int o = 0; o < numbers.outputs; ++o) {
    for (int k = 0; k < numbers.inputs; ++k) {
      numbers.matrix[o][k] = matrix.data()[o * numbers.inputs + k];
    }
  }
  numbers.noisy = !noise_scale.is_none();
  if (numbers.noisy) {
    const auto scales = noise_scale.cast<py::array_t<float, py::array::c_style>>();
    if (scales.size() != numbers.outputs) {
      throw InputError("scheduler_step: noise_scale must have a number per output");
    }
    for (int o = 0; o < numbers.outputs; ++o) numbers.noise_scale[o] = scales.data()[o];
    numbers.noise = {.seed = seed, .subsequence = subsequence, .offset = offset};
  }
  Output results[SolverStep::kMaxOutputs];
  py::tuple objects(out.size());
  for (int o = 0; o < numbers.outputs; ++o) {
    const Tensor expected{
        .name = kOutputNames[o], .dtype = dtype_named(out_dtype), .shape = step.in[0].shape};
    results[o] = call.output(out[o], expected);
    step.out[o] = results[o].tensor;
    objects[o] = results[o].object;
  }
  call.run(threads, [&](const Executor& e) { scheduler_step(step, e); });
  return objects;
}

}  // namespace

void register_scheduler_step(py::module_& m) {
  m.def("scheduler_step", &py_scheduler_step, py::arg("matrix"), py::arg("inputs"),
        py::arg("uncond"), py::arg("guidance_scale"), py::arg("noise_scale"), py::arg("seed"),
        py::arg("subsequence"), py::arg("offset"), py::arg("out"), py::arg("out_dtype"),
        py::arg("threads"), py::arg("stream"));
}

}  // namespace fastvid::python
