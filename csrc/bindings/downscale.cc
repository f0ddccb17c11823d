#include "fastvid/ops/downscale.h"

#include "array.h"
#include "module.h"

namespace fastvid::python {
namespace {

py::object py_downscale(const py::object& x, int64_t factor, const py::object& out, int threads,
                        const py::object& stream) {
  Call call("downscale", stream);
  const Tensor in = call.input("x", x);
  Output result = call.output(out, downscale_output(in, factor));
  call.run(threads, [&](const Executor& e) { downscale(in, result.tensor, factor, e); });
  return result.object;
}

}  // namespace

void register_downscale(py::module_& m) {
  m.def("downscale", &py_downscale, py::arg("x"), py::arg("factor"), py::arg("out"),
        py::arg("threads"), py::arg("stream"));
}

}  // namespace fastvid::python
