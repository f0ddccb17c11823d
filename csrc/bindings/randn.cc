#include "fastvid/ops/randn.h"

#include "array.h"
#include "module.h"

namespace fastvid::python {
namespace {

py::object py_randn(const py::tuple& shape, uint64_t seed, uint32_t stream, uint64_t offset,
                    const py::object& out, int threads) {
  constexpr const char* op = "randn";
  int64_t sizes[Shape::kMaxRank] = {};
  const auto rank = static_cast<int>(shape.size());
  for (int i = 0; i < rank && i < Shape::kMaxRank; ++i) sizes[i] = shape[i].cast<int64_t>();
  const Tensor expected{.name = "out", .dtype = DType::kFloat32, .shape = Shape(sizes, rank)};
  Output result = output(op, out, expected, expected);
  require_dtype(op, result.tensor, DType::kFloat32);
  require_shape(op, result.tensor, expected.shape);
  const Noise noise{.seed = seed, .stream = stream, .offset = offset};
  run(result, threads, [&](const Executor& e) { randn(result.tensor, noise, e); });
  return result.object;
}

}  // namespace

void register_randn(py::module_& m) {
  m.def("randn", &py_randn, py::arg("shape"), py::arg("seed"), py::arg("stream"), py::arg("offset"),
        py::arg("out"), py::arg("threads"));
}

}  // namespace fastvid::python
