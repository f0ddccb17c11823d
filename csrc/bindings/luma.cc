#include "fastvid/ops/luma.h"

#include "array.h"
#include "fastvid/core/error.h"
#include "module.h"

namespace fastvid::python {
namespace {

py::tuple py_rgb_to_luma(const py::object& frames, const py::object& out_luma,
                         const py::object& out_chroma, int threads) {
  constexpr const char* op = "rgb_to_luma";
  const Tensor in = input(op, "frames", frames);
  const LumaTensors expected = rgb_to_luma_output(in);
  Output first = output(op, out_luma, expected.luma, in);
  Output second = output(op, out_chroma, expected.chroma, in);
  const LumaTensors out{first.tensor, second.tensor};
  run(first, threads, [&](const Executor& e) { rgb_to_luma(in, out, e); });
  return py::make_tuple(first.object, second.object);
}

py::object py_luma_to_rgb(const py::object& luma, const py::object& chroma, const py::object& out,
                          int threads) {
  constexpr const char* op = "luma_to_rgb";
  const LumaTensors in{input(op, "luma", luma), input(op, "chroma", chroma)};
  Output result = output(op, out, luma_to_rgb_output(in), in.luma);
  run(result, threads, [&](const Executor& e) { luma_to_rgb(in, result.tensor, e); });
  return result.object;
}

}  // namespace

void register_luma(py::module_& m) {
  m.def("rgb_to_luma", &py_rgb_to_luma, py::arg("frames"), py::arg("out_luma"),
        py::arg("out_chroma"), py::arg("threads"));
  m.def("luma_to_rgb", &py_luma_to_rgb, py::arg("luma"), py::arg("chroma"), py::arg("out"),
        py::arg("threads"));
}

}  // namespace fastvid::python
