#include "fastvid/ops/softmax_splat.h"

#include "array.h"
#include "module.h"

namespace fastvid::python {
namespace {

py::object py_softmax_splat(const py::object& image, const py::object& flow,
                            const py::object& metric, const std::string& mode, bool deterministic,
                            const py::object& out, const py::object& workspace, int threads,
                            const py::object& stream) {
  Call call("softmax_splat", stream);
  SoftmaxSplatArgs args{.image = call.input("image", image),
                        .flow = call.input("flow", flow),
                        .metric = call.optional_input("metric", metric),
                        .mode = splat_mode(mode),
                        .deterministic = deterministic};
  Output result = call.output(out, softmax_splat_output(args));
  if (!workspace.is_none()) {
    args.workspace = call.output(workspace, Tensor{.name = "workspace"}).tensor;
  }
  call.run(threads, [&](const Executor& e) { softmax_splat(args, result.tensor, e); });
  return result.object;
}

int64_t py_softmax_splat_workspace(int64_t channels, int64_t height, int64_t width,
                                   const std::string& mode, bool deterministic) {
  const SoftmaxSplatArgs args{.image = {.shape = {1, channels, height, width}},
                              .mode = splat_mode(mode),
                              .deterministic = deterministic};
  return softmax_splat_workspace(args);
}

}  // namespace

void register_softmax_splat(py::module_& m) {
  m.def("softmax_splat", &py_softmax_splat, py::arg("image"), py::arg("flow"), py::arg("metric"),
        py::arg("mode"), py::arg("deterministic"), py::arg("out"), py::arg("workspace"),
        py::arg("threads"), py::arg("stream"));
  m.def("softmax_splat_workspace", &py_softmax_splat_workspace, py::arg("channels"),
        py::arg("height"), py::arg("width"), py::arg("mode"), py::arg("deterministic"));
}

}  // namespace fastvid::python
