#include "fastvid/ops/inverse_search.h"

#include "array.h"
#include "module.h"

namespace fastvid::python {
namespace {

py::tuple py_inverse_search(const py::object& luma0, const py::object& luma1,
                            const py::object& flow01, const py::object& flow10, int64_t iterations,
                            int64_t stride, int64_t finest, bool bidirectional, int threads,
                            const py::object& stream) {
  constexpr const char* op = "inverse_search";
  Call call(op, stream);
  const InverseSearchOptions options{iterations, stride, finest};
  const Tensor first = call.input("luma0", luma0), second = call.input("luma1", luma1);
  Tensor expected = inverse_search_output(first, second, options);
  Output forward = call.output(flow01, expected);
  Output backward{py::none(), Tensor{.name = "flow10"}};
  if (bidirectional) {
    expected.name = "flow10";
    backward = call.output(flow10, expected);
  }
  call.run(threads, [&](const Executor& e) {
    inverse_search(first, second, forward.tensor, backward.tensor, options, e);
  });
  return py::make_tuple(forward.object, backward.object);
}

}  // namespace

void register_inverse_search(py::module_& m) {
  m.def("inverse_search", &py_inverse_search, py::arg("luma0"), py::arg("luma1"), py::arg("flow01"),
        py::arg("flow10"), py::arg("iterations"), py::arg("stride"), py::arg("finest"),
        py::arg("bidirectional"), py::arg("threads"), py::arg("stream"));
}

}  // namespace fastvid::python
