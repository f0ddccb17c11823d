#include "fastvid/ops/randn.h"

#include "array.h"
#include "module.h"

namespace fastvid::python {
namespace {

py::object py_randn(const py::tuple& shape, uint64_t seed, uint32_t subsequence, uint64_t offset,
                    const char* dtype, const py::object& out, int threads,
                    const py::object& stream) {
  constexpr const char* op = "randn";
  Call call(op, stream);
  int64_t sizes[Shape::kMaxRank] = {};
  const auto rank = static_cast<int>(shape.size());
  for (int i = 0; i < rank && i < Shape::kMaxRank; ++i) sizes[i] = shape[i].cast<int64_t>();
  const Tensor expected{.name = "out", .dtype = dtype_named(dtype), .shape = Shape(sizes, rank)};
  Output result = call.output(out, expected);
  require_dtype(op, result.tensor, expected.dtype);
  require_shape(op, result.tensor, expected.shape);
  const Noise noise{.seed = seed, .subsequence = subsequence, .offset = offset};
  call.run(threads, [&](const Executor& e) { randn(result.tensor, noise, e); });
  return result.object;
}

}  // namespace

void register_randn(py::module_& m) {
  m.def("randn", &py_randn, py::arg("shape"), py::arg("seed"), py::arg("subsequence"),
        py::arg("offset"), py::arg("dtype"), py::arg("out"), py::arg("threads"), py::arg("stream"));
}

}  // namespace fastvid::python
